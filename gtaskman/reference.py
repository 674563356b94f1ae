"""How code is found again in another process: by name, or else by value.

A function or class that a module holds under its own name travels as that name. What a worker
could not import (a lambda, a nested function, code typed into a console) travels by value with
cloudpickle, where that is installed.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import pickle
import runpy
import sys
import types
from typing import Any, NamedTuple

from gtaskman.errors import TaskTravelError
from gtaskman.process import importing
from gtaskman.task import Definition, TaskFunction

MAIN, MAIN_IN_WORKER = "__main__", "__mp_main__"
# The application's main module, once this process has it. What goes by its name is no witness:
# multiprocessing gives that name to whatever is the main module when it is imported.
_main: types.ModuleType | None = None


class Reference(NamedTuple):
    """Code by ``module`` and ``path`` therein, or by ``value``, a pickle of it."""

    module: str
    path: str
    value: bytes | None = None


class Main(NamedTuple):
    """The application's main module: its name if it was started with ``-m``, else its file."""

    name: str | None
    path: str | None


# --- in the application --------------------------------------------------------------------------


def refer(definition: Definition) -> Reference:
    """How a worker shall find this task's code. Raises :class:`TaskTravelError`."""
    target = definition.target
    module = getattr(target, "__module__", None) or "builtins"
    path = getattr(target, "__qualname__", "")
    if is_held(target):
        return Reference(MAIN if module == MAIN_IN_WORKER else module, path)
    return Reference(module, path, _by_value(definition))


def refer_abroad(definition: Definition) -> Reference:
    """:func:`refer` for workers of another application, which do not have our main module.

    Code of that travels by value. Raises :class:`TaskTravelError`.
    """
    reference = refer(definition)
    if reference.module != MAIN or reference.value is not None:
        return reference
    if importlib.util.find_spec("cloudpickle") is None:
        raise TaskTravelError(
            f"task {definition.name} is defined in the main module, which workers of a shared"
            " manager do not have: put it into a module that both can import, or install"
            " cloudpickle (pip install 'gtaskman[cloudpickle]')"
        )
    return Reference(MAIN, reference.path, _by_value(definition))


def is_held(target: Any) -> bool:
    """Whether a worker can import this code by its name."""
    module = getattr(target, "__module__", None) or "builtins"
    path = getattr(target, "__qualname__", "")
    if not path or "<" in path or not _holds(module, path, target):
        return False
    return module not in (MAIN, MAIN_IN_WORKER) or main_of_application() is not None


def _holds(module: str, path: str, target: Any) -> bool:
    try:
        return unwrap(_look_up(sys.modules[module], path)) is target
    except (KeyError, AttributeError):
        return False


def _look_up(module: types.ModuleType, path: str) -> Any:
    found: Any = module
    for part in path.split("."):
        found = getattr(found, part)
    return found


def unwrap(found: Any) -> Any:
    """The code itself, of a task function or of anything else."""
    return found.definition.target if isinstance(found, TaskFunction) else found


def _by_value(definition: Definition) -> bytes:
    try:
        import cloudpickle
    except ImportError:
        dumps, mend = (
            pickle.dumps,
            (
                "; define it at the top of a module, or install cloudpickle, which carries nested"
                " functions (pip install 'gtaskman[cloudpickle]')"
            ),
        )
    else:
        dumps, mend = cloudpickle.dumps, "; define it at the top of a module"
    try:
        return bytes(dumps(definition.target))
    except Exception as error:
        raise TaskTravelError(
            f"task {definition.name} cannot travel to a worker:"
            f" {type(error).__name__}: {error}{mend}"
        ) from error


def main_of_application() -> Main | None:
    """How this process's main module can be imported again; None for a console or ``-c``."""
    main = sys.modules.get(MAIN)
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name:
        return Main(spec.name, None)
    path = getattr(main, "__file__", None)
    if path is None or not os.path.exists(path):
        return None
    return Main(None, os.path.abspath(path))


def know_main() -> None:
    """Know the main module by the name that workers have for it as well.

    They send back instances of its classes under that.
    """
    global _main
    main = sys.modules.get(MAIN)
    if main is not None:
        _main = sys.modules.setdefault(MAIN_IN_WORKER, main)


# --- in a worker ---------------------------------------------------------------------------------


def resolve(reference: Reference, main: Main | None) -> Any:
    """The code that ``reference`` names. Raises whatever importing it raises."""
    if reference.value is not None:
        return unwrap(pickle.loads(reference.value))
    if reference.module == MAIN:
        return unwrap(_look_up(import_main(main), reference.path))
    with importing(f"module {reference.module!r}"):
        module = importlib.import_module(reference.module)
    return unwrap(_look_up(module, reference.path))


def import_main(main: Main | None) -> types.ModuleType:
    """The application's main module, imported once, under a name that keeps its guard shut."""
    global _main
    if _main is not None:
        return _main
    if main is None:
        raise TaskTravelError(
            "the application's main module has no file that a worker could import"
        )
    module = types.ModuleType(MAIN_IN_WORKER)
    with importing(f"the main module {main.name or main.path!r}"):
        if main.name is not None:
            content = runpy.run_module(main.name, run_name=MAIN_IN_WORKER, alter_sys=True)
        else:
            content = runpy.run_path(str(main.path), run_name=MAIN_IN_WORKER)
    module.__dict__.update(content)
    _main = sys.modules[MAIN] = sys.modules[MAIN_IN_WORKER] = module
    return module


def is_main_known() -> bool:
    """Whether this process has the application's main module."""
    return _main is not None
