"""Old mistakes, put back on purpose: the faults must find each of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from gtaskman.pool import starters
from gtaskman.pool.pool import Pool
from gtaskman.wire.watcher import Watcher


def _stop_watching() -> None:
    """As gevent does: a callback that has raised is never called again."""
    Watcher._call_later = lambda self, _error: self._io.stop()


def _make_workers_unguarded() -> None:
    """What keeps a worker's pipe from being made leaves the pool's callback."""

    def fork(self: Any, count: int) -> None:
        for _ in range(count):
            worker = self._make_worker()
            worker.greet(self._starter.start(worker.number, *worker.take_descriptors()))

    Pool._fork = fork


def _lose_pidfds() -> None:
    """A worker that came up without a descriptor is not looked for."""

    def note_up(self: Any, template: Any, message: Any, fds: list[int]) -> None:
        self._let_go(message.worker)
        self._templates[template][message.worker] = message.pid
        if fds:
            self._listener.on_up(message.worker, message.pid, fds[0])

    starters.ZygoteStarter._note_up = note_up


def _leak_copies() -> None:
    """Copies of descriptors stay open when the next one cannot be made."""
    starters.duplicate = lambda fds: [os.dup(fd) for fd in fds]


MUTANTS: dict[str, Callable[[], None]] = {
    "watcher": _stop_watching,
    "unguarded": _make_workers_unguarded,
    "pidfd": _lose_pidfds,
    "copies": _leak_copies,
}
# The faults that must find each of them, by call and how.
FOUND_BY = {
    "watcher": ("recvmsg", "ENOMEM"),
    "unguarded": ("socketpair", "EMFILE"),
    "pidfd": ("descriptors", "lost"),
    "copies": ("dup", "EMFILE"),
}
