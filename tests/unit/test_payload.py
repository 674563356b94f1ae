"""Payloads: what travels arrives as it was, of the same type, or is refused with a mend."""

from __future__ import annotations

import collections
import datetime
import decimal
import enum
import fractions
import pickle
import sys
import uuid

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gtaskman.errors import PayloadError
from gtaskman.wire.frames import MAX_BUFFERS, FrameReader, head
from gtaskman.wire.payload import (
    BESIDE,
    EMPTY,
    decode_arguments,
    decode_value,
    encode_arguments,
    encode_value,
)

pytestmark = pytest.mark.quick

LIMIT = 64 * 1024 * 1024


def over_the_wire(payload):
    """A payload as it comes out of the frame in which it travelled."""
    flags, body, buffers = payload
    stream = head(1, flags, 1, len(body), buffers) + body + b"".join(buffers)
    reader, data = FrameReader(2 * LIMIT), memoryview(stream)
    while True:
        room = reader.room()
        count = min(len(room), len(data))
        room[:count] = data[:count]
        data = data[count:]
        for frame in reader.advance(count):
            assert not len(data)
            return frame.flags, bytes(frame.body), frame.buffers


def travel(value):
    """A result, sent and received."""
    return decode_value(*over_the_wire(encode_value(value, LIMIT)))


def travel_as_argument(value):
    """An argument, sent and received, by position and by name."""
    payload = encode_arguments((value,), {"name": value}, LIMIT)
    (by_position,), by_name = decode_arguments(*over_the_wire(payload))
    assert type(by_position) is type(by_name["name"])
    assert list(by_name) == ["name"]
    return by_position


def same(one, other) -> bool:
    """Equal, and of the same types all the way down."""
    if type(one) is not type(other) or one != other:
        return False
    if isinstance(one, dict):
        return all(map(same, one, other)) and all(map(same, one.values(), other.values()))
    if isinstance(one, (list, tuple, collections.deque)):
        return all(map(same, one, other))
    if isinstance(one, (set, frozenset)):
        return {(type(each), each) for each in one} == {(type(each), each) for each in other}
    return True


class Color(enum.Enum):
    RED = 1


class Odd(Exception):
    """An exception with more to it than its message."""

    def __init__(self, message, code=0):
        super().__init__(message)
        self.code = code


Point = collections.namedtuple("Point", "x y")

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**300), 2**300)
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.text()
    | st.binary()
)
hashable = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3)
)
values = st.recursive(
    scalars | st.binary().map(bytearray) | st.sets(hashable, max_size=4),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(hashable, inner, max_size=4)
    ),
    max_leaves=20,
)


@pytest.mark.filterwarnings("ignore:Generating overly large repr")
@given(values)
def test_every_builtin_arrives_equal_and_of_the_same_type(value):
    assert same(travel(value), value)
    assert same(travel_as_argument(value), value)


@pytest.mark.parametrize(
    "value",
    [
        Color.RED,
        Point(1, [2]),
        collections.OrderedDict(b=1, a=2),
        collections.deque([1, 2], maxlen=5),
        datetime.datetime(2024, 2, 29, tzinfo=datetime.UTC),
        datetime.timedelta(seconds=1.5),
        decimal.Decimal("1.10"),
        fractions.Fraction(1, 3),
        uuid.UUID(int=5),
        range(1, 10, 2),
        slice(1, None),
        ...,
        int,
        len,
    ],
    ids=repr,
)
def test_values_of_the_standard_library_arrive_as_they_were(value):
    assert same(travel(value), value)
    assert same(travel_as_argument(value), value)


