"""``Hints``: what the annotations of a task's code say about its arguments and its result.

Found out once for a function or a task class, and made ready for each codec. What a codec cannot
read (a class that is no dataclass, a union of texts) counts as not annotated.
"""

from __future__ import annotations

import datetime
import inspect
import types
import typing
import uuid
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

from gtaskman.envelope.codec import JSON, MSGPACK, Codec, codec_of
from gtaskman.fields import declared, hints_of
from gtaskman.task import Task

# Values of just these types, so annotated, come out of every codec as they went in.
_SURE = frozenset({str, int, float, bool, type(None), bytes, uuid.UUID, datetime.date})


class Slot(NamedTuple):
    """One place for a value: its name (or none), its annotation, what decodes it.

    ``exact`` are the types whose values need no second look before they travel.
    """

    name: str
    annotation: Any
    decode: Callable[[Any], Any]
    exact: frozenset[type]


class Plan(NamedTuple):
    """All the places of one task's code, for one codec.

    ``places`` are those by position and ``rest`` takes further ones; ``named`` are those by name
    and ``others`` takes further ones; ``untyped`` if no argument is annotated.
    """

    places: tuple[Slot, ...]
    rest: Slot
    named: dict[str, Slot]
    others: Slot
    result: Slot
    untyped: bool

    def at(self, place: int) -> Slot:
        """The slot of the argument at this position."""
        return self.places[place] if place < len(self.places) else self.rest

    def called(self, name: str) -> Slot:
        """The slot of the argument with this name."""
        return self.named.get(name, self.others)


class _Annotations(NamedTuple):
    """The names and annotations of a task's code, before any codec."""

    places: tuple[str, ...]
    rest: tuple[str, Any]
    named: dict[str, Any]
    others: Any
    result: Any


class Hints:
    """The annotations of one task's code; see :meth:`of`. ``Hints.NONE`` knows of none."""

    NONE: typing.ClassVar[Hints]
    __slots__ = ("json", "msgpack")

    def __init__(self, annotations: _Annotations) -> None:
        self.json = _plan(annotations, codec_of(JSON))
        self.msgpack = _plan(annotations, codec_of(MSGPACK))

    @staticmethod
    def of(target: Any) -> Hints:
        """The hints of a function, or of a :class:`gtaskman.Task` class (its declared options)."""
        try:
            return _known[target]
        except (KeyError, TypeError):  # not seen yet, or nothing that can be remembered
            pass
        in_class_form = isinstance(target, type) and issubclass(target, Task)
        hints = Hints(_of_class(target) if in_class_form else _of_function(target))
        try:
            _known[target] = hints
        except TypeError:
            pass
        return hints

    def plan(self, letter: str) -> Plan:
        """What they mean for this codec."""
        return self.json if letter == JSON else self.msgpack


_known: weakref.WeakKeyDictionary[Any, Hints] = weakref.WeakKeyDictionary()
_UNKNOWN = ("", Any)


def _of_class(cls: type[Task]) -> _Annotations:
    fields = {name: annotation for name, (annotation, _) in declared(cls, Task).items()}
    result = hints_of(cls.run).get("return", Any)
    return _Annotations((), _UNKNOWN, fields, Any, result)


def _of_function(function: Any) -> _Annotations:
    hints = hints_of(function)
    result = hints.get("return", Any)
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some that are written in C do not tell
        return _Annotations((), _UNKNOWN, {}, Any, result)
    places, named = [], {}
    rest, others = _UNKNOWN, Any
    for parameter in parameters:
        name, kind = parameter.name, parameter.kind
        annotation = hints.get(name, Any)
        if kind is parameter.VAR_POSITIONAL:
            rest = (f"*{name}", annotation)
        elif kind is parameter.VAR_KEYWORD:
            others = annotation
        else:
            named[name] = annotation
            if kind is not parameter.KEYWORD_ONLY:
                places.append(name)
    return _Annotations(tuple(places), rest, named, others, result)


def _plan(annotations: _Annotations, codec: Codec) -> Plan:
    named = {name: _slot(name, hint, codec) for name, hint in annotations.named.items()}
    rest = _slot(*annotations.rest, codec)
    others = _slot("", annotations.others, codec)
    return Plan(
        places=tuple(named[name] for name in annotations.places),
        rest=rest,
        named=named,
        others=others,
        result=_slot("", annotations.result, codec),
        untyped=all(slot.annotation is Any for slot in (*named.values(), rest, others)),
    )


def _slot(name: str, annotation: Any, codec: Codec) -> Slot:
    try:
        decode = codec.decoder(annotation)
    except Exception:  # whatever stands in an annotation, it is no reason to refuse the task
        annotation, decode = Any, codec.decoder(Any)
    return Slot(name, annotation, decode, _exact(annotation, codec))


def _exact(annotation: Any, codec: Codec) -> frozenset[type]:
    if annotation is Any:
        return codec.scalars
    if isinstance(annotation, type) and annotation in _SURE:
        return frozenset({annotation})
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        members = (_exact(member, codec) for member in typing.get_args(annotation))
        return frozenset[type]().union(*members)
    return frozenset()


Hints.NONE = Hints(_Annotations((), _UNKNOWN, {}, Any, Any))
