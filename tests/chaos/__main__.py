"""The command line: ``python -m tests.chaos --seconds 60 --seed 7``."""

from __future__ import annotations

import sys
import time
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "redis"), str(TESTS.parent)]

import click  # noqa: E402 - the path comes first
from servers import KINDS  # noqa: E402 - likewise

from chaos.outcome import Outcome  # noqa: E402 - likewise
from chaos.scenarios import SCENARIOS, SIGNS, is_found_out, mutant  # noqa: E402 - likewise

# What a scenario has of the seconds.
_SHARES = {"storm": 0.5, "races": 0.2}
_SHARE = 0.1


@click.command(help=__doc__)
@click.option("--seconds", default=60.0, help="How long to do harm, all scenarios together.")
@click.option("--seed", default=1, help="From which all that is random follows.")
@click.option("--kind", type=click.Choice(KINDS), default=KINDS[-1], help="The server.")
@click.option("--only", type=click.Choice([*SCENARIOS, "mutants", *SIGNS]), help="This alone.")
def main(seconds: float, seed: int, kind: str, only: str | None) -> None:
    wrong = 0
    for name, play in SCENARIOS.items():
        if only in (None, name):
            share = 1.0 if only else _SHARES.get(name, _SHARE)
            outcome = play(share * seconds, seed, kind)
            _tell(name, outcome)
            wrong += len(outcome.findings)
    if only in SIGNS:
        wrong += not _finds_out(only, seed, kind)
    if only in (None, "mutants"):
        control = mutant("", seed, kind)
        _tell("no mutant", control)
        wrong += len(control.findings) + sum(not _finds_out(name, seed, kind) for name in SIGNS)
    sys.exit(bool(wrong))


def _finds_out(name: str, seed: int, kind: str) -> bool:
    begin = time.monotonic()
    outcome = mutant(name, seed, kind)
    found = is_found_out(name, outcome)
    word = "found out" if found else "NOT FOUND OUT"
    click.echo(f"mutant, {name}: {word} after {time.monotonic() - begin:.1f} s")
    for finding in outcome.findings[:1]:
        click.echo(f"  {finding[:200]}")
    return found


def _tell(name: str, outcome: Outcome) -> None:
    click.echo(f"{name}: {'FAILED' if outcome.findings else 'holds'}")
    for title, numbers in (("faults", outcome.faults), ("numbers", outcome.numbers)):
        click.echo(f"  {title}: {', '.join(f'{key} {value}' for key, value in numbers.items())}")
    for finding in outcome.findings:
        click.echo(f"  ! {finding}")


if __name__ == "__main__":
    main()