@pytest.mark.parametrize("kind", [bytes, bytearray])
@pytest.mark.parametrize("size", [0, 1, BESIDE - 1, BESIDE, BESIDE + 1, 3_000_000])
@pytest.mark.parametrize("send", [travel, travel_as_argument])
def test_bytes_of_any_size_keep_type_and_contents(kind, size, send):
    value = kind(bytes(range(256)) * (size // 256 + 1))[:size]
    assert same(send(value), value)


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_large_bytes_travel_beside_the_pickle_and_are_not_copied_into_it(kind):
    value = kind(BESIDE)
    payload = encode_value(value, LIMIT)
    assert len(payload.body) < 100
    assert payload.buffers[0].obj is value
    assert payload.size == len(payload.body) + BESIDE


def test_a_received_bytearray_is_its_receivers_own():
    received = travel(bytearray(BESIDE))
    received += b"more"
    assert len(received) == BESIDE + 4


def test_nothing_takes_no_body():
    assert encode_value(None, LIMIT) == encode_arguments((), {}, LIMIT) == (EMPTY, b"", ())
    assert travel(None) is None
    assert decode_arguments(*over_the_wire(encode_arguments((), {}, LIMIT))) == ((), {})


def test_a_none_among_the_arguments_is_no_lack_of_arguments():
    assert decode_arguments(*over_the_wire(encode_arguments((None,), {}, LIMIT))) == ((None,), {})


# --- arrays


ARRAYS = {
    "small": numpy.arange(5),
    "large": numpy.arange(100_000, dtype="f8"),
    "fortran": numpy.asfortranarray(numpy.arange(60_000).reshape(200, 300)),
    "strided": numpy.arange(100_000)[::3],
    "inner view": numpy.arange(60_000).reshape(200, 300)[10:20, 5:50],
    "no dimensions": numpy.array(3.5),
    "empty": numpy.zeros((0, 3)),
    "structured": numpy.zeros(3, dtype=[("a", "i4"), ("b", "f8")]),
    "text": numpy.array(["a", "bc"]),
    "of objects": numpy.array([{"a": 1}, (2,)], dtype=object),
}


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS)
@pytest.mark.parametrize(
    "send", [travel, travel_as_argument, lambda a: travel({"deep": [a]})["deep"][0]]
)
def test_arrays_arrive_equal_with_shape_and_type_and_writable(array, send):
    received = send(array)
    assert type(received) is numpy.ndarray
    assert received.dtype == array.dtype
    assert received.shape == array.shape
    assert (received == array).all()
    assert received.flags.writeable


@pytest.mark.parametrize("size", [5, 100_000])
def test_a_read_only_array_stays_read_only(size):
    array = numpy.arange(size)
    array.flags.writeable = False
    received = travel(array)
    assert (received == array).all()
    assert not received.flags.writeable


def test_an_array_over_foreign_bytes_arrives():
    array = numpy.frombuffer(bytes(100_000), dtype="u1")
    assert (travel(array) == array).all()


def test_more_buffers_than_a_frame_holds_travel_inside_the_pickle():
    arrays = [numpy.full(2, at) for at in range(MAX_BUFFERS + 1)]
    payload = encode_value(arrays, LIMIT)
    assert payload.buffers == ()
    assert all((a == b).all() for a, b in zip(travel(arrays), arrays, strict=True))


def test_the_most_buffers_that_a_frame_holds_travel_beside():
    arrays = [numpy.full(2, at) for at in range(MAX_BUFFERS)]
    assert len(encode_value(arrays, LIMIT).buffers) == MAX_BUFFERS
    assert all((a == b).all() for a, b in zip(travel(arrays), arrays, strict=True))


# --- exceptions, and code


def test_an_exception_keeps_its_attributes():
    error = Odd("message", code=7)
    error.later = [1]
    error.add_note("a note")
    received = travel(error)
    assert type(received) is Odd
    assert received.args == ("message",)
    assert (received.code, received.later, received.__notes__) == (7, [1], ["a note"])


def test_lambdas_travel_with_cloudpickle():
    offset = 3
    assert travel(lambda x: x + offset)(4) == 7
    function = travel_as_argument(lambda x: x * offset)
    assert function(4) == 12


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_large_bytes_beside_a_lambda_keep_their_type(kind):
    data = kind(b"x" * BESIDE)
    payload = encode_arguments((data, lambda: 5), {}, LIMIT)
    (received, function), _ = decode_arguments(*over_the_wire(payload))
    assert same(received, data)
    assert function() == 5


def test_without_cloudpickle_a_lambda_is_refused_and_the_mend_is_named(monkeypatch):
    # given a system without cloudpickle
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    # expect to be told what it takes
    with pytest.raises(PayloadError, match=r"install.*cloudpickle"):
        encode_value(lambda: None, LIMIT)


class Unwilling:
    def __reduce__(self):
        raise RuntimeError("not me")


@pytest.mark.parametrize(
    "value",
    [(each for each in "abc"), Unwilling(), [sys._getframe()]],
    ids=["generator", "own", "frame"],
)
@pytest.mark.parametrize("installed", [True, False], ids=["cloudpickle", "plain"])
def test_what_no_pickle_takes_is_refused_with_the_reason(value, installed, monkeypatch):
    if not installed:
        monkeypatch.setitem(sys.modules, "cloudpickle", None)
    with pytest.raises(PayloadError, match=r"Error: "):
        encode_value(value, LIMIT)
    with pytest.raises(PayloadError, match=r"Error: "):
        encode_arguments((value,), {}, LIMIT)


def test_a_value_without_end_is_refused():
    deep = None
    for _ in range(200_000):
        deep = [deep]
    with pytest.raises(PayloadError, match="RecursionError"):
        encode_value(deep, LIMIT)


def test_a_view_of_memory_that_has_gaps_is_refused_as_everything_else_is():
    gaps = pickle.PickleBuffer(memoryview(b"abcdef")[::2])
    with pytest.raises(PayloadError):
        encode_value(gaps, LIMIT)


@pytest.mark.parametrize("kind", ["memoryview", "file"])
def test_nothing_is_silently_turned_into_something_else(kind):
    # given a value that pickle refuses and cloudpickle would replace by one of another type
    with open(__file__) as file:
        value = memoryview(b"abc") if kind == "memoryview" else file
        # expect it as it was, or refused
        try:
            received = travel(value)
        except PayloadError:
            return
        assert type(received) is type(value)


# --- the limit


@pytest.mark.parametrize(
    "value",
    [
        b"x" * 100_001,
        bytearray(100_001),
        "x" * 100_001,
        numpy.zeros(100_001, "u1"),
        [b"x" * 50_001] * 1 + [b"y" * 50_001],
    ],
    ids=["bytes", "bytearray", "text", "array", "nested"],
)
def test_what_is_over_the_limit_is_refused_and_the_mend_is_named(value):
    with pytest.raises(PayloadError, match=r"limit of 100,000.*max_frame"):
        encode_value(value, 100_000)
    with pytest.raises(PayloadError, match=r"limit of 100,000.*max_frame"):
        encode_arguments((), {"name": value}, 100_000)


def test_what_cloudpickle_made_is_under_the_limit_too():
    data = "x" * 100_001
    with pytest.raises(PayloadError, match="max_frame"):
        encode_value(lambda: data, 100_000)


def test_the_limit_itself_is_allowed():
    size = encode_value("x" * 1000, LIMIT).size
    assert encode_value("x" * 1000, size).size == size
    with pytest.raises(PayloadError):
        encode_value("x" * 1000, size - 1)
