"""``Parcel``: a query set on its way to a worker, or back, without being evaluated.

Django's own pickle of a query set would run the query first, which is the very thing to be had
elsewhere.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from django.db.models import QuerySet
from django.db.models.query import RawQuerySet


class Parcel(NamedTuple):
    """A query set as its class and its state."""

    make: type[Any]
    state: dict[str, Any]

    @classmethod
    def of(cls, queryset: Any, using: str | None = None) -> Parcel:
        """Pack it, bound to the database ``using`` if that is given."""
        clone = queryset._chain()
        clone.query  # noqa: B018 - a filter that was put off is applied now
        state = {**clone.__dict__, "_result_cache": None, "_prefetch_done": False}
        if using is not None:
            state["_db"] = using
        return cls(type(queryset), state)

    def open(self) -> Any:
        """The query set."""
        queryset: Any = object.__new__(self.make)
        queryset.__dict__.update(self.state)
        return queryset


class RawParcel(NamedTuple):
    """A raw query: its text, with what it maps to what."""

    sql: str
    model: type[Any]
    params: Any
    translations: dict[str, str]
    using: str

    @classmethod
    def of(cls, raw: RawQuerySet) -> RawParcel:
        """Pack it, bound to its database."""
        return cls(raw.raw_query, raw.model, raw.params, raw.translations, raw.db)

    def open(self) -> RawQuerySet:
        """The raw query set."""
        return RawQuerySet(
            self.sql,
            model=self.model,
            params=self.params,
            translations=self.translations,
            using=self.using,
        )


def packed(value: Any) -> Any:
    """What a query gave, as it may travel: rows as a list, a query set unevaluated."""
    if isinstance(value, QuerySet):
        return Parcel.of(value)
    if isinstance(value, RawQuerySet):
        return list(value)
    return value
