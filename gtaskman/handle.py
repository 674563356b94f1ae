"""``TaskHandle``: the future of a task, and what the caller holds of it."""

from __future__ import annotations

import collections
import logging
import pickle
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from gtaskman.errors import (
    RemoteTraceback,
    TaskCancelled,
    TaskExpired,
    TaskFailed,
    TaskTimedOut,
    TaskTravelError,
    WaitTimeout,
    WorkerCrashed,
)
from gtaskman.fields import shown
from gtaskman.latch import Latch
from gtaskman.report import FailureKind, Report, TaskStatus

if TYPE_CHECKING:
    from gtaskman.job import Job
    from gtaskman.taskmanager import TaskManager

log = logging.getLogger(__name__)

_FAILURES = {
    FailureKind.ERROR: TaskFailed,
    FailureKind.CRASH: WorkerCrashed,
    FailureKind.TIMEOUT: TaskTimedOut,
    FailureKind.EXPIRED: TaskExpired,
}


class TaskHandle(Latch):
    """The future of a submitted task.

    It can be waited for from any greenlet and any native thread, and by ``gevent.wait``,
    ``gevent.iwait`` and ``gevent.joinall``.
    """

    _job: Job | None = None  # while it has not ended
    _report: Report | None = None  # its last one, once it has ended
    _exception: bytes | None = None
    _feeds: list[weakref.ref[ProgressFeed]] | None = None  # a reader may drop its own

    def __init__(self, job: Job, manager: TaskManager) -> None:
        self.id = job.id
        self._job = job
        self._manager = manager

    # --- what the caller asks

    def get(self, timeout: float | None = None) -> Any:
        """The task's result; waits for it at most ``timeout`` seconds (for ever if None).

        Raises :class:`TaskFailed` or its subclasses :class:`WorkerCrashed`,
        :class:`TaskTimedOut` and :class:`TaskExpired` if the task failed, :class:`TaskCancelled`
        if it was cancelled, and ``TimeoutError`` if the wait is over before the task is, which
        goes on.
        """
        if not self._opened and not self.wait(_seconds(timeout)):
            raise self._overdue(timeout)
        report = self._report
        assert report is not None
        if report.status is TaskStatus.COMPLETED:
            return report.result
        raise self._error(report)

    def _overdue(self, timeout: float | None) -> WaitTimeout:
        return WaitTimeout(
            f"task {self.report.name} ({self.id}) has not ended within {timeout} s: it is"
            f" {self.report.status.value} and goes on"
        )

    def successful(self) -> bool:
        """Whether it has ended with a result."""
        return self._report is not None and self._report.status is TaskStatus.COMPLETED

    @property
    def report(self) -> Report:
        """How the task stands right now."""
        if self._report is not None:
            return self._report
        assert self._job is not None
        return self._job.report()

    @property
    def final(self) -> Report | None:
        """The last report, once the task has ended."""
        return self._report

    @property
    def taken(self) -> bool:
        """Whether a worker has it, begun or not."""
        job = self._job
        return job is not None and bool(job.number)

    @property
    def exception(self) -> BaseException | None:
        """What ``get`` would raise, or None."""
        report = self._report
        if report is None or report.status is TaskStatus.COMPLETED:
            return None
        return self._error(report)

    @property
    def portable_exception(self) -> bytes | None:
        """The task's own exception as a pickle, for another process; None if it cannot travel."""
        return self._exception

    def progress(self) -> Iterator[Report]:
        """The task's reports from now on as they come; the last one ends it."""
        feed = ProgressFeed(self)
        self._feeds = [*self._living_feeds(), weakref.ref(feed)]
        if self._report is not None:
            feed.push(self._report)
        return feed

    def cancel(self, reason: str | None = None) -> bool:
        """Ask the task to stop, whether it waits or runs.

        Gives False if it has ended already. A running task may still end in its own way before
        it is stopped: ``get`` and ``report`` say how it went.
        """
        return self._manager.cancel(self.id, reason) if not self._opened else False

    def _error(self, report: Report) -> BaseException:
        if report.status is TaskStatus.CANCELLED:
            return TaskCancelled(report)
        kind = report.error.kind if report.error else FailureKind.ERROR
        error = _FAILURES[kind](report)
        error.__cause__ = self._cause(report)
        return error

    def _cause(self, report: Report) -> BaseException | None:
        text = RemoteTraceback(report.traceback) if report.traceback else None
        if self._exception is None:
            return text
        try:
            cause = pickle.loads(self._exception)
        except Exception:
            # It could be pickled where it was raised, and cannot be rebuilt here: the text stands.
            return text
        if isinstance(cause, BaseException):
            cause.__cause__ = text
            return cause
        return text

    # --- what the manager does

    def settle(self, report: Report, exception: bytes | None = None) -> bool:
        """The task has ended; whether somebody waits, who is to be woken by :meth:`wake`."""
        if exception is not None:
            self._exception = exception
        self._report = report
        self._job = None
        if self._feeds is not None:
            self.tell(report)
        self._opened = True
        return self._waiters is not None

    def tell(self, report: Report) -> None:
        """The task has made progress."""
        for feed in self._feeds or ():
            if (reader := feed()) is not None:
                reader.push(report)

    def _living_feeds(self) -> list[weakref.ref[ProgressFeed]]:
        return [feed for feed in self._feeds or () if feed() is not None]

    # --- waits that would never end

    def _home(self) -> Any:
        hub = self._manager.hub
        return self._manager.home() if hub is None or hub.dead else hub

    def _stalled(self) -> None:
        """Another thread waits: say so if the hub that must serve it does not run, or ended."""
        self._manager.home()
        if self._manager.is_stalled():
            log.warning(
                "task %s: this thread waits for a manager whose hub does not run. The thread that"
                " made the manager must run its hub (wait cooperatively), or give the manager a"
                " thread of its own: Configuration(background=True)",
                self.id,
            )

    def __reduce__(self) -> Any:
        raise TaskTravelError(
            "a handle cannot be an argument or a result of a task, since it belongs to the manager"
            " in its own process: give the task's id (handle.id) instead"
        )

    def __repr__(self) -> str:
        report = self.report
        return f"<TaskHandle {report.name} {self.id} {report.status.value}>"


def _seconds(timeout: float | None) -> float | None:
    if timeout is None or (isinstance(timeout, (int, float)) and not isinstance(timeout, bool)):
        return timeout
    raise TypeError(f"get: timeout takes seconds or None, not {shown(timeout)}")


_KEPT = 1024  # reports that a slow reader of progress is owed at most


class ProgressFeed(Iterator[Report]):
    """The reports of one task, for one reader."""

    def __init__(self, handle: TaskHandle) -> None:
        self._handle = handle
        self._reports: collections.deque[Report] = collections.deque(maxlen=_KEPT)
        self._news = Latch()
        self._ended = False

    def push(self, report: Report) -> None:
        """One more report."""
        self._reports.append(report)
        self._news.open()

    def __next__(self) -> Report:
        while not self._reports:
            if self._ended:
                raise StopIteration
            self._handle._home()
            self._news.wait()
            self._news = Latch()
        report = self._reports.popleft()
        if report.finished:
            self._ended = True
            self._reports.clear()
        return report
