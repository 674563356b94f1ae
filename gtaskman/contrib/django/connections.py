"""The database connections of a task, in the worker that runs it.

::

    before   those that were opened in another process are forgotten, old ones closed
    after    old ones closed, or all, where they would end with the task's greenlet

Django keeps connections by thread. In a patched worker that is by greenlet, so that each async
task has its own; in an unpatched one they share them, and only the last to leave sees to them.

A worker is forked from a process that may have connections open: they are shared with it, and so
must be neither used nor closed in the worker.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import os
import weakref
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

from django.db import close_old_connections, connections, reset_queries
from django.db.backends.signals import connection_created
from gevent import getcurrent, monkey

from gtaskman.child.run import Run
from gtaskman.context import Running, running
from gtaskman.contrib.django.loading import set_up_for_task

P = ParamSpec("P")
R = TypeVar("R")

# Who opened what; of one that was opened before this module was there nobody knows, and it counts
# as another's.
_opened_by: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
_inherited: list[Any] = []  # never closed here: a socket says goodbye, SQLite drops locks
# The run that we care for: what a task calls in its turn shares its connections.
_entered: contextvars.ContextVar[Running | None] = contextvars.ContextVar(
    "gtaskman.contrib.django.entered", default=None
)


_inside: set[Run] = set()  # tasks that are at work here


def in_worker() -> bool:
    """Whether a task runs here, in a worker."""
    return isinstance(running.get(None), Run)


@contextlib.contextmanager
def cared_for() -> Iterator[None]:
    """For the body of a task: it has connections of its own, which are closed when they are due.

    Where no worker runs it nothing is changed: a plain call has the connections of its caller.
    In a worker Django is set up first, unless it is. Raises :class:`ConfigurationError` if
    that fails.
    """
    run = running.get(None)
    if not isinstance(run, Run) or _entered.get() is run:
        yield
        return
    set_up_for_task()
    token = _entered.set(run)
    try:
        _enter(run)
        yield
    finally:
        _leave(run)
        _entered.reset(token)


def _enter(run: Run) -> None:
    if not _inside or _is_by_greenlet():
        _forget_inherited()
        _drop_transactions()  # the end of the last task may have been interrupted
        reset_queries()
        close_old_connections()
    _inside.add(run)


def _leave(run: Run) -> None:
    _inside.discard(run)
    if not _inside or _is_by_greenlet():
        _drop_transactions()
        _close()


def with_connections(function: Callable[P, R]) -> Callable[P, R]:
    """The function, whose connections are cared for whenever it is a task."""

    @functools.wraps(function)
    def cared(*args: P.args, **kwargs: P.kwargs) -> R:
        with cared_for():
            return function(*args, **kwargs)

    return cared


def _note(*, connection: Any, **_more: Any) -> None:
    _opened_by[connection] = os.getpid()


connection_created.connect(_note)


def _forget_inherited() -> None:
    for each in connections.all(initialized_only=True):
        if each.connection is not None and _opened_by.get(each) != os.getpid():
            _inherited.append(each)
            del connections[each.alias]


def _drop_transactions() -> None:
    """Nobody else may find himself in a transaction that a task has left open."""
    for each in connections.all(initialized_only=True):
        if each.in_atomic_block:
            each.close()
            del connections[each.alias]


def _close() -> None:
    from gtaskman.child.worker import TaskGreenlet

    if _is_by_greenlet() and isinstance(getcurrent(), TaskGreenlet):
        connections.close_all()  # nobody would ever find them again
    else:
        close_old_connections()


def _is_by_greenlet() -> bool:
    return bool(monkey.is_module_patched("threading"))
