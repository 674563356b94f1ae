"""``TaskBackend``: ``django.tasks`` on gtaskman. Needs Django 6.0 or later.

::

    task.enqueue() -> TaskBackend -> manager -> worker -> Performer -> the task's function
    TaskResult <- results <- report <- storage <-----------------------------|
"""

from __future__ import annotations

import dataclasses
import functools
import re
import time
import weakref
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from django.apps import apps
from django.core import checks
from django.db import transaction

from gtaskman.errors import ConfigurationError, TaskDefinitionError

try:
    from django.tasks import Task as DjangoTask
    from django.tasks import TaskResult, TaskResultStatus
    from django.tasks.backends.base import BaseTaskBackend
    from django.tasks.exceptions import InvalidTask, TaskResultDoesNotExist
    from django.tasks.signals import task_enqueued
except ImportError as error:
    import django

    raise ConfigurationError(
        f"gtaskman.contrib.django.TaskBackend needs django.tasks, which Django has since 6.0 (for"
        f" Python 3.12 and later), and this is Django {django.__version__}: use"
        " gtaskman.contrib.django.task and submit_on_commit instead",
        "BACKEND",
    ) from error

from gtaskman.client import Client
from gtaskman.contrib.django import managers
from gtaskman.contrib.django.performer import KEY, NoTaskError, Request, code_of, moment, performer
from gtaskman.contrib.django.results import call_of, result_of
from gtaskman.contrib.django.settings import TASKS, BackendOptions
from gtaskman.envelope import arguments_of, read_task
from gtaskman.report import Report
from gtaskman.task import Definition, FunctionTask, fresh_id, register, registry
from gtaskman.terms import DEFAULT

_QUEUE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_FORGET_AFTER = 1024  # calls that are remembered without looking which of them still matter


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Task(DjangoTask):
    """A task with the limits that gtaskman has for it; None stands for the backend's own.

    ``kind`` is ``"sync"`` (a worker to itself) or ``"async"`` (a greenlet beside others),
    ``timeout`` the seconds from its start after which it is stopped, ``retries`` the attempts
    that may follow a failure.
    """

    kind: str | None = None
    timeout: float | None = None
    retries: int | None = None

    def using(self, **changes: Any) -> Task:
        """As Django's, and takes ``timeout`` and ``retries``, too."""
        limits = {key: changes.pop(key) for key in ("timeout", "retries") if key in changes}
        # A class with slots is made anew, and so super() alone does not know it.
        other: Task = DjangoTask.using(self, **changes)
        return dataclasses.replace(other, **limits) if limits else other


class Sent(NamedTuple):
    """A call that this process has enqueued."""

    task: DjangoTask
    request: Request
    args: list[Any]
    kwargs: dict[str, Any]


class TaskBackend(BaseTaskBackend):
    """Runs tasks in gtaskman's workers.

    ``OPTIONS``: ``url`` and the fields of :class:`gtaskman.Configuration` say which manager;
    ``enqueue_on_commit``, ``kind``, ``timeout`` and ``retries`` hold for all of its tasks.
    """

    task_class = Task
    supports_defer = True
    supports_async_task = True
    supports_priority = True

    @property
    def supports_get_result(self) -> bool:
        """Whether any process may ask; with ``memory://`` only the one that has enqueued it."""
        try:
            return not self.settings.place.is_embedded
        except ConfigurationError:
            return False

    @functools.cached_property
    def settings(self) -> BackendOptions:
        """What ``OPTIONS`` says. Raises :class:`ConfigurationError`."""
        return BackendOptions.of(self.alias, self.options)

    # --- what Django asks

    def validate_task(self, task: DjangoTask) -> None:
        """Raise ``InvalidTask`` for one that cannot run here; know it by its name from now on."""
        super().validate_task(task)
        if not _QUEUE.fullmatch(task.queue_name):
            raise InvalidTask(
                f"Queue {task.queue_name!r}: a name takes 1 to 64 letters, digits, '_', '.' or '-'."
            )
        try:
            self._definition(task)
        except TypeError as error:  # a TaskDefinitionError, or a limit that has no hash
            raise InvalidTask(str(error)) from None

    def enqueue(self, task: DjangoTask, args: Any, kwargs: Any) -> TaskResult:
        """Queue the task up; when the transaction commits, if ``enqueue_on_commit`` says so."""
        self.validate_task(task)
        _check_found(task)
        result = TaskResult(
            task=task,
            id=fresh_id(),
            status=TaskResultStatus.READY,
            enqueued_at=None,
            started_at=None,
            last_attempted_at=None,
            finished_at=None,
            args=args,
            kwargs=kwargs,
            backend=self.alias,
            errors=[],
            worker_ids=[],
        )
        send = functools.partial(self._send, result)
        if self.settings.on_commit:
            transaction.on_commit(send)
        else:
            send()
        return result

    def get_result(self, result_id: str) -> TaskResult:
        """How a task stands. Raises ``TaskResultDoesNotExist``."""
        manager = managers.manager_of(self.settings.place)
        report = manager.report(str(result_id))
        if report is None:
            raise TaskResultDoesNotExist(result_id)
        sent = self._sent(manager, report)
        if sent is not None:
            return result_of(report, *sent)
        known = registry.get(report.name)
        if known is None or not isinstance(found := _found(known), DjangoTask):
            raise TaskResultDoesNotExist(result_id)
        return result_of(report, found.using(backend=self.alias), None, [], {})

    def check(self, **_more: Any) -> Iterable[checks.CheckMessage]:
        """Django's system checks."""
        where = f"{TASKS}[{self.alias!r}]"
        try:
            self._check_options()
        except (ConfigurationError, TaskDefinitionError) as error:
            yield checks.Error(str(error), obj=where, id="gtaskman.E001")
        for name in sorted(map(str, self.queues)):
            if not _QUEUE.fullmatch(name):
                yield checks.Error(
                    f"{where}['QUEUES']: {name!r} is no name of a queue",
                    hint="It takes 1 to 64 letters, digits, '_', '.' or '-'.",
                    obj=where,
                    id="gtaskman.E002",
                )
        if not apps.is_installed("gtaskman.contrib.django"):
            yield checks.Warning(
                "gtaskman.contrib.django is not in INSTALLED_APPS",
                hint="Without it there is no 'manage.py gtaskman', and plain tasks may find Django"
                " not set up in their workers.",
                obj=where,
                id="gtaskman.W001",
            )

    def _check_options(self) -> None:
        settings = self.settings
        if settings.kind not in ("sync", "async"):
            raise ConfigurationError(
                f"kind takes 'sync' or 'async', not {settings.kind!r:.80}", "kind"
            )
        # Whether its limits make sense: a definition knows.
        Definition(self.alias, settings.kind, call_of, settings.timeout, None, settings.retries)
        if not settings.place.is_embedded:
            Client(settings.place.url)  # opens nothing, and knows a good URL

    # --- sending

    def _definition(self, task: DjangoTask) -> Definition:
        settings = self.settings
        limits = {"kind": settings.kind, "timeout": settings.timeout, "retries": settings.retries}
        own = {key: value for key, value in _limits(task).items() if value is not None}
        return definition_of(task.func.__module__, task.func.__qualname__, **{**limits, **own})

    def _send(self, result: TaskResult) -> None:
        task, now = result.task, time.time()
        definition = self._definition(task)
        request = Request.of(task, _limits(task), definition.retries, now)
        terms = DEFAULT.replace(
            queue=task.queue_name, priority=request.priority, eta=request.run_after
        )
        kwargs = {**result.kwargs, KEY: request._asdict()}
        call = FunctionTask(definition, tuple(result.args), kwargs, result.id, terms)
        manager = managers.manager_of(self.settings.place)
        manager.submit(call)
        if type(manager) is not Client:  # a server has the arguments itself
            sent = Sent(task, request, result.args, result.kwargs)
            calls_of(manager).remember(manager, result.id, sent)
        object.__setattr__(result, "enqueued_at", moment(now))
        task_enqueued.send(type(self), task_result=result)

    # --- asking

    def _sent(self, manager: Any, report: Report) -> Sent | None:
        """The call: told by its worker, remembered here, or as the server still has it."""
        call = call_of(report)
        if call is not None:
            return _rebuilt(report.name, call.request, call.args, call.kwargs)
        if type(manager) is Client:
            return _on_server(manager, report)
        return calls_of(manager).get(report.id)


