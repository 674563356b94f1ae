"""Runs every contestant once per round, each in a fresh process, the order rotated.

It starts, waits and keeps what came back; it computes nothing from it.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TypedDict

from benchmarks.catalog import PEERS, SCENARIOS

ANSWER_TIMEOUT = 60.0  # some ten times what the slowest contestant needs: this one hangs
DETAILS = 8_000  # characters


@dataclass(frozen=True)
class Run:
    """One contestant in one scenario and one round: its metrics, or why there are none."""

    scenario: str
    round: int
    place: int
    peer: str
    metrics: dict[str, float] = field(default_factory=dict)
    checked: int = 0
    error: str | None = None
    details: str | None = None


class Answer(TypedDict):
    """What a contestant prints: its `Measurement`."""

    metrics: dict[str, float]
    checked: int


@dataclass(frozen=True)
class Plan:
    """What to run: the scenarios, the peers that may take part, how often and how much."""

    scenarios: Sequence[str]
    peers: Sequence[str]
    rounds: int
    quick: bool = False
    seconds: float | None = None

    def size(self, name: str) -> dict[str, float]:
        """The arguments of a scenario's `run`."""
        size = SCENARIOS[name].quick if self.quick else SCENARIOS[name].size
        if self.seconds is not None and "seconds" in size and name == "cpu":
            return size | {"seconds": self.seconds}
        return size

    def contestants(self, name: str) -> list[str]:
        """The peers of a scenario that were asked for, installed or not."""
        return [peer for peer in SCENARIOS[name].peers if peer in self.peers]

    def steps(self) -> list[tuple[str, int, int, str]]:
        """Scenario, round, place in the round and peer, in the order in which they run.

        Rounds go outermost, so that a slow minute of the machine meets every contestant.
        """
        return [
            (name, number, place, peer)
            for number in range(self.rounds)
            for name in self.scenarios
            for place, peer in enumerate(rotated(self._installed(name), number))
        ]

    def _installed(self, name: str) -> list[str]:
        return [peer for peer in self.contestants(name) if missing_package(peer) is None]


def rotated(peers: Sequence[str], by: int) -> list[str]:
    """The same peers, beginning with another one each round."""
    by %= max(1, len(peers))
    return [*peers[by:], *peers[:by]]


def missing_package(peer: str) -> str | None:
    """The first package that a peer needs and that is not installed here."""
    return next((name for name in PEERS[peer].packages if not _installed(name)), None)


def _installed(package: str) -> bool:
    try:
        spec = find_spec(package)
    except ModuleNotFoundError:
        return False
    return spec is not None and spec.origin is not None  # a bare directory has no origin


def run(plan: Plan, contestant: str = "benchmarks.contestant") -> Iterator[Run]:
    """Run the plan, with this module for each contestant; each run comes when it is over."""
    for name, number, place, peer in plan.steps():
        yield _run_one(contestant, name, number, place, peer, plan.size(name))


def _run_one(
    contestant: str, name: str, number: int, place: int, peer: str, size: dict[str, float]
) -> Run:
    try:
        answer = _ask(["-m", contestant, peer, name, json.dumps(size)])
    except ContestantFailed as failure:
        return Run(name, number, place, peer, error=str(failure), details=failure.details)
    return Run(name, number, place, peer, answer["metrics"], answer["checked"])


class ContestantFailed(Exception):
    """Raised when a contestant gave a wrong result, broke, or did not answer in time.

    `details` is the end of what it wrote to its standard error.
    """

    def __init__(self, reason: str, errors: str) -> None:
        super().__init__(reason)
        self.details = errors[-DETAILS:]


def _ask(arguments: list[str]) -> Answer:
    # A session of its own, so that a contestant that hangs can be ended with all its workers.
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=_environment(),
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=ANSWER_TIMEOUT)
    except subprocess.TimeoutExpired:
        ended = process.poll() is not None
        _, errors = _end(process)
        raise ContestantFailed(_silence(ended), errors) from None
    finally:
        _end(process)
    return _answer(process.returncode, output, errors)


def _environment() -> dict[str, str]:
    """Ours, with the directory of this package on the path of whoever is started."""
    here = str(Path(__file__).resolve().parent.parent)
    path = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
    return os.environ | {"PYTHONPATH": path}


def _end(process: subprocess.Popen[str]) -> tuple[str, str]:
    """End it with whatever it has started; what it had written."""
    # The group outlives its leader while a forgotten worker is in it, so its number is not taken.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return process.communicate()


def _silence(ended: bool) -> str:
    if ended:
        return f"it ended, and left processes that were still there after {ANSWER_TIMEOUT:.0f} s"
    return f"no answer within {ANSWER_TIMEOUT:.0f} s"


def _answer(returncode: int, output: str, errors: str) -> Answer:
    lines = output.strip().splitlines()
    if returncode == 0 and lines:
        answer: Answer = json.loads(lines[-1])
        return answer
    reason = errors.strip().splitlines()[-1:] or ["it said nothing"]
    raise ContestantFailed(f"exit status {returncode}: {reason[0]}", errors)
