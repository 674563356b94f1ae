"""Runs every contestant once per round, each before a gunicorn of its own.

The plan, the rotation and what a run is are those of `benchmarks.rounds`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import replace

from benchmarks.check import WrongResult, same
from benchmarks.gunicorn.server import Gunicorn, ServerFailed, environment
from benchmarks.measurement import Measurement
from benchmarks.rounds import DETAILS, Plan, Run

ANSWER_TIMEOUT = 120.0  # some four times what the slowest contestant needs: this one hangs


class LoadFailed(Exception):
    """Raised when the process that makes the load has failed; the text is its last line."""

    def __init__(self, errors: str) -> None:
        super().__init__((errors.strip().splitlines() or ["it said nothing"])[-1])
        self.details = errors[-DETAILS:]


def run(plan: Plan) -> Iterator[Run]:
    """Run the plan; each run comes when it is over."""
    for name, number, place, peer in plan.steps():
        blank = Run(name, number, place, peer)
        try:
            found = SCENARIOS[name](peer, plan.size(name))
        except LoadFailed as failure:
            yield replace(blank, error=str(failure), details=failure.details)
        except (ServerFailed, WrongResult, OSError, subprocess.TimeoutExpired) as failure:
            yield replace(blank, error=f"{type(failure).__name__}: {failure}"[:DETAILS])
        else:
            yield replace(blank, metrics=found.metrics, checked=found.checked)


def hashing(peer: str, size: dict[str, float]) -> Measurement:
    """The trivial route, alone and beside hashing."""
    with Gunicorn(peer, workers=2, pool=1) as server:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.gunicorn.load", server.url, json.dumps(size)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=environment(),
            timeout=ANSWER_TIMEOUT,
        )
        if done.returncode != 0:
            raise LoadFailed(f"{server.errors()}\n{done.stderr}")
        return Measurement(**json.loads(done.stdout))


def greenlets(peer: str, size: dict[str, float]) -> Measurement:
    """Tasks from several greenlets of one request."""
    count, seconds = int(size["count"]), size["seconds"]
    with Gunicorn(peer, workers=1, pool=int(size["pool"])) as server:
        warm_up = f"{server.url}/greenlets?count={count}&seconds=0.01"
        urllib.request.urlopen(warm_up, timeout=ANSWER_TIMEOUT).close()
        asked = f"{server.url}/greenlets?count={count}&seconds={seconds}"
        with urllib.request.urlopen(asked, timeout=ANSWER_TIMEOUT) as answer:
            told = json.load(answer)
    checked = same("/greenlets", told["numbers"], list(range(count)))
    return Measurement({"seconds": told["seconds"]}, checked)


SCENARIOS = {"hashing": hashing, "greenlets": greenlets}
