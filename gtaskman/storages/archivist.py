"""``Archivist``: brings reports to a storage that takes its time, for a hub that cannot wait."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import gevent

from gtaskman.latch import Latch
from gtaskman.loops import SupervisedLoop
from gtaskman.report import Report
from gtaskman.storages.base import TaskStorage

log = logging.getLogger(__name__)

_MOST = 100_000  # tasks of which something is to be written; the oldest are given up beyond that


class _Errand:
    """What the storage is to be told of one task: of several reports, the latest."""

    __slots__ = ("fresh", "report", "seconds")

    def __init__(self, report: Report | None, fresh: bool) -> None:
        self.report = report
        self.fresh = fresh  # it begins anew under its id
        self.seconds: float | None = None  # for which it is kept


class Archivist:
    """Takes reports at once, and writes them one after the other in a greenlet.

    A storage that fails is logged, and holds nobody up. Used on one hub.
    """

    follows = False

    def __init__(self, storage: TaskStorage) -> None:
        self._storage = storage
        self._due: dict[str, _Errand] = {}
        self._loop = SupervisedLoop("the writer of reports to the storage", self._write)
        self._done: Latch | None = None

    def insert(self, report: Report) -> None:
        """The first report of a task."""
        self._put(report.id, report, fresh=True)

    def finish(self, reports: Sequence[Report]) -> None:
        """The last reports of several tasks."""
        for report in reports:
            self.update(report)

    def update(self, report: Report) -> bool:
        """A newer one."""
        self._put(report.id, report, fresh=False)
        return True

    def expire(self, task_id: str, seconds: float) -> None:
        """For how long its last report is kept."""
        self._put(task_id, None, fresh=False).seconds = seconds

    def _put(self, task_id: str, report: Report | None, fresh: bool) -> _Errand:
        errand = self._due.get(task_id)
        if errand is None or fresh:
            errand = self._due[task_id] = _Errand(report, fresh)
        elif report is not None:
            errand.report = report
        if len(self._due) > _MOST:
            lost = next(iter(self._due))
            del self._due[lost]
            log.error("the storage does not keep up: the report of task %s is given up", lost)
        if not self._loop.running:
            self._loop.start()
        return errand

    def _write(self) -> None:
        due = self._due
        while due:
            task_id = next(iter(due))
            errand = due.pop(task_id)
            try:
                self._tell(task_id, errand)
            except (Exception, gevent.Timeout):
                log.exception("a report of task %s could not be stored", task_id)
            except BaseException:
                due.setdefault(task_id, errand)  # a kill: the loop starts again, and tries again
                raise
        if self._done is not None:
            self._done.open()

    def _tell(self, task_id: str, errand: _Errand) -> None:
        if errand.report is not None:
            if errand.fresh:
                self._storage.insert(errand.report)
            else:
                self._storage.update(errand.report)
        if errand.seconds is not None:
            self._storage.expire(task_id, errand.seconds)

    def delete(self, task_id: str) -> bool:
        """Forget a task of which nothing was to be kept."""
        return self._due.pop(task_id, None) is not None

    def flush(self, seconds: float) -> bool:
        """Wait until everything is written, at most so long; gives whether it is."""
        if not self._loop.running:
            return True
        self._done = Latch()
        return self._done.wait(seconds)
