"""Values on their way into an envelope and out of it, each by its slot.

A value goes in only if it will come out equal and of the same type. Most are seen at a glance to
do so; the others are encoded, decoded by their annotation and compared before they may travel.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import uuid
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from gtaskman.envelope.codec import JSON, Codec
from gtaskman.envelope.hints import Plan, Slot
from gtaskman.envelope.plain import (
    at,
    difference,
    first_foreign,
    first_not_finite,
    is_plain,
    kind_of,
    shown,
)
from gtaskman.errors import EnvelopeError, PayloadError

_DEEP = "it is nested too deeply, or contains itself"
# Types that an annotation would make whole.
_ANNOTATED = (
    bytes,
    bytearray,
    datetime.date,
    datetime.time,
    datetime.timedelta,
    uuid.UUID,
    decimal.Decimal,
    set,
    frozenset,
    enum.Enum,
    msgspec.Struct,
    tuple,
)


class Refusal(Exception):
    """Raised when a value cannot travel; the text says why, the caller says whose it was."""


# --- in ------------------------------------------------------------------------------------------


def carried_arguments(
    plan: Plan, codec: Codec, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, Any]:
    """The arguments in a form that the codec encodes without changing any of them.

    Raises :class:`PayloadError`, which names the argument that cannot travel.
    """
    if _at_a_glance(plan, args, kwargs):
        return args, kwargs
    try:
        label = ""
        some, named = [], {}
        for place, value in enumerate(args):
            slot = plan.at(place)
            label = at_place(slot, place)
            some.append(carried(slot, codec, value))
        for name, value in kwargs.items():
            label = called(name)
            named[name] = carried(plan.called(name), codec, value)
    except Refusal as refusal:
        raise cannot_travel(label, codec, refusal) from refusal.__cause__
    return some, named


def labelled(plan: Plan, args: Any, kwargs: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every argument with the words for it in an error."""
    for place, value in enumerate(args):
        yield at_place(plan.at(place), place), value
    for name, value in kwargs.items():
        yield called(name), value


def at_place(slot: Slot, place: int) -> str:
    """The words for an argument by position."""
    return f"the argument {slot.name!r}" if slot.name else f"the argument number {place + 1}"


def called(name: str) -> str:
    """The words for an argument by name."""
    return f"the argument {name!r}"


def _at_a_glance(plan: Plan, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether every value is of a type that is sure to survive. The hot path of sealing."""
    places = plan.places
    if len(args) > len(places):
        places += (plan.rest,) * (len(args) - len(places))
    for value, slot in zip(args, places, strict=False):
        if type(value) not in slot.exact:
            return False
    named, others = plan.named, plan.others
    return all(type(value) in named.get(name, others).exact for name, value in kwargs.items())


def carried(slot: Slot, codec: Codec, value: Any) -> Any:
    """One value in a form that the codec encodes without changing it, or :class:`Refusal`."""
    if type(value) in slot.exact:
        return value
    if slot.annotation is not Any:
        return typed(slot, codec, value)
    try:
        if is_plain(value, codec):
            return value
        found = first_foreign(value, codec)
    except RecursionError:
        raise Refusal(_DEEP) from None
    raise Refusal(_why_foreign(*found) if found else _DEEP)


def typed(slot: Slot, codec: Codec, value: Any) -> msgspec.Raw:
    """An annotated value, encoded, after it was seen to come back; else :class:`Refusal`."""
    try:
        raw = codec.encode_typed(value)
    except Exception as error:
        raise Refusal(why_not_encoded(error)) from error
    try:
        changed = difference(value, slot.decode(raw))
    except RecursionError:
        raise Refusal(_DEEP) from None
    except Exception as error:  # a class of the user's may raise anything while it is built
        what = f"annotated as {_annotation(slot)}, {shown(value)} does not fit"
        raise Refusal(f"{what}: {error}") from error
    if changed is not None:
        raise Refusal(f"annotated as {_annotation(slot)}, {changed}{_mend(value)}")
    return msgspec.Raw(raw)


def check_finite(codec: Codec, body: bytes, values: Iterable[tuple[str, Any]]) -> None:
    """Raise :class:`PayloadError` if a NaN or an infinity became a null in this JSON.

    ``values`` are what was encoded, each with the words for it.
    """
    if codec.letter != JSON or b"null" not in body:
        return
    for label, value in values:
        found = first_not_finite(value)
        if found is not None:
            path, number = found
            why = f"it has no {number!r}{at(path)}; use the codec 'm' (MessagePack)"
            raise cannot_travel(label, codec, why)


def blame(codec: Codec, values: Iterable[tuple[str, Any]], error: Exception) -> PayloadError:
    """The error that names the value at which encoding stumbled."""
    for label, value in values:
        try:
            codec.encode(value)
        except Exception as its:
            return cannot_travel(label, codec, why_not_encoded(its))
    return cannot_travel("the task", codec, why_not_encoded(error))


def why_not_encoded(error: Exception) -> str:
    """Why a value that looked plain could not be encoded."""
    if isinstance(error, RecursionError):
        return _DEEP
    if isinstance(error, OverflowError):
        return "an int of more than 64 bits is too large; use JSON, or send it as a text"
    return str(error)


def cannot_travel(label: str, codec: Codec, why: object) -> PayloadError:
    """The error for a value, which ``label`` calls by its name."""
    return PayloadError(f"{label} cannot travel as {codec.label}: {why}")


def _why_foreign(path: str, thing: Any) -> str:
    kind = type(thing)
    if kind is dict:
        keys = sorted({type(key).__name__ for key in thing} - {"str"})
        return f"a dict with keys of {', '.join(keys)}{at(path)} needs an annotation that says so"
    what = f"{kind_of(thing)}{at(path)}"
    if not isinstance(thing, _ANNOTATED) and not dataclasses.is_dataclass(kind):
        return f"{what} is neither plain data nor of a type that an annotation could name"
    other = ", or use the codec 'm' (MessagePack)" if kind is bytes else ""
    return (
        f"{what} without an annotation would arrive as something else;"
        f" annotate it as {kind.__qualname__}{other}"
    )


def _mend(value: Any) -> str:
    zone = getattr(value, "tzinfo", None)
    if zone is not None and type(zone) is not datetime.timezone:
        return "; the rules of a time zone do not travel: send value.astimezone(datetime.UTC)"
    return ""


def _annotation(slot: Slot) -> str:
    annotation = slot.annotation
    return annotation.__qualname__ if isinstance(annotation, type) else str(annotation)


# --- out -----------------------------------------------------------------------------------------


def arrived(label: str, slot: Slot, raw: Any) -> Any:
    """A value as its annotation says. Raises :class:`EnvelopeError` if it does not fit that."""
    try:
        return slot.decode(raw)
    except Exception as error:  # a class of the user's may raise anything while it is built
        raise EnvelopeError(f"{label} does not fit {_annotation(slot)}: {error}") from error