class Calls:
    """The calls that one manager was given here, for as long as it keeps their reports."""

    def __init__(self) -> None:
        self._sent: dict[str, Sent] = {}
        self._due = _FORGET_AFTER

    def get(self, task_id: str) -> Sent | None:
        """The call under this id, if it is remembered."""
        return self._sent.get(task_id)

    def remember(self, manager: Any, task_id: str, sent: Sent) -> None:
        """Keep a call; now and then those go of which the manager knows nothing any more."""
        self._sent[task_id] = sent
        if len(self._sent) > self._due:
            for each in list(self._sent):
                if manager.report(each) is None:
                    self._sent.pop(each, None)
            self._due = 2 * len(self._sent) + _FORGET_AFTER


_calls: weakref.WeakKeyDictionary[Any, Calls] = weakref.WeakKeyDictionary()


def calls_of(manager: Any) -> Calls:
    """Those that this manager was given in this process."""
    return _calls.setdefault(manager, Calls())


def _on_server(client: Client, report: Report) -> Sent | None:
    """What the server has of a task that has not ended, or has failed."""
    handle = client.handle(report.id)
    if handle is None:
        return None
    data = client.ledger(handle.queue).envelope(report.id)
    if data is None:
        return None
    read_task(data, queue=handle.queue, task_id=report.id)
    args, kwargs = arguments_of(data)
    request = kwargs.pop(KEY, None)
    return None if request is None else _rebuilt(report.name, request, list(args), kwargs)


def _rebuilt(name: str, told: Mapping[str, Any], args: list[Any], kwargs: Any) -> Sent | None:
    known, request = registry.get(name), Request(**told)
    if known is None:
        return None
    return Sent(request.task(_found(known)), request, args, kwargs)


def _found(known: Definition) -> Any:
    find = getattr(known.target, "find", None)
    return None if find is None else find()


def _limits(task: DjangoTask) -> dict[str, Any]:
    """Those that the task itself has; with None for those that it leaves to the backend."""
    if not isinstance(task, Task):
        return {}
    return {"kind": task.kind, "timeout": task.timeout, "retries": task.retries}


# --- definitions ---------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1024)
def definition_of(module: str, path: str, **limits: Any) -> Definition:
    """The definition of a task under these limits; the first one of a task has its name.

    Raises :class:`TaskDefinitionError`.
    """
    made = Definition(f"{module}.{path}", target=performer(module, path), **limits)
    if made.kind == "service":
        raise TaskDefinitionError(
            f"{made.name}: a task of Django ends; give a service to a manager"
        )
    if made.name not in registry:
        register(made)
    return made


def _check_found(task: DjangoTask) -> None:
    """Raise ``InvalidTask`` if no worker would find it."""
    func = task.func
    try:
        found = performer(func.__module__, func.__qualname__).find()
    except NoTaskError as error:
        raise InvalidTask(str(error)) from None
    if code_of(found) is not func:
        raise InvalidTask(
            f"{task.module_path} is {found!r:.80}, and not this task: workers find a task by the"
            " name of its function"
        )
