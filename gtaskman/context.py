"""``current()``: what a running task knows of itself."""

from __future__ import annotations

import contextvars
import time
from typing import Protocol

import msgspec

from gtaskman.report import Progress


class Current(msgspec.Struct, frozen=True):
    """The running task: its ``id``, ``name``, ``attempt`` (from 1), ``deadline`` and ``progress``.

    ``deadline`` is the end of its time limit in seconds since the epoch, or None.
    """

    id: str
    name: str
    attempt: int
    deadline: float | None
    progress: Progress

    def remaining(self) -> float | None:
        """Seconds left until the deadline (never below 0), or None without one."""
        return None if self.deadline is None else max(0.0, self.deadline - time.time())

    def current(self) -> Current:
        """Itself: it is the simplest :class:`Running`."""
        return self


class Running(Protocol):
    """A run that can say what is current in it; most tasks never ask."""

    def current(self) -> Current:
        """What it knows of itself."""


# Set by whoever runs a task. Greenlets spawned by the task inherit it.
running: contextvars.ContextVar[Running] = contextvars.ContextVar("gtaskman.running")


def current() -> Current:
    """The task that runs here.

    Where none does, as in a task function that was called directly, it is a stand-in with an
    empty id, attempt 0 and a progress that leads nowhere.
    """
    found = running.get(None)
    return found.current() if found is not None else Current("", "", 0, None, Progress())
