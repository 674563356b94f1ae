"""Results are compared before they are counted; a benchmark of wrong answers is worth nothing."""

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

_NOTHING = object()


class WrongResult(Exception):
    """Raised when a contestant gave back another result than the right one, or none."""


def same(what: str, got: Sequence[Any], expected: Sequence[Any]) -> int:
    """Give back how many results were compared; raise `WrongResult` naming the first bad one."""
    if len(got) != len(expected):
        raise WrongResult(f"{what}: {len(got):,} results instead of {len(expected):,}")
    for index, (mine, right) in enumerate(zip_longest(got, expected, fillvalue=_NOTHING)):
        if mine != right or type(mine) is not type(right):
            raise WrongResult(f"{what}: result {index:,} is {mine!r:.80} instead of {right!r:.80}")
    return len(expected)
