"""The command line: ``python -m tests.fairness --seconds 60 --seed 7``."""

from __future__ import annotations

import itertools
import logging
import sys
import time
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent)]

import click  # noqa: E402 - the path comes first

from fairness.mutants import MUTANTS, mutated  # noqa: E402 - likewise
from fairness.plan import make_plan  # noqa: E402 - likewise
from fairness.play import Play  # noqa: E402 - likewise

_LIMIT = 60.0  # seconds that anything may take, on a machine that others use as well
_LIMIT_OF_MUTANTS = 8.0


@click.command(help=__doc__)
@click.option("--seconds", default=60.0, help="How long to play.")
@click.option("--seed", default=1, help="The first seed; all that is random follows from it.")
@click.option("--mutants", is_flag=True, help="Put faults back, and see that they are found.")
def main(seconds: float, seed: int, mutants: bool) -> None:
    logging.getLogger("gtaskman").addHandler(logging.NullHandler())
    logging.getLogger("gtaskman").propagate = False
    if mutants:
        sys.exit(sum(not _is_found(name, seed, seconds) for name in MUTANTS))
    end, wrong, played = time.monotonic() + seconds, 0, 0
    for each in itertools.count(seed):
        if time.monotonic() > end:
            break
        played += 1
        findings = Play(make_plan(each), _LIMIT).run()
        wrong += bool(findings)
        for finding in findings:
            click.echo(f"seed {each}: {finding}")
    click.echo(f"{played} plays from seed {seed}, {wrong} of them with findings")
    sys.exit(bool(wrong))


def _is_found(name: str, seed: int, seconds: float) -> bool:
    begin = time.monotonic()
    for each in itertools.count(seed):
        with mutated(name):
            findings = Play(make_plan(each), _LIMIT_OF_MUTANTS).run()
        if findings:
            took = time.monotonic() - begin
            click.echo(f"mutant, {name}: found after {took:.1f} s by seed {each}: {findings[0]}")
            return True
        if time.monotonic() - begin > seconds:
            click.echo(f"mutant, {name}: NOT FOUND by seeds {seed} to {each}")
            return False
    raise AssertionError


if __name__ == "__main__":
    main()
