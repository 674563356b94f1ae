"""What to run: the ``@task`` decorator, the classes ``Task`` and ``AsyncTask``, their registry.

A task is a definition (which code, which kind, which limits), its options, and the terms on which
it waits. This module builds and checks them; it does not know queues, managers or processes.
``submit`` on a task or a task function is a convenience that asks the process's default manager.
"""

from __future__ import annotations

import copy
import functools
import inspect
import itertools
import os
import re
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, ParamSpec, TypeVar, cast, overload

from gtaskman.backoff import Backoff
from gtaskman.context import Current, running
from gtaskman.errors import ConfigurationError, TaskDefinitionError, TaskOptionError
from gtaskman.fields import MISSING, Mismatch, conform, declared, hints_of, own_fields, shown
from gtaskman.report import Progress
from gtaskman.terms import DEFAULT, LONGEST, Terms, fingerprint

if TYPE_CHECKING:
    import datetime

    from gtaskman.handle import TaskHandle

P = ParamSpec("P")
R = TypeVar("R")

KINDS = ("sync", "async", "service")
_definition_numbers = itertools.count(1)
_BACKOFF = Backoff()
# What a worker must know of a definition, as bits: they travel with every order to run one.
ASYNC, ONCE, CLASS = 2, 4, 16
_MOST = 2**31 - 1  # of attempts or crashes: they are counted in four bytes on the pipe
MAX_NAME = 1000  # characters
MAX_ID = 200  # characters: an id is a key in storages and a word in commands


# --- definitions ---------------------------------------------------------------------------------


