"""What every queue of tasks does: the documented base class, and its contract.

A queue holds jobs that wait. It never runs anything and never waits itself: a manager asks how
much waits, claims as much as its pool has room for, and gives back what it cannot run after all.

::

    enqueue -> [delayed] -> ready -> claim -> settle -> (failed: dead) -> revive -> ready
                  ^           ^        |
                  +-- retry --+-refund-+

Each kind has its own order: a higher ``priority`` first, and within one the longest waiting first.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from gtaskman.config import Configuration
from gtaskman.job import Job
from gtaskman.report import Report
from gtaskman.task import Task


class TaskQueue(abc.ABC):
    """Where jobs wait for a worker, sync and async ones side by side."""

    name = "default"

    shared = True
    """Whether others than one manager add to it; it is asked what waits, then, at every turn."""

    remote = False
    """Whether it is on a server: a manager then fetches from it, by the batch and ahead."""

    paused = False
    """Whether it hands out nothing for now."""

    delayed_cost = 0
    """Bytes of memory here that delayed jobs take; they are no reason to hold back a submit."""

    def occupy(self, manager: object) -> None:  # noqa: B027 - a shared queue has any number
        """``manager`` works from this queue until :meth:`release`.

        Raises :class:`ConfigurationError` if another one does and there can be only one.
        """

    def release(self, manager: object) -> None:  # noqa: B027 - likewise
        """``manager`` has stopped: another one may work from this queue."""

    def configure(self, config: Configuration) -> None:  # noqa: B027 - most have nothing to do
        """A manager under this configuration works from it now."""

    @abc.abstractmethod
    def on_available(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called whenever something new may be claimed; nobody polls.

        What becomes due in a queue that says so by :meth:`due` is no news, nor is what the
        caller has given back itself.
        """

    # --- in and out

    @abc.abstractmethod
    def enqueue(self, job: Job | Task) -> None:
        """Add a job, or a task object of the application's, under its terms.

        Raises :class:`DuplicateTaskError` if its id, or its unique key, waits or runs here.
        """

    def admit(self, job: Job) -> bool:  # noqa: ARG002 - for those who override it
        """Add a job and claim it in one step, for a worker that has nothing to do.

        Gives False, and has done nothing, if others wait before it, if it is not due yet, or if
        this queue does not offer the short way: then :meth:`enqueue` it. Raises
        :class:`DuplicateTaskError`.
        """
        return False

    @abc.abstractmethod
    def claim(self, sync: int, asyncs: int) -> list[Job]:
        """Take up to so many of each kind, in order; they now run here.

        None is delayed, and none has waited for longer than its ``ttl``.
        """

    @abc.abstractmethod
    def refund(self, jobs: Iterable[Job]) -> None:
        """Give back claimed jobs that have not run: they wait again, at their old place."""

    @abc.abstractmethod
    def retry(self, job: Job, delay: float = 0.0) -> None:
        """Give back a claimed job that failed and may try again.

        It waits ``delay`` seconds, and then after all others of its priority.
        """

    @abc.abstractmethod
    def settle(self, job: Job, report: Report) -> None:
        """A claimed job has come to its end, and this is its last report.

        Its id and its unique key are free again. One that failed is kept as dead.
        """

    def restore(
        self,
        jobs: Mapping[str, Job],  # noqa: ARG002 - for those who override it
        held: Collection[Job],  # noqa: ARG002
    ) -> list[Job] | None:
        """Put in order what a signal handler may have left half done by raising here.

        ``jobs`` are those of the manager, by key; of these ``held`` are claimed and in a worker.
        All other claimed ones wait again, and those that are not its jobs are forgotten. Gives the
        jobs that wait, delayed or not; None if this queue does not do that.
        """
        return None

    @abc.abstractmethod
    def cancel(self, task_id: str) -> Job | None:
        """Take a job out that waits, delayed or not, and give it.

        None if no such job waits (it may be running).
        """

    @abc.abstractmethod
    def drop(self) -> list[Job]:
        """Take everything out that is ready, and give it; what is delayed waits on."""

    # --- time

    @abc.abstractmethod
    def due(self) -> float | None:
        """Seconds until time alone changes something: a delayed job is due, or one expires.

        None if nothing is to come, or if the queue itself sees to it. 0 if it has happened.
        """

    @abc.abstractmethod
    def expired(self) -> list[Job]:
        """Claim the jobs that have waited for longer than their ``ttl``, to settle them as failed.

        A queue that settles them itself gives none.
        """

    # --- pausing

    @abc.abstractmethod
    def pause(self) -> None:
        """Hand out nothing until :meth:`resume`; what is claimed goes on, what comes waits."""

    @abc.abstractmethod
    def resume(self) -> None:
        """Hand out again."""

    # --- those that failed for good

    @abc.abstractmethod
    def dead(self, offset: int = 0, limit: int = 50) -> list[Report]:
        """The last reports of jobs that failed for good and are still kept, the newest last."""

    @abc.abstractmethod
    def revive(self, task_id: str) -> Job | None:
        """Have a dead job wait once more under its id, as if it had never run: attempt 1, due now.

        None if no such job is dead. Raises :class:`DuplicateTaskError` if another holds its
        unique key.
        """

    # --- numbers

    @abc.abstractmethod
    def waiting(self) -> tuple[int, int]:
        """How many are ready now: sync ones, async ones. A pause changes nothing in that.

        It may do what is due by now, and so is for the manager, on its hub; others ask
        :meth:`info`.
        """

    @abc.abstractmethod
    def delayed(self) -> int:
        """How many wait for their time."""

    @abc.abstractmethod
    def running(self) -> int:
        """How many are claimed and not settled."""

    @abc.abstractmethod
    def info(self) -> dict[str, Any]:
        """What there is to know at one moment; from any thread.

        At least ``name``, ``paused``, and the numbers ``waiting``, ``delayed``, ``running`` and
        ``dead``.
        """
