"""Which values a codec carries without an annotation, and how two values differ.

Pure: values in, an answer or a text out. Sealing asks these before anything travels, so that
nothing arrives as something else.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import math
from collections.abc import Collection, Iterable
from typing import Any

from gtaskman.envelope.codec import Codec

LIST = frozenset({list})
# A tuple without an annotation arrives as a list: the one change that is made without a word.
LIST_OR_TUPLE = frozenset({list, tuple})
_SCALARS = frozenset({str, int, float, bool, type(None), bytes})


def is_plain(value: Any, codec: Codec, sequences: frozenset[type] = LIST_OR_TUPLE) -> bool:
    """Whether ``codec`` carries ``value`` by itself: its own types to the bottom, no subclasses."""
    kind = type(value)
    if kind in codec.scalars:
        return True
    if kind in sequences:
        return _all_plain(value, codec, sequences)
    if kind is dict:
        keys_fit = codec.keys.issuperset(map(type, value))
        return keys_fit and _all_plain(value.values(), codec, sequences)
    return False


def _all_plain(values: Collection[Any], codec: Codec, sequences: frozenset[type]) -> bool:
    # Flat ones, the most by far, are looked through without a step of Python for each value.
    if codec.scalars.issuperset(map(type, values)):
        return True
    return all(is_plain(value, codec, sequences) for value in values)


def first_foreign(value: Any, codec: Codec, path: str = "") -> tuple[str, Any] | None:
    """Where in ``value`` the first thing lies that is not plain, and that thing; None if none.

    For a dict whose keys are not plain, the thing is the dict itself.
    """
    kind = type(value)
    if kind in codec.scalars:
        return None
    if kind is dict:
        if not codec.keys.issuperset(map(type, value)):
            return path, value
        return _first(((f"{path}[{shown(key)}]", item) for key, item in value.items()), codec)
    if kind in LIST_OR_TUPLE:
        return _first(((f"{path}[{place}]", item) for place, item in enumerate(value)), codec)
    return path, value


def _first(items: Iterable[tuple[str, Any]], codec: Codec) -> tuple[str, Any] | None:
    for path, item in items:
        found = first_foreign(item, codec, path)
        if found is not None:
            return found
    return None


def first_not_finite(value: Any, path: str = "") -> tuple[str, float] | None:
    """Where in a plain value a NaN or an infinity lies, which JSON cannot write."""
    kind = type(value)
    if kind is float:
        return None if math.isfinite(value) else (path, value)
    items: Iterable[tuple[Any, Any]]
    if kind is dict:
        items = value.items()
    elif kind in LIST_OR_TUPLE:
        items = enumerate(value)
    else:
        return None
    for key, item in items:
        found = first_not_finite(item, f"{path}[{shown(key)}]")
        if found is not None:
            return found
    return None


def difference(sent: Any, arrived: Any, path: str = "") -> str | None:
    """How ``arrived`` differs from ``sent``, in words; None if it is equal and of the same types.

    An int that an annotation makes the equal float is no difference, nor is a tuple that comes
    back as a list.
    """
    kind = type(sent)
    if kind is not type(arrived):
        if kind is int and type(arrived) is float and sent == arrived:
            return None
        if not (kind is tuple and type(arrived) is list):
            return f"{kind_of(sent)}{at(path)} would arrive as {kind_of(arrived)}"
    if kind in _SCALARS:
        same = sent == arrived or (sent != sent and arrived != arrived)  # NaN is no NaN's equal
    elif isinstance(sent, (list, tuple)):
        return _sequences_differ(sent, arrived, path)
    elif isinstance(sent, dict):
        return _dicts_differ(sent, arrived, path)
    elif isinstance(sent, (set, frozenset)):
        return _sets_differ(sent, arrived, path)
    elif names := _fields(kind):
        return _fields_differ(names, sent, arrived, path)
    elif isinstance(sent, (datetime.datetime, datetime.time)):
        same = sent == arrived and _clock(sent) == _clock(arrived)
    elif isinstance(sent, decimal.Decimal):
        same = sent.as_tuple() == arrived.as_tuple()
    else:
        same = bool(sent == arrived)
    return None if same else f"{shown(sent)}{at(path)} would arrive as {shown(arrived)}"


def at(path: str) -> str:
    """Where in a value something lies, in an error."""
    return f" (at {path})" if path else ""


def shown(value: Any) -> str:
    """``value`` in a line of an error."""
    try:
        return f"{value!r:.60}"
    except Exception:  # a repr of the user's, or an int too long to print
        return kind_of(value)


def kind_of(value: Any) -> str:
    """The type of ``value`` in an error, with its article."""
    if value is None:
        return "None"
    name = type(value).__qualname__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def _sequences_differ(sent: Any, arrived: Any, path: str) -> str | None:
    if len(sent) != len(arrived):
        return f"{len(sent)} items{at(path)} would arrive as {len(arrived)}"
    if _flat(sent) and list(map(type, sent)) == list(map(type, arrived)) and [*sent] == [*arrived]:
        return None
    for place, (one, other) in enumerate(zip(sent, arrived, strict=True)):
        found = difference(one, other, f"{path}[{place}]")
        if found is not None:
            return found
    return None


def _flat(values: Any) -> bool:
    return _SCALARS.issuperset(map(type, values))


def _dicts_differ(sent: Any, arrived: Any, path: str) -> str | None:
    if len(sent) != len(arrived):
        return f"{len(sent)} items{at(path)} would arrive as {len(arrived)}"
    # Order is kept, so that what stands at one place belongs together.
    for (key, value), (other_key, other) in zip(sent.items(), arrived.items(), strict=True):
        found = difference(key, other_key, f"{path}.keys()")
        found = found or difference(value, other, f"{path}[{shown(key)}]")
        if found is not None:
            return found
    return None


def _sets_differ(sent: Any, arrived: Any, path: str) -> str | None:
    if sent != arrived:
        return f"{shown(sent)}{at(path)} would arrive as {shown(arrived)}"
    members = {member: member for member in arrived}
    for member in sent:
        found = difference(member, members[member], path)
        if found is not None:
            return found
    return None


def _fields(kind: type) -> tuple[str, ...]:
    """The fields of a msgspec Struct, a dataclass or an attrs class; none for other types."""
    if dataclasses.is_dataclass(kind):
        return tuple(field.name for field in dataclasses.fields(kind))
    if hasattr(kind, "__attrs_attrs__"):
        return tuple(attribute.name for attribute in kind.__attrs_attrs__)
    return tuple(getattr(kind, "__struct_fields__", ()))


def _fields_differ(names: tuple[str, ...], sent: Any, arrived: Any, path: str) -> str | None:
    for name in names:
        found = difference(getattr(sent, name), getattr(arrived, name), f"{path}.{name}")
        if found is not None:
            return found
    return None


def _clock(value: datetime.datetime | datetime.time) -> tuple[Any, ...]:
    """What two equal times may still differ in: the same instant elsewhere, or by other rules."""
    # Not in the fold: now() sets it in one hour of the year, in which nothing could be submitted.
    return type(value.tzinfo), value.utcoffset()
