"""The application that ``gtaskman run`` serves: ``module``, or ``module:name``."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import traceback
from typing import Any, NamedTuple

from gtaskman.config import Configuration
from gtaskman.errors import GTaskmanError
from gtaskman.task import registry
from gtaskman.taskmanager import TaskManager


class ApplicationError(GTaskmanError):
    """Raised when the application cannot be imported, or is none."""


class Application(NamedTuple):
    """A module whose tasks are known now, and how it wants them served, if it says so."""

    module: str
    wish: TaskManager | Configuration | None

    @property
    def tasks(self) -> list[str]:
        """The names of the tasks that a manager could run."""
        return sorted(name for name, each in registry.items() if each.kind != "service")


def load(target: str) -> Application:
    """Import ``module[:name]``, the working directory first on the path.

    ``name`` is a :class:`TaskManager`, a :class:`Configuration`, or a function that gives one.
    Raises :class:`ApplicationError`.
    """
    directory = os.getcwd()
    if directory not in sys.path:
        sys.path.insert(0, directory)
    name, _, path = target.partition(":")
    module = _import(name)
    application = Application(name, _wish(module, path, target) if path else None)
    if not application.tasks:
        raise ApplicationError(
            f"the module {name!r} defines no task, nor does what it imports: there is nothing to"
            " serve. Functions become tasks by @gtaskman.task"
        )
    return application


def _import(name: str) -> Any:
    if name.endswith(".py") or not all(part.isidentifier() for part in name.split(".")):
        guess = name.removesuffix(".py").strip("./").replace("/", ".")
        raise ApplicationError(
            f"{name!r} is not the name of a module: write it as in an import, such as {guess!r}"
        )
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise ApplicationError(
            f"the module {name!r} cannot be imported: {_words(error)} (--debug shows more)"
        ) from error


def _words(error: BaseException) -> str:
    """The error, and where it is, in one line."""
    what = " ".join(f"{type(error).__name__}: {error}".split())
    if isinstance(error, SyntaxError):
        return what  # it names the place itself
    frame = traceback.extract_tb(error.__traceback__)[-1]
    if frame.filename.startswith("<"):
        return what
    return f"{what} ({frame.filename}:{frame.lineno})"


def _wish(module: Any, path: str, target: str) -> TaskManager | Configuration:
    try:
        found = module
        for part in path.split("."):
            found = getattr(found, part)
    except AttributeError:
        raise ApplicationError(f"the module {module.__name__!r} has no {path!r}") from None
    if inspect.isroutine(found):
        found = _call(found, target)
    if not isinstance(found, (TaskManager, Configuration)):
        raise ApplicationError(
            f"{target} is {found!r:.80}: after the colon comes the name of a TaskManager, of a"
            " Configuration, or of a function that returns one"
        )
    return found


def _call(function: Any, target: str) -> Any:
    try:
        return function()
    except Exception as error:
        raise ApplicationError(
            f"{target}() has failed: {_words(error)} (--debug shows more)"
        ) from error