class Definition:
    """Which code a task runs and under which limits; times in seconds. Not to be changed.

    ``timeout`` ends the task, ``soft_timeout`` warns it with :class:`SoftTimeout`; ``retries`` are
    further attempts after a failure, and ``backoff`` says how long each waits; ``max_crashes``
    workers may die under it; a task that is ``at_most_once`` is rather lost than run twice.
    ``terms`` are those of a call that has none of its own: they are no part of what a worker
    learns, and so of ``number``, which is this process's own.
    """

    def __init__(
        self,
        name: str,
        kind: str,
        target: Any,
        timeout: float | None = None,
        soft_timeout: float | None = None,
        retries: int = 0,
        max_crashes: int | None = None,
        at_most_once: bool = False,
        backoff: Backoff | float = _BACKOFF,
        terms: Terms = DEFAULT,
    ) -> None:
        self.name = name
        self.kind = kind
        self.target = target
        self.timeout = timeout
        self.soft_timeout = soft_timeout
        self.retries = retries
        self.max_crashes = max_crashes
        self.at_most_once = at_most_once
        self.backoff = _backoff(name, backoff)
        self.terms = terms
        self._check()
        self.number = next(_definition_numbers)
        self.is_async = kind == "async"
        self.is_limited = bool(timeout or soft_timeout)
        in_class_form = isinstance(target, type) and issubclass(target, Task)
        self.flags = ASYNC * self.is_async | ONCE * at_most_once | CLASS * in_class_form

    def _check(self) -> None:
        _check_name(self.name)
        if self.kind not in KINDS:
            raise TaskDefinitionError(
                f"{self.name}: kind must be 'sync' or 'async', not {shown(self.kind)}"
            )
        _check_limit(self.name, "timeout", self.timeout)
        _check_limit(self.name, "soft_timeout", self.soft_timeout)
        _check_count(self.name, "retries", self.retries, 0)
        if self.max_crashes is not None:
            _check_count(self.name, "max_crashes", self.max_crashes, 1)
        if self.at_most_once and self.retries:
            raise TaskDefinitionError(
                f"{self.name}: at_most_once=True and retries={self.retries} contradict each other"
            )
        if self.timeout and self.soft_timeout and self.soft_timeout >= self.timeout:
            raise TaskDefinitionError(f"{self.name}: soft_timeout must be shorter than timeout")

    @property
    def module(self) -> str:
        """The module that holds the code."""
        return str(getattr(self.target, "__module__", None) or "builtins")

    def replace(self, **changes: Any) -> Definition:
        """The same code under other limits."""
        unknown = changes.keys() - LIMITS
        if unknown:
            raise _no_option(self.name, sorted(unknown)[0], sorted(LIMITS))
        # Kept, since a worker learns each definition and keeps it: a call's limits are often the
        # same as those of the call before. With the types: True and 1 are equal.
        key = (
            self.number,
            *((name, type(changes[name]), changes[name]) for name in sorted(changes)),
        )
        try:
            changed = _changed.get(key)
        except TypeError:  # a value without a hash, which is refused below
            return self._replace(changes)
        if changed is None:
            changed = self._replace(changes)
            if len(_changed) >= _KEPT:
                _changed.clear()
            _changed[key] = changed
        return changed

    def _replace(self, changes: dict[str, Any]) -> Definition:
        kept = {name: getattr(self, name) for name in ("name", "kind", "target", "terms", *LIMITS)}
        return Definition(**{**kept, **changes})

    def unique_key(self, unique: str | bool, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """The key of a call that is to be ``unique``: what was given, or one made of the call; ""
        if it is not to be. Whether an argument is given by place or by name makes no difference.

        Raises :class:`TaskOptionError` if no key can be made of the arguments.
        """
        if isinstance(unique, str):
            return unique
        return fingerprint(self.name, self._bind(args, kwargs)) if unique else ""

    def _bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if isinstance(self.target, type):
            return args, kwargs
        try:
            return inspect.signature(self.target).bind(*args, **kwargs).arguments
        except (TypeError, ValueError):  # it has no signature, or cannot be called so
            return args, kwargs


_KEPT = 4096  # definitions under other limits that are kept
_changed: dict[tuple[Any, ...], Definition] = {}
LIMITS = ("timeout", "soft_timeout", "retries", "max_crashes", "at_most_once", "backoff")
"""The options of a definition: what holds while a task runs, or decides whether it runs again."""
_TERMS = Terms.__struct_fields__


def _backoff(name: str, value: Any) -> Backoff:
    if isinstance(value, Backoff):
        return value
    try:
        return Backoff.starting_with(value)
    except ConfigurationError:
        raise TaskDefinitionError(
            f"{name}: backoff takes a Backoff or seconds from 0, not {shown(value)}"
        ) from None


def _split(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is a limit (or unknown), and what a term."""
    mine = {name: value for name, value in options.items() if name in _TERMS}
    return {name: value for name, value in options.items() if name not in mine}, mine


def _refuse_unknown(name: str, options: Iterable[str], more: tuple[str, ...] = ()) -> None:
    unknown = set(options) - {*more, *LIMITS, *_TERMS}
    if unknown:
        raise _no_option(name, sorted(unknown)[0], (*more, *LIMITS, *_TERMS))


def _no_option(name: str, option: str, known: Sequence[str]) -> TaskDefinitionError:
    import difflib  # only a mistake needs it

    close = difflib.get_close_matches(option, known, 1)
    hint = f"; did you mean {close[0]!r}?" if close else f" (it has: {', '.join(known)})"
    return TaskDefinitionError(f"{name}: a task has no option {option!r}{hint}")


def _refuse_taken(cls: Any, names: Iterable[str]) -> None:
    taken = [name for name in names if name in cls.taken]
    if taken:
        raise TaskDefinitionError(
            f"{cls.__name__}: {taken[0]!r} cannot be an option, since the base class has an"
            " attribute of that name: give the option another name"
        )


def _default_terms(name: str, inherited: Terms, changes: dict[str, Any]) -> Terms:
    """The terms of a definition; a mistake is one of whoever defines it."""
    try:
        return inherited.replace(**changes)
    except TaskOptionError as error:
        raise TaskDefinitionError(f"{name}: {error}") from None


def _own_terms(name: str, inherited: Terms, changes: dict[str, Any]) -> Terms:
    """The terms of a call."""
    try:
        return inherited.replace(**changes)
    except TaskOptionError as error:
        raise TaskOptionError(f"{name}: {error}", name, error.field) from None


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise TaskDefinitionError(
            f"the name of a task is a printable text of 1 to {MAX_NAME} characters, not"
            f" {shown(name)}: give it another with name="
        )


def _check_limit(name: str, field: str, value: Any) -> None:
    if value is None:
        return
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not 0 < value <= LONGEST:
        raise TaskDefinitionError(
            f"{name}: {field} takes seconds above 0 and up to {LONGEST:,.0f} (None: no limit), not"
            f" {shown(value)}"
        )


def _check_count(name: str, field: str, value: Any, low: int) -> None:
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if not is_whole or not low <= value <= _MOST:
        raise TaskDefinitionError(
            f"{name}: {field} takes a number from {low} to {_MOST:,}, not {shown(value)}"
        )


# --- the registry of names -----------------------------------------------------------------------

registry: dict[str, Definition] = {}


def register(definition: Definition) -> None:
    """Make ``definition`` known by its name; raises if other code has that name already."""
    known = registry.get(definition.name)
    if known is not None and _origin(known.target) != _origin(definition.target):
        raise TaskDefinitionError(
            f"two tasks claim the name {definition.name!r}: {'.'.join(_origin(known.target))} and"
            f" {'.'.join(_origin(definition.target))}; give one of them another with name="
        )
    registry[definition.name] = definition


def _origin(target: Any) -> tuple[str, str]:
    module = str(getattr(target, "__module__", ""))
    return _plain(module), str(getattr(target, "__qualname__", target))


def _plain(module: str) -> str:
    # The main module goes by another name in workers, so that its guarded part does not run.
    return "__main__" if module == "__mp_main__" else module


def name_of(target: Any) -> str:
    """The name that code has unless it is given one: its module and its path therein."""
    return ".".join(_origin(target))


# --- ids -----------------------------------------------------------------------------------------

_ids = itertools.count(1)
_prefix = ""


def _renew_prefix() -> None:
    global _prefix
    _prefix = os.urandom(8).hex() + "-"


_renew_prefix()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_prefix)


def fresh_id() -> str:
    """An id that no other task has, in this process or elsewhere."""
    return _prefix + str(next(_ids))


def check_id(task_id: Any, name: str) -> str:
    """``task_id`` if it can be one, else :class:`TaskOptionError`."""
    if not isinstance(task_id, str) or not 0 < len(task_id) <= MAX_ID or not task_id.isprintable():
        raise TaskOptionError(
            f"{name}: id takes a printable text of 1 to {MAX_ID} characters, not {shown(task_id)}",
            name,
            "id",
        )
    return task_id


# --- submitting ----------------------------------------------------------------------------------


def _submit(*_args: Any, **_kwargs: Any) -> TaskHandle:
    raise TaskDefinitionError("no default manager is known: import gtaskman")


def submitted_by(submit: Callable[..., TaskHandle]) -> None:
    """Say who takes what is submitted here: tasks lie below everything that runs them."""
    global _submit
    _submit = submit


# --- task objects --------------------------------------------------------------------------------


class Task:
    """A task in class form: annotate its options, write ``run``.

    ::

        class Multiply(gtaskman.Task, timeout=5):
            number1: float
            number2: float = 1

            def run(self, progress):
                return self.number1 * self.number2

        gtaskman.submit(Multiply(number1=5, number2=10)).get()

    Limits (``timeout``, ``soft_timeout``, ``retries``, ``backoff``, ``max_crashes``,
    ``at_most_once``), terms (``priority``, ``delay``, ``eta``, ``unique``, ``ttl``, ``result_ttl``,
    ``queue``) and a ``name`` go in the class statement, see :func:`task`. Building one with a
    wrong, missing or unknown option raises :class:`TaskOptionError`, which names it. ``id`` names
    the task; else it gets a fresh one.
    """

    definition: ClassVar[Definition]
    terms: ClassVar[Terms] = DEFAULT
    kind: ClassVar[str] = "sync"
    taken: ClassVar[frozenset[str]] = frozenset()
    id: str

    def __init_subclass__(cls, *, name: str | None = None, **options: Any) -> None:
        super().__init_subclass__()
        _refuse_unknown(cls.__name__, options, ("name",))
        _refuse_taken(cls, own_fields(cls))
        limits, own = _split(options)
        inherited = getattr(cls, "definition", None)
        if inherited is not None:
            limits = {field: getattr(inherited, field) for field in LIMITS} | limits
        name = name or name_of(cls)
        cls.terms = _default_terms(name, cls.terms, own)
        cls.definition = Definition(name=name, kind=cls.kind, target=cls, terms=cls.terms, **limits)
        if "run" in cls.__dict__ and cls.__module__ != __name__:
            check_code(cls.__dict__["run"])
            register(cls.definition)

    def __init__(self, *args: Any, id: str | None = None, **options: Any) -> None:
        name = self.definition.name
        if args:
            raise TaskOptionError(f"{name} takes its options by name only", name)
        self.__dict__.update(_fit_options(type(self), name, options))
        self.id = fresh_id() if id is None else check_id(id, name)

    def run(self, progress: Progress) -> Any:  # noqa: ARG002 - for those who override it
        """Do the work. What it returns is the task's result; what it raises, its failure."""
        raise TaskDefinitionError(f"{self.definition.name} has no run(self, progress) method")

    def __call__(self) -> Any:
        """Run it right here, in the caller."""
        return self.run(Progress())

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The positional and keyword arguments that travel."""
        return (), {name: self.__dict__[name] for name in _declared(type(self))}

    @classmethod
    def revive(cls, task_id: str, options: dict[str, Any]) -> Task:
        """The task again, in the process that runs it; its options were checked before."""
        task = cls.__new__(cls)
        task.__dict__.update(options)
        task.id = task_id
        return task

    @classmethod
    def perform(cls, run: Any, _args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Be the task that ``run`` orders, in the worker that runs it, and run."""
        return cls.revive(run.id, options).run(run.current().progress)

    def with_options(self, **options: Any) -> Task:
        """This task under other limits or terms, such as ``timeout=5, delay=10``.

        Raises :class:`TaskDefinitionError` for a limit, and :class:`TaskOptionError` for a term
        that makes no sense.
        """
        limits, own = _split(options)
        under = _own_terms(self.definition.name, self.terms, own) if own else self.terms
        if limits:
            self.__dict__["definition"] = self.definition.replace(**limits)
        self.__dict__["terms"] = under
        return self

    def submit(self) -> TaskHandle:
        """Submit it to the process's default manager."""
        return _submit(self)

    def __repr__(self) -> str:
        args, kwargs = self.arguments()
        given = [shown(value) for value in args] + [f"{k}={shown(v)}" for k, v in kwargs.items()]
        return (
            f"<{type(self).__name__} {self.definition.name}({', '.join(given):.200}) id={self.id}>"
        )


def names_of(cls: type) -> frozenset[str]:
    """Names that an option would hide: what every task of this make has, whatever it adds."""
    return frozenset(name for name in dir(cls) if not name.startswith("_")) | {"id", "definition"}


Task.taken = names_of(Task)


class AsyncTask(Task):
    """A task in class form that runs as a greenlet beside others in one worker."""

    kind = "async"


_fields: weakref.WeakKeyDictionary[type[Task], dict[str, tuple[Any, Any]]] = (
    weakref.WeakKeyDictionary()
)


def _declared(cls: type[Task]) -> dict[str, tuple[Any, Any]]:
    """The options of a task class, found out once: annotations may be known only after it is."""
    known = _fields.get(cls)
    if known is not None:
        return known
    fields = declared(cls, Task)
    _refuse_taken(cls, fields)
    _fields[cls] = fields
    return fields


def _fit_options(cls: type[Task], name: str, options: dict[str, Any]) -> dict[str, Any]:
    fields = _declared(cls)
    for option in options:
        if option not in fields:
            known = ", ".join(fields) or "none"
            raise TaskOptionError(
                f"{name} has no option {option!r} (it has: {known})", name, option
            )
    fitted = {}
    for field, (annotation, default) in fields.items():
        value = options[field] if field in options else _own_copy(default)
        if value is MISSING:
            raise TaskOptionError(f"{name} needs the option {field!r}", name, field)
        fitted[field] = _fit(name, field, value, annotation)
    return fitted


def _own_copy(default: Any) -> Any:
    """A default for one task: what one changes in its own is not to be another's default."""
    return copy.deepcopy(default) if type(default) in (list, dict, set, bytearray) else default


def _fit(name: str, field: str, value: Any, annotation: Any) -> Any:
    try:
        return conform(value, annotation)
    except Mismatch as mismatch:
        raise TaskOptionError(f"{name}: option {field!r}: {mismatch}", name, field) from None


def call(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Call ``function``: the code of tasks whose own code travels as an argument."""
    return function(*args, **kwargs)


class FunctionTask(Task):
    """A call of a task function, made first and submitted later."""

    def __init__(
        self,
        definition: Definition,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        id: str | None = None,
        terms: Terms | None = None,
    ) -> None:
        self.__dict__["definition"] = definition
        self.__dict__["terms"] = definition.terms if terms is None else terms
        self.args = args
        self.kwargs = kwargs
        self.id = fresh_id() if id is None else check_id(id, definition.name)

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The positional and keyword arguments of the call."""
        return self.args, self.kwargs

    def run(self, progress: Progress) -> Any:
        """Call the function right here."""
        mine = Current(self.id, self.definition.name, 1, None, progress)
        token = running.set(mine)
        try:
            return self.definition.target(*self.args, **self.kwargs)
        finally:
            running.reset(token)


# --- task functions ------------------------------------------------------------------------------


class TaskFunction(Generic[P, R]):
    """A function that is also a task: what ``@gtaskman.task`` gives.

    Called, it runs right here. ``submit`` hands it to the default manager, ``task`` makes the task
    object without submitting it. Arguments are checked against the signature, and where they are
    annotated against the annotation; they are passed on as they are.
    """

    def __init__(self, definition: Definition, validate: bool = True) -> None:
        functools.update_wrapper(self, definition.target)
        self.definition = definition
        self.terms = definition.terms
        self._signature = _Signature(definition.name, definition.target, validate)

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return cast(R, self.definition.target(*args, **kwargs))

    def check(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Raise :class:`TaskOptionError` unless the function can be called so."""
        self._signature.check(args, kwargs)

    def task(self, /, *args: P.args, **kwargs: P.kwargs) -> FunctionTask:
        """The task of this call, to be submitted later."""
        self._signature.check(args, kwargs)
        return FunctionTask(self.definition, args, kwargs, None, self.terms)

    def with_id(self, id: str, /, *args: P.args, **kwargs: P.kwargs) -> FunctionTask:
        """The task of this call with an id of the caller's."""
        self._signature.check(args, kwargs)
        return FunctionTask(self.definition, args, kwargs, id, self.terms)

    def submit(self, /, *args: P.args, **kwargs: P.kwargs) -> TaskHandle:
        """Submit this call to the process's default manager."""
        return _submit(self, *args, **kwargs)

    def with_options(self, **options: Any) -> TaskFunction[P, R]:
        """The same function under other limits or terms, such as ``timeout=5, delay=10``.

        Other terms cost next to nothing; other limits are a definition of their own, which each
        worker learns once. Raises :class:`TaskDefinitionError` for a limit, and
        :class:`TaskOptionError` for a term that makes no sense.
        """
        limits, own = _split(options)
        changed: TaskFunction[P, R] = object.__new__(type(self))
        changed.__dict__.update(self.__dict__)
        if own:
            changed.terms = _own_terms(self.definition.name, self.terms, own)
        if limits:
            changed.definition = self.definition.replace(**limits)
        return changed

    def __reduce__(self) -> Any:
        # As an argument of another task it travels by name, like a plain function.
        return str(self.definition.target.__qualname__)

    def __repr__(self) -> str:
        return f"<task {self.definition.name} ({self.definition.kind})>"


class _Signature:
    """How a function may be called; cheap to ask when there is little to check."""

    def __init__(self, name: str, function: Any, validate: bool) -> None:
        self._name = name
        self._signature = inspect.signature(function)
        self._hints = self._resolve(function) if validate else {}
        self._low, self._high = self._positional()
        # What stands at which place, for calls by position: binding them takes three times as long.
        self._places = [
            (name, self._hints.get(name, Any))
            for name, parameter in self._signature.parameters.items()
            if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        ]

    def _resolve(self, function: Any) -> dict[str, Any]:
        parameters = self._signature.parameters
        return {
            name: hint
            for name, hint in hints_of(function).items()
            if name in parameters
            and hint is not Any
            and parameters[name].kind
            not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        }

    def _positional(self) -> tuple[int, float]:
        """How few and how many positional arguments alone make a call; (1, 0) if none do."""
        low, high = 0, 0.0
        for parameter in self._signature.parameters.values():
            required = parameter.default is parameter.empty
            if parameter.kind is parameter.VAR_POSITIONAL:
                high = float("inf")
            elif parameter.kind is parameter.KEYWORD_ONLY and required:
                return 1, 0
            elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
                high += 1
                low += required
        return low, high

    def check(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not kwargs and self._low <= len(args) <= self._high:
            if not self._hints:
                return
            if len(args) <= len(self._places):
                for value, (name, hint) in zip(args, self._places, strict=False):
                    if type(value) is not hint and hint is not Any:
                        _fit(self._name, name, value, hint)
                return
        try:
            bound = self._signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            quoted = re.search(r"'([^']+)'", str(error))
            field = quoted.group(1) if quoted else None
            raise TaskOptionError(
                f"{self._name}{self._signature}: {error}", self._name, field
            ) from None
        for field, hint in self._hints.items():
            if field in bound:
                _fit(self._name, field, bound[field], hint)


@overload
def task(function: Callable[P, R], /) -> TaskFunction[P, R]: ...


@overload
def task(
    *,
    name: str | None = None,
    kind: str = "sync",
    timeout: float | None = None,
    soft_timeout: float | None = None,
    retries: int = 0,
    backoff: Backoff | float = _BACKOFF,
    max_crashes: int | None = None,
    at_most_once: bool = False,
    validate: bool = True,
    queue: str = "default",
    priority: int = 0,
    delay: float = 0.0,
    eta: datetime.datetime | float | None = None,
    unique: str | bool = False,
    ttl: float | None = None,
    result_ttl: float | None = None,
) -> Callable[[Callable[P, R]], TaskFunction[P, R]]: ...


def task(
    function: Callable[P, R] | None = None,
    /,
    *,
    name: str | None = None,
    kind: str = "sync",
    validate: bool = True,
    **options: Any,
) -> Any:
    """Make a function a task.

    ``kind`` is ``"sync"`` (a worker process to itself) or ``"async"`` (a greenlet beside others);
    ``validate=False`` leaves annotations unchecked.

    Limits: ``timeout`` and ``soft_timeout`` are seconds from its start; ``retries`` further
    attempts after a failure, each after a ``backoff`` (a :class:`Backoff`, or the seconds of its
    first wait); ``max_crashes`` the workers that may die under it; ``at_most_once=True`` for work
    that must rather be lost than done twice.

    Terms, in the stead of which a call may have its own (:meth:`TaskFunction.with_options`):
    those of a higher ``priority`` (-100 to 100) go first; it waits ``delay`` seconds, or until
    ``eta`` (an aware datetime, or seconds since the epoch); of those with one ``unique`` key (a
    text, or True for its name and arguments) only one waits or runs at a time; it must start
    within ``ttl`` seconds from when it is due; its last report is kept for ``result_ttl`` seconds;
    ``queue`` is the name of the queue that it goes to.

    Raises :class:`TaskDefinitionError` for an option that makes no sense.
    """
    if function is None:
        return functools.partial(task, name=name, kind=kind, validate=validate, **options)
    known_as = name or name_of(function)
    _refuse_unknown(known_as, options, ("name", "kind", "validate"))
    check_code(function)
    _refuse_method(function)
    limits, own = _split(options)
    under = _default_terms(known_as, DEFAULT, own)
    definition = Definition(name=known_as, kind=kind, target=function, terms=under, **limits)
    register(definition)
    return TaskFunction(definition, validate)


def refuse_coroutines(function: Any) -> None:
    """Raise :class:`TaskDefinitionError` for a function that a call would not run."""
    called = (
        function
        if inspect.isroutine(function)
        else inspect.getattr_static(type(function), "__call__", None)
    )
    for each in (function, called):
        if inspect.iscoroutinefunction(each) or inspect.isasyncgenfunction(each):
            name = name_of(function if hasattr(function, "__qualname__") else type(function))
            raise TaskDefinitionError(
                f"{name} is a coroutine function: under gevent, write it as a plain function that"
                " blocks, and give it kind='async' to share a worker"
            )


def _refuse_method(function: Any) -> None:
    """Raise :class:`TaskDefinitionError` for a method: a task has no instance to call it on."""
    *_, owner, name = ["", *str(getattr(function, "__qualname__", "")).split(".")]
    first = next(iter(inspect.signature(function).parameters), None)
    if owner not in ("", "<locals>") and first in ("self", "cls"):
        raise TaskDefinitionError(
            f"{name_of(function)} is a method, and a task has no {first!r} to call it on: make it a"
            f" function that takes the object as an argument, derive {owner} from gtaskman.Task and"
            " write run(self, progress), or leave out @task and submit the bound method:"
            f" submit(x.{name})"
        )


def check_code(function: Any) -> None:
    """Raise :class:`TaskDefinitionError` for what cannot be the code of a task."""
    refuse_coroutines(function)
    if not callable(function) or inspect.isclass(function):
        raise TaskDefinitionError(
            f"@task takes a function, not {shown(function)}; derive a class from gtaskman.Task"
        )
