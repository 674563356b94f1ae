"""The definitions of whatever is submitted, decorated or not."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

from gtaskman.errors import TaskDefinitionError, TaskOptionError
from gtaskman.fields import shown
from gtaskman.reference import Reference, is_held
from gtaskman.task import (
    Definition,
    Task,
    TaskFunction,
    call,
    fresh_id,
    name_of,
    refuse_coroutines,
)
from gtaskman.terms import Terms

_PLAIN = (types.FunctionType, types.BuiltinFunctionType, type)
_KEPT = 4096  # definitions of plain functions that are kept


class Elsewhere:
    """The target of a definition whose code this process need not have: its workers find it."""

    def __init__(self, reference: Reference) -> None:
        self.reference = reference
        self.__module__ = reference.module
        self.__qualname__ = reference.path


class Definitions:
    """What is remembered of callables that were submitted without being tasks."""

    def __init__(self) -> None:
        self._functions: dict[Callable[..., Any], Definition] = {}
        self._carried: dict[str, Definition] = {}

    def of(self, function: Any) -> tuple[Definition, tuple[Any, ...]]:
        """The definition of a task function, or of any callable under default options.

        Functions that a module holds are found there by their workers. Whatever else can be called
        (a lambda, a bound method, a partial) is an argument of its own task, and given beside the
        definition: what it holds travels as it is now. Raises :class:`TaskDefinitionError`.
        """
        try:
            known = self._functions.get(function)
        except TypeError:
            known = None  # a callable without a hash, and so none that is kept
        if known is not None:
            return known, ()
        if isinstance(function, TaskFunction):
            return function.definition, ()
        check_callable(function)
        if is_held(function):
            definition = Definition(name=name_of(function), kind="sync", target=function)
            if isinstance(function, _PLAIN):
                _keep(self._functions, function, definition)
            return definition, ()
        name = name_of(function if hasattr(function, "__qualname__") else type(function))
        definition = self._carried.get(name) or Definition(name=name, kind="sync", target=call)
        _keep(self._carried, name, definition)
        return definition, (function,)

    def call(
        self, task: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[str, Definition, tuple[Any, ...], dict[str, Any], Terms]:
        """What is submitted with these arguments: the id, the definition, the arguments that
        travel, and the terms.

        Raises :class:`TaskOptionError` and :class:`TaskDefinitionError`.
        """
        if isinstance(task, Task):
            if args or kwargs:
                raise TaskOptionError(
                    f"{task.definition.name} is a task that was built with its options: submit it"
                    " without further arguments",
                    task.definition.name,
                )
            return task.id, task.definition, *task.arguments(), task.terms
        definition, carried = self.of(task)
        if carried:
            args = carried + args
        return fresh_id(), definition, args, kwargs, definition.terms


def check_callable(function: Any) -> None:
    """Raise :class:`TaskDefinitionError` for what nobody can call, and for a bare task class."""
    if isinstance(function, type) and issubclass(function, Task):
        raise TaskDefinitionError(
            f"{function.__qualname__} is a task class: build it with its options, then submit that"
        )
    if not callable(function):
        raise TaskDefinitionError(
            f"submit takes a task, a task function or a callable, not {shown(function)}"
        )
    refuse_coroutines(function)


def _keep(known: dict[Any, Definition], key: Any, definition: Definition) -> None:
    """Keep a definition for the next submit; not for ever, should there be ever new ones."""
    if len(known) >= _KEPT:
        known.clear()
    known[key] = definition
