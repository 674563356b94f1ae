"""The worker processes of a contestant: started, proved to work, halted and let go, ended.

They are halted with SIGSTOP, so that a full queue can be put before workers that are up and warm
already, whatever the peer; SIGCONT is the starting gun.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.redis.peers.base import Peer

UP_TIMEOUT = 45.0
END_TIMEOUT = 10.0


class Team:
    """The workers of `peer`, up and warm inside the `with` block."""

    def __init__(self, peer: Peer, style: str) -> None:
        self._peer = peer
        self._style = style
        self._leaders: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        try:
            for command in self._peer.commands(self._style):
                self._leaders.append(_start(command))
            self._warm()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end()

    def _warm(self) -> None:
        """Return only when every worker process has run something."""
        deadline = time.monotonic() + UP_TIMEOUT
        pids: set[int] = set()
        while len(pids) < self._peer.workers:
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"{self._peer.workers} workers were not up within {UP_TIMEOUT:.0f} s"
                )
            self.check()
            pids |= set(
                self._peer.results(self._peer.enqueue("where", [0.05] * 2 * self._peer.workers))
            )
        self._peer.results(self._peer.enqueue("echo", range(200)))

    def check(self) -> None:
        """Raise `RuntimeError` if a worker has ended."""
        for leader in self._leaders:
            if leader.poll() is not None:
                raise RuntimeError(f"a worker has ended, with status {leader.returncode}")

    def halt(self) -> None:
        """Stop every process where it stands."""
        self._signal(signal.SIGSTOP)

    def go(self) -> None:
        """Let them go on."""
        self._signal(signal.SIGCONT)

    def end(self) -> None:
        """End all of them, politely first."""
        family = list(self._family())
        for leader in self._leaders:
            leader.terminate()
        deadline = time.monotonic() + END_TIMEOUT
        for leader in self._leaders:
            with suppress(subprocess.TimeoutExpired):
                leader.wait(max(0.0, deadline - time.monotonic()))
        for pid in family:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for leader in self._leaders:
            leader.wait()

    def _signal(self, number: int) -> None:
        for pid in self._family():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def _family(self) -> Iterator[int]:
        for leader in self._leaders:
            yield from descent(leader.pid)


def _start(command: list[str]) -> subprocess.Popen[bytes]:
    """Whatever the workers say goes where errors go: the answer stands alone on its stream."""
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sys.stderr)


def descent(pid: int) -> Iterator[int]:
    """A process and all that come from it, parents first."""
    yield pid
    with suppress(FileNotFoundError, ProcessLookupError):
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in children.read_text().split():
                yield from descent(int(child))
