"""Envelopes: what is sealed comes out as the code's annotations say, or is refused by name."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import typing
import uuid
import zoneinfo
from typing import Annotated, Any, Literal, NamedTuple, Optional, TypedDict, Union

import msgspec
import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gtaskman
from gtaskman.envelope import (
    Hints,
    Keyring,
    arguments_of,
    read_result,
    read_task,
    seal_result,
    seal_task,
    sign_result,
)
from gtaskman.envelope.codec import codec_of
from gtaskman.envelope.plain import difference
from gtaskman.errors import ConfigurationError, EnvelopeError, PayloadError

pytestmark = pytest.mark.quick

TEXTUAL = ["j", "m"]
KEYRING = Keyring({"2025": b"0123456789abcdef"})


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@dataclasses.dataclass
class Point:
    x: float
    y: float = 0.0
    name: str | None = None


@dataclasses.dataclass
class Point3(Point):
    z: float = 0.0


class Order(msgspec.Struct):
    number: int
    when: datetime.datetime
    lines: list[Point] = []


class Pair(NamedTuple):
    left: int
    right: str


class Options(TypedDict):
    size: tuple[int, int]


class Opaque:
    pass


class ManyOptions(gtaskman.Task, name="tests.envelope.options"):
    when: datetime.date
    data: bytes = b"x"
    loose: Any = None

    def run(self, progress) -> datetime.date:  # noqa: ARG002
        return self.when


def taking(annotation=Any):
    """Code that takes one value, so annotated, and gives one, so annotated."""

    def code(value): ...

    code.__annotations__ = {"value": annotation, "return": annotation}
    return code


def seal(args=(), kwargs=None, codec="j", hints=None, task_id="id", name="app.work", **more):
    """An envelope with little in it but its arguments."""
    more = {"kind": "sync", "created": 1.5, "options": {}, **more}
    given_args = (more.pop("kind"), args, kwargs or {}, more.pop("created"), more.pop("options"))
    return seal_task(task_id, name, *given_args, codec=codec, hints=hints, **more)


def travel(value, annotation, codec):
    """A value sent as an argument, by position and by name, and received."""
    hints = Hints.of(taking(annotation))
    (by_place,), nothing = arguments_of(seal((value,), None, codec, hints), hints)
    none, by_name = arguments_of(seal((), {"value": value}, codec, hints), hints)
    assert (none, nothing) == ((), {})
    assert difference(by_place, by_name["value"]) is None
    return by_place


def come_back(value, annotation, codec):
    """A value sent as a result and received."""
    hints = Hints.of(taking(annotation))
    return read_result(seal_result(value, codec=codec, hints=hints), hints)


def refused(value, annotation=Any, codec="j"):
    """Why a value cannot be sent."""
    with pytest.raises(PayloadError) as raised:
        travel(value, annotation, codec)
    text = str(raised.value)
    assert text.startswith("the argument 'value' cannot travel as ")
    return text


# --- what is promised ----------------------------------------------------------------------------

OFFSETS = st.integers(-23 * 60, 23 * 60).map(
    lambda minutes: datetime.timezone(datetime.timedelta(minutes=minutes))
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
FINITE = st.floats(allow_nan=False, allow_infinity=False)
INTS = st.integers(-(2**63), 2**64 - 1)
ANY_INTS = {"j": st.integers() | st.integers(-(10**4000), 10**4000), "m": INTS}
POINTS = st.builds(Point, FINITE, FINITE, st.none() | TEXTS)
DATETIMES = st.datetimes(timezones=st.none() | OFFSETS)
DECIMALS = st.decimals(allow_nan=False, allow_infinity=False)

ANNOTATED = [
    (str, TEXTS),
    (int, INTS),
    (float, FINITE),
    (bool, st.booleans()),
    (None, st.none()),
    (bytes, st.binary()),
    (bytearray, st.binary().map(bytearray)),
    (datetime.datetime, DATETIMES),
    (datetime.date, st.dates()),
    (datetime.time, st.times(timezones=st.none() | OFFSETS)),
    (datetime.timedelta, st.timedeltas()),
    (uuid.UUID, st.uuids()),
    (decimal.Decimal, DECIMALS),
    (Colour, st.sampled_from(Colour)),
    (Level, st.sampled_from(Level)),
    (Literal["a", 5], st.sampled_from(["a", 5])),
    (Point, POINTS),
    (Order, st.builds(Order, INTS, DATETIMES, st.lists(POINTS, max_size=3))),
    (Pair, st.builds(Pair, INTS, TEXTS)),
    (Options, st.builds(lambda a, b: {"size": (a, b)}, INTS, INTS)),
    (list[int], st.lists(INTS)),
    (set[uuid.UUID], st.sets(st.uuids())),
    (frozenset[str], st.frozensets(TEXTS)),
    (tuple[int, ...], st.lists(INTS).map(tuple)),
    (tuple[bytes, datetime.date], st.tuples(st.binary(), st.dates())),
    (dict[int, bytes], st.dictionaries(INTS, st.binary())),
    (dict[uuid.UUID, list[Point]], st.dictionaries(st.uuids(), st.lists(POINTS, max_size=2))),
    (dict[str, Any], st.dictionaries(TEXTS, st.none() | INTS | st.lists(FINITE))),
    (Optional[datetime.datetime], st.none() | DATETIMES),  # noqa: UP045
    (Union[int, bytes, None], st.none() | INTS | st.binary()),  # noqa: UP007
    (int | list[Colour], INTS | st.lists(st.sampled_from(Colour))),
    (int | float, INTS | FINITE),
    (Annotated[int, msgspec.Meta(ge=0)], st.integers(0, 9)),
    (collections.abc.Sequence[decimal.Decimal], st.lists(DECIMALS)),
]


def plain_values(scalars, keys):
    return st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
        max_leaves=12,
    )


JSON_SCALARS = st.none() | st.booleans() | INTS | FINITE | TEXTS
PLAIN = {
    "j": plain_values(JSON_SCALARS, TEXTS),
    "m": plain_values(JSON_SCALARS | st.floats() | st.binary(), TEXTS | INTS | st.binary()),
}


@pytest.mark.parametrize("codec", TEXTUAL)
@pytest.mark.parametrize(
    ("annotation", "values"), ANNOTATED, ids=[str(annotation) for annotation, _ in ANNOTATED]
)
@given(data=st.data())
def test_annotated_values_come_out_equal_and_of_the_same_type(codec, annotation, values, data):
    value = data.draw(values)
    assert difference(value, travel(value, annotation, codec)) is None
    assert difference(value, come_back(value, annotation, codec)) is None


@pytest.mark.parametrize("codec", TEXTUAL)
@given(data=st.data())
def test_plain_values_need_no_annotation(codec, data):
    value = data.draw(PLAIN[codec])
    assert difference(value, travel(value, Any, codec)) is None
    assert difference(value, come_back(value, Any, codec)) is None


@pytest.mark.parametrize("codec", TEXTUAL)
@given(data=st.data())
def test_ints_arrive_digit_by_digit(codec, data):
    """JSON's as long as Python prints them, MessagePack's up to 64 bits."""
    number = data.draw(ANY_INTS[codec])
    for annotation in (Any, int):
        assert travel(number, annotation, codec) == number
        assert travel([number], list[annotation], codec) == [number]


@pytest.mark.parametrize("codec", TEXTUAL)
def test_a_tuple_without_an_annotation_arrives_as_a_list(codec):
    assert travel((1, ("a", None)), Any, codec) == [1, ["a", None]]
    assert travel({"a": (1,)}, dict, codec) == {"a": [1]}
    assert come_back((1, 2), Any, codec) == [1, 2]


@pytest.mark.parametrize("codec", TEXTUAL)
def test_an_int_that_is_annotated_as_a_float_arrives_as_one(codec):
    value = travel(5, float, codec)
    assert (type(value), value) == (float, 5.0)
    assert "would arrive as" in refused(2**53 + 1, float, codec)


def test_messagepack_carries_what_json_cannot():
    for value in (float("nan"), float("inf"), b"raw", {1: "a", b"k": None}):
        assert difference(value, travel(value, Any, "m")) is None


def test_negative_zero_and_tiny_numbers_keep_their_bits():
    for codec in TEXTUAL:
        values = [-0.0, 5e-324, 1.7976931348623157e308, 0.1]
        assert list(map(repr, travel(values, Any, codec))) == list(map(repr, values))


@pytest.mark.parametrize("value", [{1, 2}, (1, (2,)), 2**200, b"x", Colour.RED, Point(1, 2)])
def test_a_pickle_keeps_everything(value):
    data = seal((value,), {"a": value}, "p", keyring=KEYRING)
    assert read_task(data, accept="p", keyring=KEYRING).name == "app.work"
    (by_place,), by_name = arguments_of(data)
    assert difference(value, by_place) is None
    assert difference(value, by_name["a"]) is None
    signed = sign_result(
        seal_result(value, codec="p"), KEYRING, queue="q", task_id="id", name="app.work"
    )
    again = read_result(
        signed, accept="jmp", keyring=KEYRING, queue="q", task_id="id", name="app.work"
    )
    assert difference(value, again) is None


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("codec", TEXTUAL)
@pytest.mark.parametrize(
    "value",
    [
        bytearray(b"x"),
        datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC),
        datetime.date(2024, 1, 1),
        datetime.time(1),
        datetime.timedelta(1),
        uuid.UUID(int=1),
        decimal.Decimal(1),
        {1},
        frozenset("a"),
        Colour.RED,
        Level.LOW,
        Point(1),
        Pair(1, "b"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_needs_an_annotation_is_refused_without_one(codec, value):
    name = type(value).__name__
    assert f"annotate it as {name}" in refused(value, Any, codec)
    assert "(at ['rows'][1]) without an annotation" in refused({"rows": [1, value]}, Any, codec)
    assert "would arrive as" in refused([value], list, codec)
    with pytest.raises(PayloadError, match=f"the result cannot travel.*annotate it as {name}"):
        seal_result(value, codec=codec)


@pytest.mark.parametrize("codec", TEXTUAL)
@pytest.mark.parametrize(
    "value",
    [Opaque(), 3j, range(3), print, numpy.arange(3), numpy.float64(1.5), fractions.Fraction(1, 2)],
    ids=lambda value: type(value).__name__,
)
def test_other_objects_are_refused(codec, value):
    assert "nor of a type that an annotation could name" in refused(value, Any, codec)
    refused(value, type(value), codec)
    refused([value], list[type(value)], codec)
    with pytest.raises(PayloadError, match="the result cannot travel"):
        seal_result(value, codec=codec)


@pytest.mark.parametrize("codec", TEXTUAL)
@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        (collections.OrderedDict(a=1), Any),
        (collections.OrderedDict(a=1), dict[str, int]),
        (collections.Counter("ab"), dict),
        (True, int),
        ([1, 1], set[int]),
        ([1, 2], tuple[int, int]),
        ("red", Colour),
        (Colour.RED, str),
        (1, Level),
        ({"x": 1.0}, Point),
        (Point3(1.0), Point),
        (bytearray(b"x"), bytes),
        ("2024-01-01", datetime.date),
        (datetime.datetime(2024, 1, 1), datetime.date),
        ("a text", int),
        (None, int),
        (-1, Annotated[int, msgspec.Meta(ge=0)]),
        (datetime.datetime(2024, 7, 1, tzinfo=zoneinfo.ZoneInfo("UTC")), datetime.datetime),
    ],
    ids=repr,
)
def test_nothing_is_changed_on_its_way_without_a_word(codec, value, annotation):
    refused(value, annotation, codec)


@pytest.mark.parametrize("annotation", [Any, int, list])
@pytest.mark.parametrize(
    ("codec", "number"), [("m", 2**64), ("m", -(2**63) - 1), ("j", 10**4300)], ids="abc"
)
def test_an_int_that_is_too_large_is_refused(codec, number, annotation):
    refused([number] if annotation is list else number, annotation, codec)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_json_never_turns_a_number_into_null(number):
    assert "use the codec 'm'" in refused(number)
    assert "use the codec 'm'" in refused(number, float)
    assert "(at ['a'][1])" in refused({"a": [None, number], "b": "null"})
    assert "would arrive as None" in refused([number], list[float | None])
    refused(Point(number), Point)
    with pytest.raises(PayloadError, match=r"the result cannot travel.*\(at \[0\]\)"):
        seal_result([number])
    with pytest.raises(PayloadError, match="the options cannot travel"):
        seal(options={"timeout": number})
    assert travel([None, "null", {"null": 1.5}], Any, "j") == [None, "null", {"null": 1.5}]


def test_keys_that_are_no_texts_need_an_annotation_in_json():
    assert "keys of int (at ['a'][0]) needs an annotation" in refused({"a": [{1: 2, "b": 3}]})
    assert travel({1: 2}, dict[int, int], "j") == {1: 2}
    refused({(1, 2): 3}, dict[tuple[int, int], int], "j")
    assert travel({(1, 2): 3}, dict[tuple[int, int], int], "m") == {(1, 2): 3}


def test_a_time_zone_says_how_to_send_it():
    berlin = datetime.datetime(2024, 7, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin"))
    assert "astimezone(datetime.UTC)" in refused(berlin, datetime.datetime)


@pytest.mark.parametrize("codec", TEXTUAL)
@pytest.mark.parametrize("annotation", [Any, list])
def test_what_contains_itself_is_refused(codec, annotation):
    value: list[Any] = []
    value.append(value)
    assert "contains itself" in refused(value, annotation, codec)


@pytest.mark.parametrize("codec", TEXTUAL)
@pytest.mark.parametrize("annotation", [Any, list, list[Any], dict[str, list[Any]]])
def test_what_is_nested_deeply_travels_or_is_refused(codec, annotation):
    for depth in (50, 200, 400, 600, 800, 900, 950, 1000, 100_000):
        value: Any = []
        for _ in range(depth):
            value = [value]
        if annotation == dict[str, list[Any]]:
            value = {"a": value}
        try:
            assert repr(travel(value, annotation, codec)) == repr(value)
        except PayloadError:
            assert depth > 200
            assert "nested too deeply" in refused(value, annotation, codec)


class Moody:
    """Neither shows itself nor compares."""

    def __init__(self, x):
        self.x = x

    def __repr__(self):
        raise LookupError("no repr")

    def __eq__(self, other):
        raise LookupError("no equality")

    __hash__ = None


@pytest.mark.parametrize("codec", TEXTUAL)
def test_what_a_value_raises_when_it_is_looked_at_is_our_error(codec):
    class Shy(enum.Enum):
        A = "a"

        def __eq__(self, other):
            raise LookupError("no equality")

        __hash__ = object.__hash__

    @dataclasses.dataclass
    class Picky:
        x: int

        def __post_init__(self):
            if self.x:
                raise LookupError("no such x")

        __repr__ = Moody.__repr__

    refused(Moody(1), Any, codec)
    refused({"a": Moody(1)}, dict[str, Any], codec)
    assert "no equality" in refused(Shy.A, Shy, codec)
    value = Picky(0)
    value.x = 1
    assert "annotated as" in refused(value, Picky, codec)


@pytest.mark.parametrize("codec", TEXTUAL)
def test_half_a_character_is_refused(codec):
    for annotation in (Any, str):
        assert "surrogates" in refused("\ud800", annotation, codec)


def test_the_argument_that_cannot_travel_is_named():
    def code(first, *rest, key=None, **others): ...

    hints = Hints.of(code)
    for args, kwargs, name in [
        ((1, Opaque()), {}, "'*rest'"),
        ((1,), {"key": Opaque()}, "'key'"),
        ((1,), {"other": "\ud800"}, "'other'"),
        (("\ud800",), {}, "'first'"),
    ]:
        with pytest.raises(PayloadError, match=r"the argument .* cannot travel") as raised:
            seal(args, kwargs, hints=hints)
        assert f"the argument {name} " in str(raised.value)
    with pytest.raises(PayloadError, match="the argument number 2 "):
        seal((1, Opaque()))


def test_a_pickle_that_cannot_be_made_is_refused():
    with pytest.raises(PayloadError, match="cannot travel as pickle"):
        seal((lambda: 1,), codec="p", keyring=KEYRING)
    with pytest.raises(PayloadError, match="the result cannot travel as pickle"):
        seal_result(lambda: 1, codec="p")


def test_there_are_three_codecs():
    for call in (lambda: seal(codec="x"), lambda: seal_result(1, codec="jm"), lambda: codec_of("")):
        with pytest.raises(ConfigurationError, match="there is no codec"):
            call()


# --- limits --------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", TEXTUAL)
def test_limits_hold_on_both_sides(codec):
    data = seal(("x" * 500,), codec=codec)
    assert read_task(data, limit=len(data)).id == "id"
    assert seal(("x" * 500,), codec=codec, limit=len(data)) == data
    with pytest.raises(EnvelopeError, match="over the limit of"):
        read_task(data, limit=len(data) - 1)
    with pytest.raises(PayloadError, match="send a path or a key"):
        seal(("x" * 500,), codec=codec, limit=len(data) - 1)
    result = seal_result("x" * 500, codec=codec)
    with pytest.raises(EnvelopeError, match="over the limit of"):
        read_result(result, limit=len(result) - 1)
    with pytest.raises(PayloadError, match="return its path or key"):
        seal_result("x" * 500, codec=codec, limit=len(result) - 1)


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 201, "ä" * 101])
def test_a_name_is_a_short_printable_text(name):
    with pytest.raises(PayloadError, match="a task's name takes"):
        seal(name=name)


# --- the header ----------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", ["j", "m", "p"])
def test_the_header_is_read_without_the_arguments(codec):
    keyring = KEYRING if codec == "p" else None
    sent = seal(
        (1,), {"a": 2}, codec, kind="async", created=1700000000.25, options={"timeout": 1.5},
        keyring=keyring,
    )  # fmt: skip
    sealed = read_task(sent, accept=codec, keyring=keyring, task_id="id")
    assert (sealed.version, sealed.id, sealed.name, sealed.kind) == (1, "id", "app.work", "async")
    assert (sealed.created, sealed.options) == (1700000000.25, {"timeout": 1.5})
    assert type(sealed.args) is msgspec.Raw


def test_json_can_be_read_by_people():
    assert seal((1, "b"), {"c": None}) == b'g1j[1,"id","app.work","sync",[1,"b"],{"c":null},1.5,{}]'
    assert seal_result([1]) == b"g1j[1,false,[1]]"


@pytest.mark.parametrize("codec", TEXTUAL)
def test_only_accepted_codecs_are_read(codec):
    other = "mj".replace(codec, "")
    with pytest.raises(EnvelopeError, match=f"codec '{codec}' is not accepted here"):
        read_task(seal(codec=codec), accept=other)
    with pytest.raises(EnvelopeError, match=f"codec '{codec}' is not accepted here"):
        read_result(seal_result(1, codec=codec), accept=other)


def test_pickles_are_not_accepted_unless_asked_for():
    with pytest.raises(EnvelopeError, match="codec 'p' is not accepted"):
        read_task(seal(codec="p", keyring=KEYRING), keyring=KEYRING)


def test_an_envelope_stands_for_its_own_task_only():
    with pytest.raises(EnvelopeError, match="is of the task 'id', not of 'other'"):
        read_task(seal(), task_id="other")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "no envelope"),
        (b"g", "no envelope"),
        (b"g1", "codec b'' is unknown"),
        (b"g1z[]", "codec b'z' is unknown"),
        (b"g2j[]", "version b'g2' is unknown"),
        (b"\x80\x04N.", "no envelope"),
        (b"g1j", "malformed"),
        (b"g1j[]", "malformed"),
        (b"g1j{}", "malformed"),
        (b'g1j[2,"id","n","sync",[],{},1.5,{}]', "version 2 is unknown"),
        (b'g1j[7,{"all":"new"}]', "version 7 is unknown"),
        (b'g1j[1,"","n","sync",[],{},1.5,{}]', "malformed"),
        (b'g1j[1,"id","n","other",[],{},1.5,{}]', "malformed"),
        (b'g1j[1,"i\\nd","n","sync",[],{},1.5,{}]', "not printable"),
        (b'g1j[1,"id","n","sync",[],{},1.5,{}]x', "malformed"),
        (b"g1j" + b"[" * 100_000, "malformed"),
        (b"g1m" + b"\x91" * 100_000, "malformed"),
        (b"g1m\x98\x01\xa1i\xa1n\xa4sync\xdd\xff\xff\xff\xff", "malformed"),
        (b"g1p" + b"\x80\x04N.", "nobody signed"),
        (b"g1J2025", "signature is not whole"),
        (b"g1J.", "signature is not whole"),
        (b"g1J2025." + b"0" * 64, "no keyring here"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_is_no_envelope_says_so(data, says):
    with pytest.raises(EnvelopeError, match=says):
        read_task(data, accept="jmp")


def test_a_result_says_what_is_wrong_with_it():
    for data, says in [
        (b"g1j[2,false,1]", "version 2 is unknown"),
        (b"g1j[1,false]", "malformed"),
        (b"g1j[1,false,]", "malformed"),
        (b"g1p\x80\x04N.", "nobody signed"),
    ]:
        with pytest.raises(EnvelopeError, match=says):
            read_result(data, accept="jmp")


# --- damage --------------------------------------------------------------------------------------

HINTS = Hints.of(taking(dict[str, list[Point]]))
DAMAGED = {
    "j": seal(({"ä": [Point(1.5)]},), {"b": b"\x00".hex()}, "j", HINTS),
    "m": seal(({"ä": [Point(1.5)]},), {"b": [1, None, b"\x00"]}, "m", HINTS),
}


def open_damaged(data):
    """Open what may be damaged: a well-formed task, or our error, and never anything else."""
    try:
        sealed = read_task(data)
        for hints in (HINTS, None):
            args, kwargs = arguments_of(data, hints)
            assert type(args) is tuple
            assert all(type(name) is str for name in kwargs)
    except EnvelopeError:
        return
    assert 0 < len(sealed.id) <= 200
    assert 0 < len(sealed.name) <= 200


@pytest.mark.parametrize("codec", TEXTUAL)
def test_no_changed_byte_does_harm(codec):
    data = DAMAGED[codec]
    for place in range(len(data)):
        for byte in range(256):
            open_damaged(data[:place] + bytes([byte]) + data[place + 1 :])


@pytest.mark.parametrize("codec", TEXTUAL)
def test_no_envelope_that_is_cut_short_opens(codec):
    data = DAMAGED[codec]
    for length in range(len(data)):
        with pytest.raises(EnvelopeError):
            read_task(data[:length])


@given(head=st.sampled_from([b"", b"g1", b"g1j", b"g1m", b"g1J", b"g1p"]), tail=st.binary())
def test_no_garbage_does_harm(head, tail):
    open_damaged(head + tail)
    try:
        read_result(head + tail)
    except EnvelopeError:
        pass


@given(body=st.recursive(st.none() | INTS | TEXTS | st.binary(), st.lists), letter=st.just("m"))
def test_no_well_formed_nonsense_does_harm(body, letter):
    data = b"g1m" + codec_of(letter).encode(body)
    open_damaged(data)
    try:
        read_result(data, HINTS)
    except EnvelopeError:
        pass


# --- hints ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", TEXTUAL)
def test_further_arguments_have_annotations_too(codec):
    def code(first: bytes, /, *rest: datetime.date, key: set[int], **others: uuid.UUID): ...

    day, number = datetime.date(2024, 1, 1), uuid.UUID(int=1)
    args, kwargs = (b"x", day, day), {"key": {1}, "more": number}
    hints = Hints.of(code)
    got = arguments_of(seal(args, kwargs, codec, hints), hints)
    assert difference((args, kwargs), got) is None


@pytest.mark.parametrize("codec", TEXTUAL)
def test_a_task_class_is_described_by_its_options(codec):
    task = ManyOptions(when=datetime.date(2024, 1, 1), loose=[1])
    hints = Hints.of(ManyOptions)
    got = arguments_of(seal(*task.arguments(), codec, hints), hints)
    assert difference(task.arguments(), got) is None
    result = seal_result(task.when, codec=codec, hints=hints)
    assert difference(task.when, read_result(result, hints)) is None


def test_hints_are_found_once():
    code = taking(int)
    assert Hints.of(code) is Hints.of(code)
    assert Hints.of(ManyOptions) is Hints.of(ManyOptions)


@pytest.mark.parametrize(
    "annotation",
    [str | datetime.date, "Unknown", collections.abc.Callable, typing.TypeVar("T"), object],
    ids=str,
)
def test_what_no_codec_can_read_counts_as_not_annotated(annotation):
    assert travel("text", Any if annotation is collections.abc.Callable else annotation, "j")
    refused(datetime.date(2024, 1, 1), annotation)


def test_code_that_tells_nothing_about_itself_takes_plain_values():
    for target in (dict.fromkeys, print, int, 5):
        hints = Hints.of(target)
        assert arguments_of(seal((1, "a"), {"b": [2]}, hints=hints), hints) == (
            (1, "a"),
            {"b": [2]},
        )


def test_a_sender_without_the_code_sends_what_the_annotation_reads():
    """By name, from a command line: a text becomes the date that the code asks for."""
    data = seal(("2024-01-02",), {})
    assert arguments_of(data, Hints.of(taking(datetime.date))) == ((datetime.date(2024, 1, 2),), {})
    with pytest.raises(EnvelopeError, match=r"the argument 'value' does not fit int"):
        arguments_of(data, Hints.of(taking(int)))


def test_what_a_class_raises_while_it_is_built_is_our_error():
    @dataclasses.dataclass
    class Picky:
        x: int

        def __post_init__(self):
            if self.x:
                raise LookupError("no such x")

    with pytest.raises(EnvelopeError, match="no such x"):
        arguments_of(seal(({"x": 1},)), Hints.of(taking(Picky)))


# --- results -------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", TEXTUAL)
def test_a_return_annotation_may_be_wrong_about_plain_values(codec):
    assert come_back(None, int, codec) is None
    assert come_back("text", datetime.date, codec) == "text"
    assert come_back((1, "a"), dict[str, int], codec) == [1, "a"]
    with pytest.raises(PayloadError, match="would arrive as"):
        come_back({1}, list[int], codec)


def test_whoever_lacks_the_code_reads_a_result_as_plain_values():
    hints = Hints.of(taking(datetime.date))
    assert read_result(seal_result(datetime.date(2024, 1, 2), hints=hints)) == "2024-01-02"


def test_a_result_that_does_not_fit_is_our_error():
    data = seal_result(datetime.date(2024, 1, 2), hints=Hints.of(taking(datetime.date)))
    with pytest.raises(EnvelopeError, match="the result does not fit UUID"):
        read_result(data, Hints.of(taking(uuid.UUID)))
