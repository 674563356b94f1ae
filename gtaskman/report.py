"""How a task stands: ``TaskStatus``, the immutable ``Report`` and ``Progress``, the pen.

Nothing here knows how a report travels: a :class:`Progress` hands what is written to a sink, and
whoever makes the pen supplies the sink.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any

import msgspec

from gtaskman.errors import GTaskmanError

DEFAULT_TARGET = 100.0
LONGEST_MESSAGE = 4096  # characters of a progress message
_LARGEST = 2**63 - 1  # of a progress: every format that a report is written in takes that


def well_formed(text: str) -> str:
    """``text`` with its lone surrogates, which no encoding takes, as escapes (``\\udce9``)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()
    return text


class TaskStatus(enum.Enum):
    """Where a task is on its way."""

    WAITING = "waiting"  # in a queue; a manager moves it on, a crash leaves it there
    PROCESSING = "processing"  # in a worker; its end, a cancel or a crash moves it on
    COMPLETED = "completed"  # final: it returned
    FAILED = "failed"  # final: it raised, timed out, expired, or its worker died
    CANCELLED = "cancelled"  # final: somebody asked for it

    # Enum's own is written in Python, and statuses are keys on the way of every task.
    __hash__ = object.__hash__

    finished: bool
    """Whether nothing follows this status."""

    def __init__(self, value: str) -> None:
        self.finished = value in ("completed", "failed", "cancelled")


class FailureKind(enum.Enum):
    """What ended a task that failed."""

    ERROR = "error"  # its own exception, or Progress.fail
    CRASH = "crash"  # its worker died
    TIMEOUT = "timeout"  # its own time limit
    EXPIRED = "expired"  # it had not started within its ttl


class Failure(msgspec.Struct, frozen=True, gc=False):
    """Why a task failed.

    ``exc_type`` is the exception's name (with its module unless it is a builtin), ``traceback``
    the text with the worker's frames. ``exitcode`` and ``signal`` are set for a crash.
    """

    kind: FailureKind
    message: str
    exc_type: str | None = None
    traceback: str | None = None
    exitcode: int | None = None
    signal: str | None = None


# No part of a cycle, since it is made when its result is there already: the garbage collector
# need not look at every report of a long list of tasks.
class Report(msgspec.Struct, frozen=True, gc=False):
    """An immutable snapshot of how a task stands.

    Times are seconds since the epoch, or None while the thing has not happened. ``worker`` is the
    pid of the process that ran it. ``revision`` rises with every report of one task, so that a
    late report is never taken for a newer one.
    """

    id: str
    name: str
    kind: str
    status: TaskStatus
    created_at: float
    message: str = ""
    completed: float = 0
    target: float = DEFAULT_TARGET
    result: Any = None
    error: Failure | None = None
    started_at: float | None = None
    finished_at: float | None = None
    attempt: int = 1
    worker: int | None = None
    revision: int = 0
    result_size: int = 0

    @property
    def finished(self) -> bool:
        """Whether this is the task's last report."""
        return self.status.finished

    @property
    def completion(self) -> float:
        """How far it came, in units of ``target``: the same as ``completed``."""
        return self.completed

    @property
    def exc_type(self) -> str | None:
        """The name of the exception that ended it, or None."""
        return self.error.exc_type if self.error else None

    @property
    def traceback(self) -> str | None:
        """The traceback's text, with the frames of the worker, or None."""
        return self.error.traceback if self.error else None

    @property
    def duration(self) -> float | None:
        """Seconds from its start to its end, or None while one of them is missing."""
        if self.started_at is None or self.finished_at is None:
            return None
        return self.finished_at - self.started_at


def printable(report: Report) -> Report:
    """The report with an escape for each lone surrogate of its texts, which UTF-8 cannot encode.

    Exceptions have them in names of files that are no UTF-8.
    """
    failure = report.error
    if failure is not None:
        texts = {
            field: well_formed(text)
            for field in ("message", "exc_type", "traceback")
            if isinstance(text := getattr(failure, field), str)
        }
        failure = msgspec.structs.replace(failure, **texts)
    return msgspec.structs.replace(report, message=well_formed(report.message), error=failure)


class _Deferred(enum.Enum):
    DEFERRED = enum.auto()


DEFERRED = _Deferred.DEFERRED
Sink = Callable[[float, float, str], None]


class Progress:
    """The pen with which a running task writes its reports.

    ``sink(completed, target, message)`` takes every update; without one they are only kept here,
    as when a task is called directly.
    """

    def __init__(self, sink: Sink | None = None) -> None:
        self._sink = sink
        self._on_end: Callable[[], None] | None = None
        self.completed: float = 0
        self.target: float = DEFAULT_TARGET
        self.message: str = ""
        self.ended = False
        self.deferred = False
        self.result: Any = None
        self.last_message = ""  # given to fail(), in place of the error's text
        self.error: BaseException | None = None

    def update(
        self,
        completed: float | None = None,
        *,
        target: float | None = None,
        message: str | None = None,
    ) -> None:
        """Say how far the task is.

        ``completed`` and ``target`` are numbers in a unit of the task's choice (the target is 100
        unless set), ``message`` is a short text for people; what is left out stays as it was.
        After :meth:`finish` or :meth:`fail` it does nothing.
        """
        if self.ended:
            return
        if completed is not None:
            self.completed = _number("completed", completed)
        if target is not None:
            self.target = _number("target", target)
        if message is not None:
            self.message = _message(message)
        if self._sink is not None:
            self._sink(self.completed, self.target, self.message)

    def finish(self, result: Any = None) -> None:
        """Settle the task's outcome as ``result``, whatever ``run`` returns afterwards.

        The first call of ``finish`` or ``fail`` counts. The task's place in the worker is free
        when ``run`` has returned; see :meth:`defer` for a task that outlives its ``run``.
        """
        if not self.ended:
            self.result = result
            self._end()

    def fail(self, error: BaseException | str, message: str | None = None) -> None:
        """Settle the task's outcome as failed with ``error``, an exception or a text.

        ``message`` is the last report's, in place of the error's text.
        """
        if not self.ended:
            if message is not None:
                self.message = self.last_message = _message(message)
            self.error = error if isinstance(error, BaseException) else GTaskmanError(str(error))
            self._end()

    def defer(self) -> Any:
        """``return progress.defer()`` lets a task go on after ``run`` has returned.

        For tasks made of callbacks: the task lasts, and keeps its place in the worker, until
        :meth:`finish` or :meth:`fail` is called.
        """
        self.deferred = True
        return DEFERRED

    def _end(self) -> None:
        self.ended = True
        if self._on_end is not None:
            self._on_end()


def _message(message: object) -> str:
    return well_formed(str(message)[:LONGEST_MESSAGE])[:LONGEST_MESSAGE]


def _number(what: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        try:
            value = float(value)
        except (TypeError, ValueError, OverflowError):
            raise TypeError(f"{what} takes a number, not {type(value).__name__}") from None
    if not -_LARGEST <= value <= _LARGEST:
        raise ValueError(f"{what} takes a number from {-_LARGEST:g} to {_LARGEST:g}")
    return value
