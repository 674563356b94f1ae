"""``offload``: queries, and whatever else blocks in a database driver, in a worker.

::

    offload(queryset) -> Offloaded -- filter(), order_by(), ... -> Offloaded       nothing is run
                             |
             get(), count(), list(), ... -> parcel -> worker -> rows, with errors as Django's own

A driver written in C knows nothing of gevent: while it waits for the database, so does the hub,
and everybody else with it. The caller's greenlet waits here instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from django.db import connections, router
from django.db.models import QuerySet
from django.db.models.base import ModelBase
from django.db.models.manager import BaseManager
from django.db.models.query import RawQuerySet

from gtaskman.contrib.django import managers, settings
from gtaskman.contrib.django.connections import in_worker
from gtaskman.contrib.django.parcels import Parcel, RawParcel
from gtaskman.errors import (
    ConfigurationError,
    GTaskmanError,
    RemoteTraceback,
    TaskFailed,
    TaskTravelError,
    WaitTimeout,
)

# What only describes a query, and so is done right here.
_DESCRIBING = frozenset({
    "alias", "all", "annotate", "complex_filter", "dates", "datetimes", "defer", "difference",
    "distinct", "exclude", "extra", "fetch_mode", "filter", "intersection", "none", "only",
    "order_by", "prefetch_related", "reverse", "select_for_update", "select_related", "union",
    "using", "values", "values_list",
})  # fmt: skip
_WRITING = frozenset({
    "bulk_create", "bulk_update", "create", "delete", "get_or_create", "update",
    "update_or_create",
})  # fmt: skip
_READING = frozenset({
    "__getitem__", "aggregate", "contains", "count", "earliest", "exists", "explain", "first",
    "get", "in_bulk", "last", "latest",
})  # fmt: skip
# What a relation's manager does in another way than its query set: it fills in the other side.
_RELATING = frozenset({"bulk_create", "create", "get_or_create", "update_or_create"})
_PLAIN = frozenset({"model", "query", "db", "ordered", "totally_ordered"})


class AtomicBlockError(GTaskmanError):
    """Raised when something is to be offloaded inside a transaction, of which a worker sees
    nothing."""


def offload(
    target: Any,
    /,
    *args: Any,
    timeout: float | None = None,
    in_atomic: str | None = None,
    **kwargs: Any,
) -> Any:
    """Have a worker do what would block the hub.

    A query set, a model or a manager gives an :class:`Offloaded` query set, a raw query its rows.
    Anything else is called in a worker, with ``args`` and ``kwargs``, and what it returns is given
    here: writes and whole transactions go so.

    After ``timeout`` seconds, in which it may have waited for a worker as well, it is cancelled,
    and :class:`WaitTimeout` raised, which is a ``TimeoutError``. Inside an atomic block
    ``in_atomic`` says what happens, since the worker has another connection, and sees nothing of
    what was done in this one: ``"error"`` raises :class:`AtomicBlockError`, ``"inline"`` does it
    right here, ``"allow"`` does it in a worker all the same; without it, ``GTASKMAN["in_atomic"]``
    holds. In a worker, and with the eager manager of a test, it is always done right there.

    Other errors are those of the query or the function themselves, with the worker's traceback as
    their cause; else :class:`WorkerCrashed`, :class:`TaskFailed` or :class:`PayloadError`.
    """
    terms = Terms(timeout, settings.check_in_atomic(in_atomic or settings.in_atomic()))
    if isinstance(target, ModelBase):
        target = target._default_manager
    is_relation = isinstance(target, BaseManager) and hasattr(target, "instance")
    if isinstance(target, BaseManager):
        target = target.get_queryset()
    if isinstance(target, QuerySet | RawQuerySet | Offloaded):
        _refuse_arguments(args, kwargs)
    if isinstance(target, Offloaded):
        return Offloaded(target.queryset, terms)
    if isinstance(target, QuerySet):
        return Offloaded(target, terms, is_relation)
    if isinstance(target, RawQuerySet):
        return _raw(target, terms)
    if not callable(target):
        raise TaskTravelError(
            f"offload takes a query set, a model, a manager or a callable, not {target!r:.80}"
        )
    return _call(target, args, kwargs, terms)


def _refuse_arguments(args: Any, kwargs: Any) -> None:
    if args or kwargs:
        raise TaskTravelError(
            "offload takes no further arguments with a query: only what is called has some"
        )


class Terms(NamedTuple):
    """How one caller waits, and what is to be done inside a transaction."""

    timeout: float | None
    in_atomic: str

    def is_inline(self, aliases: Sequence[str]) -> bool:
        """Whether it is to be done right here, with these databases.

        Raises :class:`AtomicBlockError` inside a transaction, if it is to.
        """
        if in_worker() or managers.is_eager():
            return True
        held = [
            each.alias
            for each in connections.all(initialized_only=True)
            if each.alias in aliases and each.in_atomic_block
        ]
        if not held or self.in_atomic == "allow":
            return False
        if self.in_atomic == "inline":
            return True
        raise AtomicBlockError(
            f"offload inside an atomic block of the database {held[0]!r}: the worker has a"
            " connection of its own and sees nothing of this transaction. Call it before or after"
            " the block, or put the whole block into a function and offload that; or give"
            " in_atomic='inline' to do it right here, 'allow' if it does not matter"
        )


class Offloaded(Sequence[Any]):
    """A query set whose queries run in a worker.

    ``filter``, ``exclude``, ``order_by``, ``values_list``, slices and the like give another one,
    and run nothing. ``get``, ``first``, ``last``, ``count``, ``exists``, ``aggregate``,
    ``in_bulk``, ``create``, ``update``, ``delete`` and all other methods, a model's own as well,
    run in a worker. Iterating over it, its length, its truth and its items fetch all rows at once,
    in one go, and keep them, as a query set does.
    """

    def __init__(self, queryset: Any, terms: Terms, is_relation: bool = False) -> None:
        self.queryset = queryset
        self._terms = terms
        self._is_relation = is_relation
        self._rows: list[Any] | None = queryset._result_cache

    def rows(self) -> list[Any]:
        """All rows; fetched if they were not yet."""
        if self._rows is None:
            self._rows = _rows(self.queryset, self._terms)
        return self._rows

    def iterator(self, *_args: Any, **_kwargs: Any) -> Iterator[Any]:
        """All rows, fetched anew and not kept here; in one go, whatever the chunk size."""
        return iter(_rows(self.queryset, self._terms))

    def __iter__(self) -> Iterator[Any]:
        return iter(self.rows())

    def __len__(self) -> int:
        return len(self.rows())

    def __getitem__(self, place: Any) -> Any:
        if self._rows is not None:
            return self._rows[place]
        if not isinstance(place, slice):
            return self._ask("__getitem__", (place,), {})
        if place.step is not None:
            return self.rows()[place]  # a query set would fetch them as well
        return Offloaded(self.queryset[place], self._terms)

    def __contains__(self, value: Any) -> bool:
        return value in self.rows()

    # A sequence has these two, with another meaning.

    def count(self) -> int:  # type: ignore[override] # a query set's, not a list's
        """How many rows there are."""
        return int(self._ask("count", (), {}))

    def index(self, *_args: Any) -> int:
        """Not what query sets have."""
        raise AttributeError("a query set has no method 'index'")

    def __and__(self, other: Any) -> Offloaded:
        return Offloaded(self.queryset & _plain(other), self._terms)

    def __or__(self, other: Any) -> Offloaded:
        return Offloaded(self.queryset | _plain(other), self._terms)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        found = getattr(self.queryset, name)
        if name in _PLAIN or not callable(found):
            return found

        def method(*args: Any, **kwargs: Any) -> Any:
            args = tuple(map(_plain, args))
            kwargs = {key: _plain(value) for key, value in kwargs.items()}
            if name in _DESCRIBING:
                return Offloaded(found(*args, **kwargs), self._terms)
            return self._ask(name, args, kwargs)

        method.__name__ = name
        return method

    def _ask(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._is_relation and method in _RELATING:
            raise TaskTravelError(
                f"{method}() of a relation cannot be offloaded: the object at its other side would"
                " not be filled in. Offload a function that calls it"
            )
        queryset, using = self.queryset, self._database(method)
        aliases = [using] if using else [queryset.db, _written(queryset)]
        if self._terms.is_inline(aliases):
            given = getattr(queryset._chain(), method)(*args, **kwargs)
        else:
            parcel = Parcel.of(queryset, using)
            given = _run("ask", self._terms, aliases, parcel, method, args, kwargs)
        if isinstance(given, Parcel):
            given = given.open()
        return Offloaded(given, self._terms) if isinstance(given, QuerySet) else given

    def _database(self, method: str) -> str | None:
        """Where it goes, as the routers here have it; None if only the method itself knows."""
        if method in _READING:
            return str(self.queryset.db)
        return _written(self.queryset) if method in _WRITING else self.queryset._db

    def __repr__(self) -> str:
        state = "not fetched" if self._rows is None else f"{len(self._rows)} rows"
        return f"<Offloaded {self.queryset.model._meta.label}, {state}>"


def _plain(value: Any) -> Any:
    """The query set itself, of an offloaded one that is part of another."""
    return value.queryset if isinstance(value, Offloaded) else value


def _written(queryset: Any) -> str:
    """The database that the query set would write to."""
    return str(queryset._db or router.db_for_write(queryset.model, **queryset._hints))


# --- what is done, here or in a worker -----------------------------------------------------------


def _rows(queryset: Any, terms: Terms) -> list[Any]:
    alias = queryset.db
    if terms.is_inline([alias]):
        return list(queryset._chain())
    rows: list[Any] = _run("rows", terms, [alias], Parcel.of(queryset, alias))
    return rows


def _raw(raw: RawQuerySet, terms: Terms) -> list[Any]:
    if terms.is_inline([raw.db]):
        return list(raw)
    rows: list[Any] = _run("rows", terms, [raw.db], RawParcel.of(raw))
    return rows


def _call(function: Callable[..., Any], args: Any, kwargs: Any, terms: Terms) -> Any:
    if terms.is_inline(list(connections)):
        return function(*args, **kwargs)
    return _run("call", terms, list(connections), function, args, kwargs)


def _run(errand: str, terms: Terms, aliases: Sequence[str], *args: Any) -> Any:
    # Imported now that Django is set up: it would do that itself, as it does in workers.
    from gtaskman.contrib.django import errands

    _refuse_in_memory(aliases)
    manager = managers.manager_nearby()
    handle = manager.submit(getattr(errands, errand), errands.names(), *args)
    return _awaited(handle, terms.timeout)


def _refuse_in_memory(aliases: Sequence[str]) -> None:
    for alias in aliases:
        engine = connections.settings[alias]["ENGINE"]
        if engine.endswith("sqlite3") and connections[alias].is_in_memory_db():
            raise ConfigurationError(
                f"the database {alias!r} is in the memory of this process, where no worker can"
                " reach it: give it a file (in tests: DATABASES[...]['TEST'] = {'NAME': path}), or"
                " offload nothing (GTASKMAN = {'in_atomic': 'inline'} inside of transactions)"
            )


def _awaited(handle: Any, timeout: float | None) -> Any:
    """The result; nothing goes on for a caller who has gone."""
    try:
        return handle.get(timeout)
    except TaskFailed as failed:
        cause = failed.__cause__
        if cause is None or isinstance(cause, RemoteTraceback):
            raise
        error = cause
    except WaitTimeout:
        handle.cancel("its caller has waited for long enough")
        raise WaitTimeout(
            f"what was offloaded has not ended within {timeout:g} s, and is cancelled"
        ) from None
    except BaseException:
        handle.cancel("its caller waits no more")
        raise
    raise error
