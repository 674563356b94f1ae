"""The storage of one process: bounded, so that a daemon can run for years."""

from __future__ import annotations

import collections
import contextlib
import heapq
import itertools
import time
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from gtaskman.report import Report, TaskStatus
from gtaskman.storages.base import Live, TaskStorage, statuses

_SLACK = 64  # entries of tasks that are gone, beside as many as there are tasks, that do not matter


class InMemoryTaskStorage(TaskStorage):
    """Every unfinished task, and the finished ones that came last.

    At most ``keep`` of those, with results of at most ``keep_bytes`` bytes together.
    """

    follows = True

    def __init__(self, keep: int = 1000, keep_bytes: int = 64 * 1024 * 1024) -> None:
        self._keep = keep
        self._keep_bytes = keep_bytes
        self._bytes = 0
        self._open: dict[str, Report] = {}  # those whose reports we are told
        self._followed: list[Mapping[str, Live]] = []  # those whose reports we ask for
        self._dismissed: set[str] = set()  # of these: deleted or cancelled here
        self._finished: dict[str, Report] = {}
        # The finished ones, the oldest end first; some may have been deleted since.
        self._line: collections.deque[Report] = collections.deque()
        # Those that are to go by themselves, by the monotonic time of that.
        self._fading: list[tuple[float, int, Report]] = []
        self._order = itertools.count()

    def insert(self, report: Report) -> None:
        task_id = report.id
        if task_id in self._open or task_id in self._finished:
            self.delete(task_id)
        if report.status.finished:
            self._retain(report)
        else:
            self._open[task_id] = report

    def follow(self, tasks: Mapping[str, Live]) -> None:
        self._followed.append(tasks)

    def update(self, report: Report) -> bool:
        task_id = report.id
        known = self._open.get(task_id)
        if known is None or known.revision >= report.revision:
            return False
        if not report.status.finished:
            self._open[task_id] = report
            return True
        del self._open[task_id]
        self._retain(report)
        return True

    def finish(self, reports: Sequence[Report]) -> None:
        # A hot loop: once for every task.
        if self._fading:
            self._fade()
        if self._open or self._dismissed:
            reports = self._wanted(reports)
        finished, line, size = self._finished, self._line, 0
        alone = len(finished) + len(reports)
        for report in reports:
            finished[report.id] = report
            line.append(report)
            size += report.result_size
        self._bytes += size
        if len(finished) < alone:  # some had ended before, under the same ids
            self._bytes = sum([each.result_size for each in list(finished.values())])
        if len(finished) > self._keep or self._bytes > self._keep_bytes:
            self._evict()

    def _wanted(self, reports: Sequence[Report]) -> list[Report]:
        """Those of tasks that nobody has dismissed; none of them is open any more."""
        wanted = []
        for report in reports:
            self._open.pop(report.id, None)
            if report.id in self._dismissed:
                self._dismissed.discard(report.id)
            else:
                wanted.append(report)
        return wanted

    def cancel(self, task_id: str, reason: str = "") -> Report | None:
        known = self._read(task_id)
        if known is None or known.finished:
            return None
        cancelled = msgspec.structs.replace(
            known,
            status=TaskStatus.CANCELLED,
            message=reason,
            finished_at=time.time(),
            revision=known.revision + 1,
        )
        self._dismiss(task_id)
        self._retain(cancelled)
        return cancelled

    def delete(self, task_id: str) -> bool:
        if self._dismiss(task_id):
            return True
        report = self._finished.pop(task_id, None)
        if report is None:
            return False
        self._bytes -= report.result_size
        if len(self._line) > 2 * len(self._finished) + _SLACK:
            self._line = collections.deque(filter(self._is_kept, list(self._line)))
        return True

    def _dismiss(self, task_id: str) -> bool:
        """Hear no more of a task that has not ended; gives whether there is such a one."""
        if self._open.pop(task_id, None) is not None:
            return True
        if self._live(task_id) is None:
            return False
        self._dismissed.add(task_id)
        return True

    def _live(self, task_id: str) -> Live | None:
        """The task itself, if we follow it and it has not ended."""
        if task_id in self._dismissed:
            return None
        for tasks in self._followed:
            if (task := tasks.get(task_id)) is not None:
                return task
        return None

    def expire(self, task_id: str, seconds: float) -> None:
        report = self._finished.get(task_id)
        if report is None:
            return
        if len(self._fading) > 2 * len(self._finished) + _SLACK:
            self._fading = [each for each in list(self._fading) if self._is_kept(each[2])]
            heapq.heapify(self._fading)
        heapq.heappush(self._fading, (time.monotonic() + seconds, next(self._order), report))

    def _fade(self) -> None:
        """Forget those whose time is over; several threads may do so at once."""
        now = time.monotonic()
        with contextlib.suppress(IndexError):  # another one has taken the last entry
            while self._fading[0][0] <= now:
                entry = heapq.heappop(self._fading)
                if entry[0] > now:  # another one has taken the entry that was due
                    heapq.heappush(self._fading, entry)
                elif self._is_kept(entry[2]):
                    self.delete(entry[2].id)

    def _is_kept(self, report: Report) -> bool:
        return self._finished.get(report.id) is report

    def report(self, task_id: str) -> Report | None:
        return self._read(task_id)

    def _read(self, task_id: str) -> Report | None:
        if self._fading:
            self._fade()
        live = self._live(task_id)
        if live is not None:
            return live.report()
        return self._open.get(task_id) or self._finished.get(task_id)

    def find(
        self,
        status: TaskStatus | None = None,
        finished: bool | None = None,
        offset: int = 0,
        limit: int = 50,
    ) -> list[Report]:
        found = self._matching(status, finished)
        return heapq.nsmallest(offset + limit, found, key=_submitted)[offset:]

    def count(self, status: TaskStatus | None = None, finished: bool | None = None) -> int:
        return sum(1 for _ in self._matching(status, finished))

    def _matching(self, status: TaskStatus | None, finished: bool | None) -> Iterator[Report]:
        # Counters by status would cost each task more than they would save those who ask.
        if self._fading:
            self._fade()
        wanted = set(statuses(status, finished))
        followed = [task for tasks in self._followed for task in list(tasks.values())]
        live = {task.id: task for task in followed if task.id not in self._dismissed}
        every = itertools.chain(
            (report for report in list(self._finished.values()) if report.id not in live),
            list(self._open.values()),
            (task.report() for task in live.values()),
        )
        return (report for report in every if report.status in wanted)

    def _retain(self, report: Report) -> None:
        """Keep a finished task, and make room for it."""
        if self._fading:
            self._fade()
        self._finished[report.id] = report
        self._line.append(report)
        self._bytes += report.result_size
        if len(self._finished) > self._keep or self._bytes > self._keep_bytes:
            self._evict()

    def _evict(self) -> None:
        finished, line = self._finished, self._line
        # Whatever its size, the newest stays: somebody is about to ask for it.
        while len(finished) > self._keep or (self._bytes > self._keep_bytes and len(line) > 1):
            if not line:  # entries were lost between a delete in another thread and an end here
                line.extend(list(finished.values()))
                continue
            oldest = line.popleft()
            if finished.get(oldest.id) is oldest and finished.pop(oldest.id, None) is not None:
                self._bytes -= oldest.result_size


def _submitted(report: Report) -> float:
    return report.created_at
