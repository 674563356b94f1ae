"""``Performer``: the code of a task of ``django.tasks``, which it travels by the name of; and
``Request``, what travels with a call of it.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import importlib
import os
from collections.abc import Callable
from traceback import format_exception
from typing import Any, NamedTuple

from django.tasks import Task, TaskContext, TaskResult, TaskResultStatus, task_backends
from django.tasks.base import TaskError
from django.tasks.signals import task_finished, task_started
from django.utils import timezone
from django.utils.json import normalize_json

from gtaskman.context import current
from gtaskman.contrib.django.connections import cared_for
from gtaskman.errors import GTaskmanError

KEY = "gtaskman.contrib.django"
"""The keyword argument by which a :class:`Request` travels; no argument can have this name."""


class NoTaskError(GTaskmanError):
    """Raised when no task of ``django.tasks`` is where one should be."""


class Request(NamedTuple):
    """What a backend asked for beside the arguments; times are seconds since the epoch.

    ``limits`` are the task's own, ``retries`` those that hold for it in the end.
    """

    backend: str
    queue_name: str
    priority: int
    run_after: float | None
    takes_context: bool
    enqueued_at: float
    limits: dict[str, Any]
    retries: int

    @classmethod
    def of(cls, task: Task, limits: dict[str, Any], retries: int, now: float) -> Request:
        """That of a task which is enqueued now."""
        return cls(
            task.backend,
            task.queue_name,
            int(task.priority),
            None if task.run_after is None else seconds(task.run_after),
            task.takes_context,
            now,
            limits,
            retries,
        )

    def task(self, found: Any) -> Task:
        """The task as it was enqueued; ``found`` is what its module has, a task or a function."""
        backend = task_backends[self.backend]
        changes = {
            "backend": self.backend,
            "queue_name": self.queue_name,
            "priority": self.priority,
            "run_after": None if self.run_after is None else moment(self.run_after),
            "takes_context": self.takes_context,
            **self.limits,
        }
        if isinstance(found, backend.task_class):
            return dataclasses.replace(found, **changes)
        return backend.task_class(func=code_of(found), **changes)


class Call(NamedTuple):
    """What a worker gives back of a task that a backend has sent.

    Its arguments are here as well: a report has none.
    """

    return_value: Any
    args: list[Any]
    kwargs: dict[str, Any]
    worker_ids: list[str]
    request: dict[str, Any]


class Performer:
    """Performs one task, whatever its function is at that time; made by :func:`performer`."""

    def __init__(self, module: str, path: str) -> None:
        self.__module__ = module
        self.__qualname__ = self.__name__ = path

    def find(self) -> Any:
        """What the module has under its name: a task, or a function that was made one.

        Raises :class:`NoTaskError`.
        """
        found: Any = importlib.import_module(self.__module__)
        for part in self.__qualname__.split("."):
            found = getattr(found, part, None)
        if not callable(code_of(found)):
            raise NoTaskError(
                f"{self.__module__}.{self.__qualname__} is no task of django.tasks (any more):"
                " bind it, or its function, to that name at the top of the module"
            )
        return found

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Perform it, in a worker; what a backend has sent gives a :class:`Call` as a dict."""
        told = kwargs.pop(KEY, None)
        with cared_for():
            found = self.find()
            if told is None:  # sent by its name alone, as by the command line
                return _plainly(found, args, kwargs)
            request = Request(**told)
            result = _begun(request.task(found), request, args, kwargs)
            _perform(result, request.retries)
            ids = list(result.worker_ids)
            return Call(result._return_value, result.args, result.kwargs, ids, told)._asdict()

    def __reduce__(self) -> Any:
        return performer, (self.__module__, self.__qualname__)


@functools.cache
def performer(module: str, path: str) -> Performer:
    """The one of the function that has this path in this module."""
    return Performer(module, path)


def code_of(found: Any) -> Callable[..., Any]:
    """The function of a task, or what was given."""
    code: Callable[..., Any] = found.func if isinstance(found, Task) else found
    return code


# --- performing ----------------------------------------------------------------------------------


def _plainly(found: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if not isinstance(found, Task):
        raise NoTaskError(f"{found!r:.80} has become a task under another name: send it by that")
    if not found.takes_context:
        return normalize_json(found.call(*args, **kwargs))
    request = Request.of(found, {}, 0, timezone.now().timestamp())
    context = TaskContext(task_result=_begun(found, request, args, kwargs))
    return normalize_json(found.call(context, *args, **kwargs))


def _begun(
    task: Task, request: Request, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> TaskResult:
    now, mine = timezone.now(), current()
    return TaskResult(
        task=task,
        id=mine.id,
        status=TaskResultStatus.RUNNING,
        enqueued_at=moment(request.enqueued_at),
        started_at=now,
        last_attempted_at=now,
        finished_at=None,
        args=list(args),
        kwargs=kwargs,
        backend=request.backend,
        errors=[],
        worker_ids=worker_ids(mine.attempt, os.getpid()),
    )


def _perform(result: TaskResult, retries: int) -> None:
    """Run it, and tell those who listen; its value goes into ``result``. Raises what it raises."""
    task, sender = result.task, type(result.task.get_backend())
    # Whoever listens must not decide whether a task has succeeded: errors there are logged.
    task_started.send_robust(sender, task_result=result)
    context = [TaskContext(task_result=result)] if task.takes_context else []
    try:
        value = normalize_json(task.call(*context, *result.args, **result.kwargs))
    except BaseException as error:
        result.errors.append(TaskError(exception_class_path=_path(error), traceback=_text(error)))
        _settle(result, TaskResultStatus.FAILED)
        if current().attempt > retries:
            task_finished.send_robust(sender, task_result=result)
        raise
    object.__setattr__(result, "_return_value", value)
    _settle(result, TaskResultStatus.SUCCESSFUL)
    task_finished.send_robust(sender, task_result=result)


def _settle(result: TaskResult, status: TaskResultStatus) -> None:
    object.__setattr__(result, "status", status)
    object.__setattr__(result, "finished_at", timezone.now())


def _path(error: BaseException) -> str:
    return f"{type(error).__module__}.{type(error).__qualname__}"


def _text(error: BaseException) -> str:
    return "".join(format_exception(error))


def worker_ids(attempts: int, pid: int | None) -> list[str]:
    """A worker for each attempt: of the last one its pid, the others nobody remembers."""
    if not attempts:
        return []
    return ["unknown"] * (attempts - 1) + ["unknown" if pid is None else str(pid)]


# --- times ---------------------------------------------------------------------------------------


def seconds(when: datetime.datetime) -> float:
    """Seconds since the epoch; a naive time is one of Django's time zone."""
    return (timezone.make_aware(when) if timezone.is_naive(when) else when).timestamp()


def moment(epoch: float) -> datetime.datetime:
    """As Django's settings have times, aware or naive."""
    when = datetime.datetime.fromtimestamp(epoch, tz=datetime.UTC)
    return when if timezone.settings.USE_TZ else timezone.make_naive(when)
