"""Annotated fields: what a class declares, and whether a value fits.

Shared by tasks and configurations. It knows types and values, never what they are for: errors
leave here as :class:`Mismatch` and the caller says whose field it was.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import inspect
import logging
import numbers
import re
import sys
import typing
import uuid
from typing import Any, ClassVar

import msgspec

log = logging.getLogger(__name__)


def shown(value: object) -> str:
    """``repr(value)`` for an error message: up to 80 characters, whatever ``repr`` raises."""
    try:
        return f"{value!r:.80}"
    except Exception:
        return f"a value of {type(value).__qualname__:.80} that cannot be shown"


class Mismatch(ValueError):
    """Raised when a value does not fit its annotation; the text says what was expected."""


# A text is none of these: it must not be decoded to one without a word.
_BUILTIN = (
    bytes,
    bytearray,
    memoryview,
    datetime.datetime,
    datetime.date,
    datetime.time,
    datetime.timedelta,
    uuid.UUID,
    decimal.Decimal,
)


# An annotation as text, as ``from __future__ import annotations`` leaves it.
_CLASS_VARIABLE = re.compile(r"\s*(\w+\.)?ClassVar\b")
_warned: set[tuple[str, str]] = set()


class _Missing:
    def __repr__(self) -> str:
        return "<required>"


MISSING: Any = _Missing()


def declared(cls: type, stop: type) -> dict[str, tuple[Any, Any]]:
    """The public fields that ``cls`` and its bases below ``stop`` annotate, bases first.

    Gives ``{name: (annotation, default)}`` with ``MISSING`` where there is no default.
    """
    hints = hints_of(cls)
    found: dict[str, tuple[Any, Any]] = {}
    for base in reversed(cls.__mro__):
        if not issubclass(base, stop) or base is stop:
            continue
        for name in own_fields(base):
            found[name] = (hints.get(name, Any), getattr(cls, name, MISSING))
    return found


def own_fields(cls: type) -> list[str]:
    """The names of the public fields that ``cls`` itself annotates."""
    return [
        name
        for name, annotation in _annotations(cls).items()
        if not name.startswith("_") and not _is_class_variable(annotation)
    ]


def _annotations(owner: Any) -> dict[str, Any]:
    try:
        return inspect.get_annotations(owner)
    except Exception:
        return {}  # it has none, or Python evaluates them late and a name is not there


def _is_class_variable(annotation: Any) -> bool:
    if isinstance(annotation, str):
        return _CLASS_VARIABLE.match(annotation) is not None
    return annotation is ClassVar or typing.get_origin(annotation) is ClassVar


def hints_of(thing: Any) -> dict[str, Any]:
    """The resolved annotations of a class or function; those that cannot be resolved are Any.

    Such a one, which has a name that exists for type checkers only, is logged as a warning once.
    """
    try:
        return typing.get_type_hints(thing, include_extras=True)
    except Exception:
        owners = reversed(thing.__mro__) if isinstance(thing, type) else (inspect.unwrap(thing),)
        return {name: hint for owner in owners for name, hint in _hints_one_by_one(owner).items()}


def _hints_one_by_one(owner: Any) -> dict[str, Any]:
    module = sys.modules.get(getattr(owner, "__module__", None) or "", None)
    names = getattr(owner, "__globals__", None) or vars(module or object)
    found = {}
    for name, annotation in _annotations(owner).items():
        alone = type("alone", (), {"__annotations__": {name: annotation}})
        try:
            found[name] = typing.get_type_hints(
                alone, dict(names), dict(vars(owner)), include_extras=True
            )[name]
        except Exception as error:
            if not _is_class_variable(annotation):
                _warn_once(owner, name, error)
    return found


def _warn_once(owner: Any, name: str, error: Exception) -> None:
    what = f"{getattr(owner, '__module__', '?')}.{getattr(owner, '__qualname__', '?')}"
    if (what, name) not in _warned:
        _warned.add((what, name))
        log.warning(
            "values of %r of %s are not checked: its annotation cannot be resolved (%s); import"
            " what it names at run time, not only under TYPE_CHECKING",
            name,
            what,
            error,
        )


def conform(value: Any, annotation: Any) -> Any:
    """``value`` as ``annotation`` wants it (an int for a float becomes one).

    Raises :class:`Mismatch` if it does not fit. What cannot be checked is let through.
    """
    if annotation is Any:
        return value
    if isinstance(annotation, type) and _is_instance(value, annotation):
        return value
    if annotation in (int, float) and isinstance(value, numbers.Real):
        return _as_number(value, annotation)
    try:
        return msgspec.convert(value, annotation, builtin_types=_BUILTIN)
    except msgspec.ValidationError as error:
        raise Mismatch(f"{error}{_allowed(annotation)}; the value is {shown(value)}") from None
    except TypeError:
        return value


def _allowed(annotation: Any) -> str:
    """The values of an enum or a Literal, which the error alone does not tell."""
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return f" (one of {', '.join(repr(member.value) for member in annotation)})"
    if typing.get_origin(annotation) is typing.Literal:
        return f" (one of {', '.join(map(repr, typing.get_args(annotation)))})"
    return ""


def _is_instance(value: Any, cls: type) -> bool:
    try:
        return isinstance(value, cls)
    except TypeError:
        return False


def _as_number(value: Any, kind: type) -> Any:
    try:
        number = kind(value)
    except (ValueError, OverflowError):
        number = None
    if number is None or number != value:
        raise Mismatch(f"Expected `{kind.__name__}`; the value is {shown(value)}")
    return number
