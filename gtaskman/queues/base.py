"""What every queue of tasks does: the documented base class, and its contract.

A queue holds jobs that wait. It never runs anything and never waits itself: a manager asks how
much waits, claims as much as its pool has room for, and gives back what it cannot run after all.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable

from gtaskman.job import Job


class TaskQueue(abc.ABC):
    """Where jobs wait for a worker, sync and async ones side by side, each kind in order."""

    shared = True
    """Whether others than one manager add to it; it is asked what waits, then, at every turn."""

    @abc.abstractmethod
    def on_available(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called whenever something new may be claimed; nobody polls."""

    @abc.abstractmethod
    def enqueue(self, job: Job) -> None:
        """Add a job at the end. Raises :class:`DuplicateTaskError` if its id waits or runs here."""

    def admit(self, job: Job) -> bool:  # noqa: ARG002 - for those who override it
        """Add a job and claim it in one step, for a worker that has nothing to do.

        Gives False, and has done nothing, if others wait before it, or if this queue does not
        offer the short way: then :meth:`enqueue` it. Raises :class:`DuplicateTaskError`.
        """
        return False

    @abc.abstractmethod
    def claim(self, sync: int, asyncs: int) -> list[Job]:
        """Take up to so many of each kind, the longest waiting first; they now run here."""

    @abc.abstractmethod
    def refund(self, jobs: Iterable[Job]) -> None:
        """Give back claimed jobs that have not run: they wait again, before all others."""

    @abc.abstractmethod
    def retry(self, job: Job) -> None:
        """Give back a claimed job that failed and may try again: it waits, after all others."""

    @abc.abstractmethod
    def settle(self, job: Job) -> None:
        """A claimed job has come to its end, whichever: its id is free again."""

    @abc.abstractmethod
    def cancel(self, task_id: str) -> Job | None:
        """Take a waiting job out and give it; None if no such job waits (it may be running)."""

    @abc.abstractmethod
    def waiting(self) -> tuple[int, int]:
        """How many wait: sync ones, async ones."""

    @abc.abstractmethod
    def running(self) -> int:
        """How many are claimed and not settled."""

    @abc.abstractmethod
    def drop(self) -> list[Job]:
        """Take everything that waits out and give it."""
