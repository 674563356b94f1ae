"""What every storage of reports does: the documented base class, and its contract."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Protocol

from gtaskman.report import Report, TaskStatus


class Live(Protocol):
    """A task of this process, which can say at any time how it stands."""

    @property
    def id(self) -> str:
        """Its id."""

    def report(self) -> Report:
        """How it stands."""


class TaskStorage(abc.ABC):
    """The latest report of each task, to be found by id and by status.

    Reports come in any order. A report never replaces one with a higher revision, and never a
    last one, except by :meth:`insert`, which begins a task anew.
    """

    @abc.abstractmethod
    def insert(self, report: Report) -> None:
        """Keep the first report of a task; whatever was kept under its id goes."""

    waits = False
    """Whether its calls wait, for a server: a manager then has it told in a greenlet."""

    follows = False
    """Whether it can :meth:`follow` the tasks of a manager; else it is told each report."""

    def follow(self, tasks: Mapping[str, Live]) -> None:  # noqa: B027 - it is told, then
        """Ask these, by id, how they stand: all that wait and run, now and at any later time.

        Their last reports come by :meth:`finish`, when they are among ``tasks`` no longer.
        """

    def finish(self, reports: Sequence[Report]) -> None:
        """Keep the last reports of tasks, many at once."""
        for report in reports:
            self.update(report)

    def attend(self) -> None:  # noqa: B027 - it needs none, then
        """A manager writes here from now on: should it die, its open reports are given up."""

    @abc.abstractmethod
    def update(self, report: Report) -> bool:
        """Keep a newer report; gives False, and changes nothing, if it is none."""

    @abc.abstractmethod
    def cancel(self, task_id: str, reason: str = "") -> Report | None:
        """Mark a task that has not ended as cancelled; gives its report, or None."""

    @abc.abstractmethod
    def delete(self, task_id: str) -> bool:
        """Forget a task; gives whether it was known."""

    def expire(self, task_id: str, seconds: float) -> None:  # noqa: B027 - it is kept, then
        """Forget a finished task after so many seconds, if this storage can."""

    @abc.abstractmethod
    def report(self, task_id: str) -> Report | None:
        """The latest report of a task, or None."""

    @abc.abstractmethod
    def find(
        self,
        status: TaskStatus | None = None,
        finished: bool | None = None,
        offset: int = 0,
        limit: int = 50,
    ) -> list[Report]:
        """Reports with this status, or ended (True) or not (False), by ``created_at``."""

    @abc.abstractmethod
    def count(self, status: TaskStatus | None = None, finished: bool | None = None) -> int:
        """How many :meth:`find` would find without a limit."""


def statuses(status: TaskStatus | None, finished: bool | None) -> list[TaskStatus]:
    """The statuses that the two filters let through."""
    return [
        each
        for each in TaskStatus
        if (status is None or each is status) and (finished is None or each.finished is finished)
    ]
