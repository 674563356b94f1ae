"""The storage of one process: bounded, so that a daemon can run for years."""

from __future__ import annotations

import heapq
import itertools
import time

import msgspec

from gtaskman.report import FINISHED, Report, TaskStatus
from gtaskman.storages.base import TaskStorage, statuses


class InMemoryTaskStorage(TaskStorage):
    """Every unfinished task, and the finished ones that came last.

    At most ``keep`` of those, with results of at most ``keep_bytes`` bytes together.
    """

    def __init__(self, keep: int = 1000, keep_bytes: int = 64 * 1024 * 1024) -> None:
        self._keep = keep
        self._keep_bytes = keep_bytes
        self._bytes = 0
        self._reports: dict[str, Report] = {}
        # By status, each in the order in which tasks came to it.
        self._ids: dict[TaskStatus, dict[str, None]] = {status: {} for status in TaskStatus}
        self._finished: dict[str, int] = {}  # id -> bytes of its result, oldest end first

    def insert(self, report: Report) -> None:
        task_id = report.id
        if task_id in self._reports:
            self.delete(task_id)
        self._reports[task_id] = report
        self._ids[report.status][task_id] = None
        if report.status in FINISHED:
            self._retain(report)

    def update(self, report: Report) -> bool:
        task_id = report.id
        known = self._reports.get(task_id)
        if known is None or known.status in FINISHED or known.revision >= report.revision:
            return False
        self._reports[task_id] = report
        if known.status is not report.status:
            del self._ids[known.status][task_id]
            self._ids[report.status][task_id] = None
            if report.status in FINISHED:
                self._retain(report)
        return True

    def cancel(self, task_id: str, reason: str = "") -> Report | None:
        known = self._reports.get(task_id)
        if known is None or known.finished:
            return None
        cancelled = msgspec.structs.replace(
            known,
            status=TaskStatus.CANCELLED,
            message=reason,
            finished_at=time.time(),
            revision=known.revision + 1,
        )
        self.update(cancelled)
        return cancelled

    def delete(self, task_id: str) -> bool:
        report = self._reports.pop(task_id, None)
        if report is None:
            return False
        del self._ids[report.status][task_id]
        self._bytes -= self._finished.pop(task_id, 0)
        return True

    def report(self, task_id: str) -> Report | None:
        return self._reports.get(task_id)

    def find(
        self,
        status: TaskStatus | None = None,
        finished: bool | None = None,
        offset: int = 0,
        limit: int = 50,
    ) -> list[Report]:
        ids = itertools.chain.from_iterable(self._ids[each] for each in statuses(status, finished))
        reports = map(self._reports.__getitem__, ids)
        return heapq.nsmallest(offset + limit, reports, key=_submitted)[offset:]

    def count(self, status: TaskStatus | None = None, finished: bool | None = None) -> int:
        return sum(len(self._ids[each]) for each in statuses(status, finished))

    def _retain(self, report: Report) -> None:
        """Make room for one more finished task."""
        finished = self._finished
        finished[report.id] = report.result_size
        self._bytes += report.result_size
        # The newest stays, however large its result is: somebody is about to ask for it.
        while len(finished) > self._keep or (self._bytes > self._keep_bytes and len(finished) > 1):
            self.delete(next(iter(finished)))


def _submitted(report: Report) -> float:
    return report.created_at
