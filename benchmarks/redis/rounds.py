"""Runs every contestant once per round, each in its own environment before a server of its own.

The plan, the rotation and what a run is are those of `benchmarks.rounds`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from benchmarks.redis import environments
from benchmarks.redis.catalog import REQUIREMENTS
from benchmarks.redis.environments import EnvironmentFailed
from benchmarks.redis.peers.base import URL_VARIABLE
from benchmarks.redis.server import PrivateServer
from benchmarks.rounds import DETAILS, Answer, Plan, Run

ANSWER_TIMEOUT = 300.0  # some three times what a million finished tasks take: this one hangs
ROOT = Path(__file__).resolve().parents[2]


class Environments:
    """The interpreters of the peers, or why there is none."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._found: dict[str, Path | EnvironmentFailed] = {}

    def interpreter(self, peer: str) -> Path:
        """The peer's interpreter, installed if need be. Raises `EnvironmentFailed`."""
        if peer not in REQUIREMENTS:
            return Path(sys.executable)
        if peer not in self._found:
            try:
                self._found[peer] = environments.prepare(self._directory, peer, REQUIREMENTS[peer])
            except EnvironmentFailed as failure:
                self._found[peer] = failure
        found = self._found[peer]
        if isinstance(found, EnvironmentFailed):
            raise found
        return found

    def versions(self, peers: Sequence[str]) -> dict[str, dict[str, str]]:
        """What each of the peers runs with, for the record."""
        told: dict[str, dict[str, str]] = {}
        for peer in peers:
            with suppress(EnvironmentFailed):
                told[peer] = environments.versions(self.interpreter(peer))
        return told


def run(plan: Plan, interpreters: Environments) -> Iterator[Run]:
    """Run the plan; each run comes when it is over."""
    for name, number, place, peer in plan.steps():
        yield _run_one(Run(name, number, place, peer), plan.size(name), interpreters)


def _run_one(blank: Run, size: Mapping[str, float], interpreters: Environments) -> Run:
    try:
        python = interpreters.interpreter(blank.peer)
    except EnvironmentFailed as failure:
        return replace(blank, error=str(failure))
    contestant = [str(python), "-m", "benchmarks.redis.contestant", blank.peer, blank.scenario]
    with PrivateServer() as server, TemporaryDirectory() as directory:
        ended = _ask([*contestant, json.dumps(size)], server.url, directory)
    return _read(blank, ended)


class Ended(NamedTuple):
    """How a contestant ended; `status` is None if it had to be ended."""

    status: int | None
    output: str
    errors: str


def _ask(command: list[str], url: str, directory: str) -> Ended:
    # A session of its own, so that a contestant that hangs can be ended with all its workers;
    # and files, not pipes, so that a worker left behind does not keep us waiting for their end.
    output, errors = Path(directory, "output"), Path(directory, "errors")
    with output.open("w") as told, errors.open("w") as complained:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=told,
            stderr=complained,
            cwd=directory,
            env=_environment(url),
            start_new_session=True,
        )
        try:
            status = process.wait(ANSWER_TIMEOUT)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            _end(process)
    return Ended(status, output.read_text(), errors.read_text(errors="replace"))


def _environment(url: str) -> dict[str, str]:
    """Ours, with the directory of this package on the path of whoever is started."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return os.environ | {"PYTHONPATH": path, URL_VARIABLE: url, "PYTHONWARNINGS": "ignore"}


def _end(process: subprocess.Popen[bytes]) -> None:
    """End it with whatever it has started, process groups of their own included."""
    for pid in _session(process.pid):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def _session(leader: int) -> Iterator[int]:
    """The processes of a session; its number is not taken by others while one of them lives."""
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            _, _, rest = status.read_text().rpartition(")")
            if int(rest.split()[3]) == leader:
                yield int(status.parent.name)


def _read(blank: Run, ended: Ended) -> Run:
    """The run as it came out."""
    lines = ended.output.strip().splitlines()
    if ended.status == 0 and lines:
        answer: Answer = json.loads(lines[-1])
        return replace(blank, **answer)
    details = ended.errors[-DETAILS:]
    if ended.status is None:
        return replace(blank, error=f"no answer within {ANSWER_TIMEOUT:.0f} s", details=details)
    reason = ended.errors.strip().splitlines()[-1:] or ["it said nothing"]
    return replace(blank, error=f"exit status {ended.status}: {reason[0]}", details=details)
