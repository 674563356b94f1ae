"""``task``: gtaskman's own, with Django's connections cared for; and tasks sent upon commit."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, overload

from django.db import transaction

from gtaskman import default
from gtaskman.contrib.django.connections import with_connections
from gtaskman.definitions import Definitions
from gtaskman.errors import TaskDefinitionError
from gtaskman.task import FunctionTask, Task, TaskFunction
from gtaskman.task import task as make_task

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T", bound=Task)

_definitions = Definitions()


@overload
def task(code: type[T], /) -> type[T]: ...  # type: ignore[overload-overlap] # classes first


@overload
def task(code: Callable[P, R], /) -> TaskFunction[P, R]: ...


@overload
def task(
    code: None = None, /, **options: Any
) -> Callable[[Callable[P, R]], TaskFunction[P, R]]: ...


def task(code: Any = None, /, **options: Any) -> Any:
    """Make a function a task whose database connections are cared for.

    The options are those of :func:`gtaskman.task`. It decorates a class derived from
    :class:`gtaskman.Task` as well, whose options are in the class statement. In its worker a task
    finds no connection of another process, and none that has grown too old; called directly,
    either runs right here, with the caller's. Raises :class:`TaskDefinitionError`.
    """
    if code is None:
        return functools.partial(task, **options)
    if isinstance(code, TaskFunction):
        raise TaskDefinitionError(
            f"{code.definition.name} is a task already: decorate the function once"
        )
    if isinstance(code, type) and issubclass(code, Task):
        if options:
            raise TaskDefinitionError(
                f"{code.__name__}: options of a task in class form go in the class statement, as"
                f" in class {code.__name__}(gtaskman.Task, {next(iter(options))}=...)"
            )
        inner: Any = code.perform
        code.perform = classmethod(with_connections(inner.__func__))  # type: ignore[assignment, method-assign] # that is the point
        return code
    return make_task(**options)(with_connections(code))


def submit_on_commit(task: Any, /, *args: Any, using: str | None = None, **kwargs: Any) -> str:
    """Submit a task to the default manager when the transaction of the database ``using`` commits.

    Outside of one that is at once; if it is rolled back, never. The task is built now: mistakes
    are raised here. Gives its id, under which ``gtaskman.report`` knows it from then on. A task
    that itself has an option ``using`` is to be built first. Raises :class:`TaskOptionError` and
    :class:`TaskDefinitionError`.
    """
    built = _built(task, args, kwargs)
    transaction.on_commit(functools.partial(default.submit, built), using=using)
    return built.id


def _built(task: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Task:
    if isinstance(task, TaskFunction):
        return task.task(*args, **kwargs)
    if isinstance(task, Task) and not args and not kwargs:
        return task
    task_id, definition, args, kwargs, terms = _definitions.call(task, args, kwargs)
    return FunctionTask(definition, args, kwargs, task_id, terms)
