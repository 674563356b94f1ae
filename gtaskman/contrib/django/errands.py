"""What ``offload`` has a worker do. To be imported where Django is set up, or may be.

A worker imports this module before it unpickles what it is called with, models for one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from django.db import connections
from django.db.models import QuerySet
from django.db.models.query import RawQuerySet

from gtaskman.contrib.django.connections import cared_for
from gtaskman.contrib.django.loading import set_up
from gtaskman.contrib.django.parcels import Parcel, RawParcel, packed

set_up()

Names = Mapping[str, Any]
"""The name of each database, by its alias: tests give them other ones while they run."""


def names() -> Names:
    """Those of this process."""
    return {alias: connections.settings[alias]["NAME"] for alias in connections}


def call(known: Names, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Call ``function``; rows that it has not fetched are fetched here."""
    with cared_for():
        _adopt(known)
        result = function(*args, **kwargs)
        return list(result) if isinstance(result, (QuerySet, RawQuerySet)) else result


def ask(known: Names, parcel: Parcel, method: str, args: Any, kwargs: Any) -> Any:
    """Call a method of a query set."""
    with cared_for():
        _adopt(known)
        return packed(getattr(parcel.open(), method)(*args, **kwargs))


def rows(known: Names, parcel: Parcel | RawParcel) -> list[Any]:
    """Run a query."""
    with cared_for():
        _adopt(known)
        return list(parcel.open())


def _adopt(known: Names) -> None:
    """Use the databases that the application uses right now."""
    for alias, name in known.items():
        settings = connections.settings[alias]
        if settings["NAME"] != name:
            connections[alias].close()
            settings["NAME"] = name
