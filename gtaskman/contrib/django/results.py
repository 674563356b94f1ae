"""A report of gtaskman as a ``TaskResult`` of Django."""

from __future__ import annotations

from typing import Any

from django.tasks import Task, TaskResult, TaskResultStatus
from django.tasks.base import TaskError

from gtaskman.contrib.django.performer import Call, Request, moment, worker_ids
from gtaskman.errors import TaskCancelled, TaskExpired, TaskFailed, TaskTimedOut, WorkerCrashed
from gtaskman.report import FailureKind, Report, TaskStatus

_STATUSES = {
    TaskStatus.WAITING: TaskResultStatus.READY,
    TaskStatus.PROCESSING: TaskResultStatus.RUNNING,
    TaskStatus.COMPLETED: TaskResultStatus.SUCCESSFUL,
    TaskStatus.FAILED: TaskResultStatus.FAILED,
    TaskStatus.CANCELLED: TaskResultStatus.FAILED,
}
_ENDS = {
    FailureKind.ERROR: TaskFailed,
    FailureKind.CRASH: WorkerCrashed,
    FailureKind.TIMEOUT: TaskTimedOut,
    FailureKind.EXPIRED: TaskExpired,
}


def result_of(
    report: Report, task: Task, request: Request | None, args: list[Any], kwargs: dict[str, Any]
) -> TaskResult:
    """How the task stands; ``request`` is None where nobody remembers it."""
    call = call_of(report)
    result = TaskResult(
        task=task,
        id=report.id,
        status=_STATUSES[report.status],
        enqueued_at=moment(report.created_at if request is None else request.enqueued_at),
        started_at=_moment(report.started_at),
        last_attempted_at=_moment(report.started_at),
        finished_at=_moment(report.finished_at),
        args=args,
        kwargs=kwargs,
        backend=task.backend,
        errors=_errors(report),
        worker_ids=call.worker_ids if call else worker_ids(_attempts(report), report.worker),
    )
    object.__setattr__(result, "_return_value", call.return_value if call else report.result)
    return result


def call_of(report: Report) -> Call | None:
    """What its worker gave back, if it has ended well and a backend had sent it."""
    try:
        return Call(**report.result)
    except TypeError:
        return None


def _attempts(report: Report) -> int:
    """How often it was begun: a waiting one will be once more."""
    running = report.status is TaskStatus.PROCESSING
    begun = running or (report.finished and report.started_at is not None)
    return report.attempt if begun else report.attempt - 1


def _moment(epoch: float | None) -> Any:
    return None if epoch is None else moment(epoch)


def _errors(report: Report) -> list[TaskError]:
    if report.status is TaskStatus.CANCELLED:
        return [_error(TaskCancelled, report.message or "it was cancelled")]
    if report.error is None:
        return []
    failure = report.error
    if failure.kind is FailureKind.ERROR and failure.exc_type is not None:
        path = failure.exc_type if "." in failure.exc_type else f"builtins.{failure.exc_type}"
        text = failure.traceback or f"{failure.exc_type}: {failure.message}\n"
        return [TaskError(exception_class_path=path, traceback=text)]
    return [_error(_ENDS[failure.kind], failure.message, failure.traceback)]


def _error(kind: type[Exception], message: str, traceback: str | None = None) -> TaskError:
    path = f"{kind.__module__}.{kind.__qualname__}"
    return TaskError(exception_class_path=path, traceback=traceback or f"{path}: {message}\n")
