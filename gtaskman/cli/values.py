"""Words of a command line -> arguments of a task."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NoReturn

import click


def value_of(text: str) -> Any:
    """What the text is as JSON, or itself if it is none."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return text


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)  # NaN and the like: Python's own, which no JSON has


def keywords_of(words: Iterable[str]) -> dict[str, Any]:
    """``key=value ...`` as keyword arguments. Raises :class:`click.UsageError`."""
    found: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key.isidentifier():
            raise click.UsageError(
                f"{word!r} is no argument: write key=value, or --arg {word!r} for one that goes"
                " by its place"
            )
        if key in found:
            raise click.UsageError(f"{key!r} is given twice")
        found[key] = value_of(text)
    return found
