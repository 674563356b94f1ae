"""What a scenario comes to."""

from __future__ import annotations

from typing import Any, NamedTuple

from chaos.stage import Stage


class Outcome(NamedTuple):
    """``findings`` are what is wrong; ``faults`` and ``numbers`` are for the curious."""

    findings: list[str]
    faults: dict[str, int]
    numbers: dict[str, Any]


def outcome_of(it: Stage) -> Outcome:
    """What it came to on this stage."""
    return Outcome(it.findings, dict(it.done), it.numbers)
