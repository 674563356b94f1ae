"""Which application a task gets in its worker, and the context that it runs in.

An application is found by its *path*: ``module`` (there as ``flask --app`` finds it: ``app``,
``application``, the only one, ``create_app()``, ``make_app()``), ``module:name``, or
``module:factory(...)``. It is made once for each worker and kept, or, if its own configuration
says ``GTASKMAN_APP_PER_TASK``, anew for each task.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import os
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

from flask import Flask, current_app
from flask.cli import NoAppException, locate_app, prepare_import
from gevent.lock import RLock

from gtaskman.context import Running, running
from gtaskman.contrib.flask.settings import APP, PER_TASK
from gtaskman.errors import ConfigurationError
from gtaskman.reference import MAIN, is_main_known

P = ParamSpec("P")
R = TypeVar("R")


class NoApplication(ConfigurationError):
    """Raised when no application is where it should be."""


_kept: dict[str, Flask] = {}
_seen: weakref.WeakSet[Flask] = weakref.WeakSet()
making = RLock()
"""Held while an application is made: async tasks share a worker, and must not find half of one."""


def application_at(path: str) -> Flask:
    """The application at this path, for one more task.

    Raises :class:`NoApplication` if there is none, and :class:`ConfigurationError` if it cannot be
    made anew where it should be.
    """
    with making:
        app = _kept.get(path)
        if app is not None:
            return app
        app = _located(path)
        if not app.config.get(PER_TASK):
            _kept[path] = app
        elif app in _seen:
            raise ConfigurationError(
                f"{PER_TASK} needs a factory, which makes a new application for each task, and"
                f" {path!r} is always the same one: set {APP} to 'module:factory'",
                PER_TASK,
            )
        _seen.add(app)
        return app


def _located(path: str) -> Flask:
    name, _, rest = path.partition(":")
    if name.endswith(".py") or os.sep in name:
        name = prepare_import(name)
    try:
        return locate_app(name, rest or None)
    except NoAppException as error:
        raise NoApplication(f"no application is at {path!r}: {error}", APP) from None


def guessed(module: str) -> Flask | None:
    """The application of a task's module, in the module or in a package above it, or None."""
    name = module
    while name:
        with contextlib.suppress(NoApplication):
            return application_at(name)
        name = name.rpartition(".")[0]
    return None


def current() -> Flask | None:
    """The current application, if there is one."""
    return current_app._get_current_object() if current_app else None  # type: ignore[attr-defined] # the proxy's own


# --- contexts ------------------------------------------------------------------------------------

# The run whose context we are in: what a task calls in its turn shares it.
_entered: contextvars.ContextVar[Running | None] = contextvars.ContextVar(
    "gtaskman.contrib.flask.entered", default=None
)


@contextlib.contextmanager
def context_of(find: Callable[[], Flask]) -> Iterator[None]:
    """For the body of a task: be inside a context of the application that ``find`` gives.

    Where no task runs it changes nothing: a plain call has the context of its caller.
    """
    run = running.get(None)
    if run is None or _entered.get() is run:
        yield
        return
    with find().app_context():
        token = _entered.set(run)
        try:
            yield
        finally:
            _entered.reset(token)


def inside(find: Callable[[], Flask], function: Callable[P, R]) -> Callable[P, R]:
    """The function, which runs in a context of its own whenever it is a task."""

    @functools.wraps(function)
    def in_context(*args: P.args, **kwargs: P.kwargs) -> R:
        with context_of(find):
            return function(*args, **kwargs)

    return in_context


class InContext:
    """A function that knows nothing of Flask, on its way to the application at ``path``.

    It travels by value, the function by its name wherever that leads to it.
    """

    def __init__(self, path: str, function: Callable[..., Any]) -> None:
        self.__wrapped__ = function
        for name in ("__module__", "__name__", "__qualname__", "__annotations__"):
            if hasattr(function, name):
                setattr(self, name, getattr(function, name))
        self._path = path

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        with context_of(self._application):
            return self.__wrapped__(*args, **kwargs)

    def _application(self) -> Flask:
        # There is a current one only where a test runs the task at once, in the application.
        return current() or application_at(self._path)

    def __reduce__(self) -> Any:
        return _arrived, (self._path, named(self.__wrapped__))


def _arrived(path: str, function: Callable[..., Any]) -> InContext:
    if path.partition(":")[0] == MAIN and not is_main_known():
        # As if it did not load: the worker then imports the main module, and tries again.
        raise AttributeError("the application's main module has not been imported yet")
    return InContext(path, function)


def named(function: Callable[..., Any]) -> Any:
    """What the function's module has under its name, if that is the function as a task."""
    found: Any = sys.modules.get(getattr(function, "__module__", None) or "")
    for part in getattr(function, "__qualname__", "").split("."):
        found = getattr(found, part, None)
    definition = getattr(found, "definition", None)
    return found if getattr(definition, "target", None) is function else function
