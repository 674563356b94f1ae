"""Fields: whether a value fits its annotation, and what becomes of it."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import fractions
import typing
import uuid
from typing import Any, ClassVar

import numpy
import pytest

from gtaskman.fields import MISSING, Mismatch, conform, declared

pytestmark = pytest.mark.quick


class Color(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: int


FITTING = [
    (5, int, 5),
    (5, float, 5.0),
    (5.0, int, 5),
    (numpy.int64(5), int, 5),
    (numpy.float32(0.5), float, 0.5),
    (fractions.Fraction(1, 2), float, 0.5),
    (float("inf"), float, float("inf")),
    (10**400, int, 10**400),
    ("a", str, "a"),
    (b"a", bytes, b"a"),
    (bytearray(b"a"), bytearray, bytearray(b"a")),
    (None, int | None, None),
    (5, int | None, 5),
    (None, None, None),
    ([1, 2], list[int], [1, 2]),
    ((1, "a"), tuple[int, str], (1, "a")),
    ({1}, set[int], {1}),
    ({"a": [1]}, dict[str, list[int]], {"a": [1]}),
    ("b", typing.Literal["a", "b"], "b"),
    (Color.RED, Color, Color.RED),
    (Point(1), Point, Point(1)),
    (decimal.Decimal("1.1"), decimal.Decimal, decimal.Decimal("1.1")),
    (uuid.UUID(int=1), uuid.UUID, uuid.UUID(int=1)),
    (datetime.date(2024, 1, 1), datetime.date, datetime.date(2024, 1, 1)),
    (object, type, object),
    (print, typing.Callable, print),
    (5, Any, 5),
    (5, object, 5),
    (5, "int", 5),  # an annotation that nobody could resolve
]


@pytest.mark.parametrize(("value", "annotation", "expected"), FITTING, ids=repr)
def test_what_fits_comes_back_as_the_annotation_says(value, annotation, expected):
    fitted = conform(value, annotation)
    assert fitted == expected
    assert type(fitted) is type(expected)


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        ("5", int),
        (5, str),
        (None, int),
        (5.5, int),
        ("x", float),
        (1j, float),
        (fractions.Fraction(1, 3), float),
        (2**53 + 1, float),
        ("a", int | None),
        ([1, "a"], list[int]),
        ({"a": "b"}, dict[str, int]),
        ((1, 2, 3), tuple[int, int]),
        ("c", typing.Literal["a", "b"]),
        ("blue", Color),
        (1, bool),
        ([1], str),
        (Point(1), int),
    ],
    ids=repr,
)
def test_what_does_not_fit_is_a_mismatch(value, annotation):
    with pytest.raises(Mismatch):
        conform(value, annotation)


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        (float("nan"), int),
        (float("inf"), int),
        (float("-inf"), int),
        (10**400, float),
        (numpy.float64("nan"), int),
    ],
    ids=["nan", "inf", "-inf", "huge", "numpy's nan"],
)
def test_a_number_that_has_no_counterpart_is_a_mismatch_and_no_other_error(value, annotation):
    with pytest.raises(Mismatch):
        conform(value, annotation)


@pytest.mark.parametrize(
    ("value", "annotation"),
    [("abcd", bytes), ("abcd", bytearray), ("abcd", bytes | None), (["abcd"], list[bytes])],
    ids=repr,
)
def test_text_is_no_bytes_and_is_not_silently_decoded(value, annotation):
    # msgspec would take it for Base64.
    with pytest.raises(Mismatch):
        conform(value, annotation)


# --- what a class declares


class Base:
    """Where the looking stops."""

    below: int = 1


class Parent(Base):
    first: int
    second: str = "two"
    constant: ClassVar[int] = 3
    bare: ClassVar = 4
    _private: int = 5
    plain = 6


class Child(Parent):
    third: "float | None" = None  # noqa: UP037 - a quoted annotation is one that is met
    second: str = "zwei"


class Opaque(Base):
    field: "OnlyForTypeCheckers"  # noqa: F821, UP037 - a name that does not exist at run time


def test_a_class_declares_its_annotated_public_fields_bases_first():
    assert declared(Parent, Base) == {"first": (int, MISSING), "second": (str, "two")}
    assert list(declared(Child, Base).items()) == [
        ("first", (int, MISSING)),
        ("second", (str, "zwei")),
        ("third", (float | None, None)),
    ]
    assert declared(Base, Base) == {}


def test_an_annotation_that_cannot_be_resolved_lets_anything_through():
    assert declared(Opaque, Base) == {"field": (Any, MISSING)}


def test_a_missing_default_says_so_when_it_is_shown():
    assert repr(MISSING) == "<required>"
