"""What travels arrives as it was: equal, and of the same type."""

from __future__ import annotations

import array
import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import ipaddress
import math
import pathlib
import random
import time
import uuid
import zlib
from typing import Any

import gevent
import msgspec

import gtaskman
from scenarios import stage, work
from scenarios.stage import PATIENCE

MIB = 1024 * 1024


class Colour(enum.Enum):
    RED = "red"
    GREEN = "green"


class Flags(enum.IntFlag):
    A = 1
    B = 2


@dataclasses.dataclass
class Point:
    x: float
    y: object = None


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    name: str
    parts: tuple


class Record(msgspec.Struct):
    number: int
    inner: object = None


Pair = collections.namedtuple("Pair", "left right")


class SubInt(int):
    pass


class SubDict(dict):
    pass


class SubBytes(bytes):
    pass


LEAVES = (
    lambda r: None,
    lambda r: r.random() < 0.5,
    lambda r: r.randrange(-300, 300),
    lambda r: r.randrange(-(2**70), 2**70),
    lambda r: r.getrandbits(2000),
    lambda r: r.uniform(-1e300, 1e300),
    lambda r: r.choice([math.inf, -math.inf, 0.0, -0.0, 5e-324]),
    lambda r: complex(r.random(), -r.random()),
    lambda r: "".join(chr(r.choice([0, 32, 0xE9, 0x20AC, 0x1F600])) for _ in range(r.randrange(9))),
    lambda r: "\ud800",  # not to be encoded as UTF-8
    lambda r: r.randbytes(r.randrange(40)),
    lambda r: bytearray(r.randbytes(r.randrange(40))),
    lambda r: decimal.Decimal(r.randrange(10**6)) / 1000,
    lambda r: fractions.Fraction(r.randrange(1, 99), 7),
    lambda r: datetime.datetime(2024, 2, 29, 12, r.randrange(60), tzinfo=datetime.UTC),
    lambda r: datetime.datetime(2024, 2, 29, fold=1),
    lambda r: datetime.timedelta(microseconds=r.randrange(10**9)),
    lambda r: datetime.date(2020, 1, 1),
    lambda r: uuid.UUID(int=r.getrandbits(128)),
    lambda r: pathlib.PurePosixPath("/a/b") / str(r.randrange(9)),
    lambda r: ipaddress.ip_address(r.getrandbits(32)),
    lambda r: r.choice(list(Colour)),
    lambda r: Flags.A | Flags.B,
    lambda r: range(r.randrange(9), 99, 3),
    lambda r: slice(1, None, 2),
    lambda r: SubInt(r.randrange(9)),
    lambda r: SubBytes(b"sub"),
    lambda r: array.array("d", [r.random()]),
    lambda r: Ellipsis,
    lambda r: int,
    lambda r: work.double,
    lambda r: ValueError("as a value", r.randrange(9)),
)


def make(chance: random.Random, depth: int):
    """Any value."""
    if depth == 0 or chance.random() < 0.3:
        return chance.choice(LEAVES)(chance)

    def some():
        return [make(chance, depth - 1) for _ in range(chance.randrange(4))]

    def keys():
        return [chance.choice([1, "a", (1, 2), None, 1.5, b"k", frozenset([3])]) for _ in range(3)]

    return chance.choice(
        [
            some,
            lambda: tuple(some()),
            lambda: dict(zip(keys(), some(), strict=False)),
            lambda: set(keys()),
            lambda: frozenset(keys()),
            lambda: collections.deque(some(), maxlen=9),
            lambda: collections.OrderedDict(zip(keys(), some(), strict=False)),
            lambda: collections.defaultdict(list, {"a": some()}),
            lambda: collections.Counter("abca"),
            lambda: Point(chance.random(), make(chance, depth - 1)),
            lambda: Frozen("n", tuple(some())),
            lambda: Record(chance.randrange(9), make(chance, depth - 1)),
            lambda: Pair(*[make(chance, depth - 1) for _ in range(2)]),
            lambda: SubDict(a=make(chance, depth - 1)),
        ]
    )()


def same(one, other) -> bool:
    """Whether they are equal, and of the same types through and through."""
    if type(one) is not type(other):
        return False
    if isinstance(one, BaseException):
        return same(one.args, other.args)
    if isinstance(one, float):
        return repr(one) == repr(other)
    if dataclasses.is_dataclass(one) and not isinstance(one, type):
        return all(
            same(getattr(one, field.name), getattr(other, field.name))
            for field in dataclasses.fields(one)
        )
    if isinstance(one, msgspec.Struct):
        return all(same(getattr(one, f), getattr(other, f)) for f in one.__struct_fields__)
    if isinstance(one, dict):
        return (
            len(one) == len(other)
            and all(same(a, b) for a, b in zip(one, other, strict=True))
            and all(same(one[key], other[key]) for key in one)
            and getattr(one, "default_factory", None) == getattr(other, "default_factory", None)
        )
    if isinstance(one, (list, tuple, collections.deque)):
        return (
            len(one) == len(other)
            and getattr(one, "maxlen", None) == getattr(other, "maxlen", None)
            and all(same(a, b) for a, b in zip(one, other, strict=True))
        )
    return bool(one == other)


def round_trips(count, seed):
    """Through a real worker and back, in both directions unchanged."""
    chance = random.Random(seed)
    with stage.manager() as manager:
        values = [make(chance, 4) for _ in range(count)] + [each(chance) for each in LEAVES]
        handles = [
            manager.submit(
                work.of(chance.choice(["sync", "async"]), "round_trip"), value, type(value).__name__
            )
            for value in values
        ]
        for value, handle in zip(values, handles, strict=True):
            found = handle.get(timeout=PATIENCE)
            assert same(value, found), (value, found)
        # Keyword arguments and shared parts as well.
        shared = [1]
        found = manager.submit(work.echo, value=[shared, shared]).get(timeout=PATIENCE)
        assert found[0] is found[1]
        loop: list = []
        loop.append(loop)
        found = manager.submit(work.echo, loop).get(timeout=PATIENCE)
        assert found[0] is found


def edges():
    """Sizes around which the way of travelling changes."""
    with stage.manager() as manager:
        sizes = [0, 1, 64 * 1024 - 1, 64 * 1024, 64 * 1024 + 1, MIB - 1, MIB, MIB + 1, 3 * MIB + 17]
        for size in sizes:
            data = random.Random(size).randbytes(size)
            for value in (data, bytearray(data), [data, bytearray(data)], data.decode("latin-1")):
                found = manager.submit(work.echo, value).get(timeout=PATIENCE)
                assert type(found) is type(value) and found == value, (size, type(value))
        # A bytearray that came can be written and grown, and a change does not reach anybody else.
        sent = bytearray(b"a" * 100_000)
        found = manager.submit(work.echo, sent).get(timeout=PATIENCE)
        found[0] = 0
        found.extend(b"more")
        assert sent == b"a" * 100_000
        assert hash(manager.submit(work.give, 100_000).get(timeout=PATIENCE)) == hash(
            b"\x5a" * 100_000
        )


def arrays():
    import numpy

    with stage.manager() as manager:
        generator = numpy.random.default_rng(3)
        cases = [
            generator.random((300, 400)),
            numpy.asfortranarray(generator.random((100, 200))),
            generator.random((100, 200))[::2, ::3],
            generator.integers(0, 9, (5,), dtype="int8"),
            numpy.array(["a", "bc"]),
            numpy.array([], dtype="float32"),
            numpy.array(5),
            numpy.array([{"a": 1}, None], dtype=object),
            numpy.zeros(10, dtype=[("a", "i4"), ("b", "f8")]),
            numpy.datetime64("2024-01-01"),
            numpy.float32(1.5),
        ]
        for value in cases:
            found = manager.submit(work.echo, value).get(timeout=PATIENCE)
            assert type(found) is type(value)
            assert found.dtype == value.dtype and found.shape == value.shape
            assert numpy.array_equal(found, value)
        found = manager.submit(work.echo, cases[0]).get(timeout=PATIENCE)
        found[0, 0] = 7  # it is the receiver's own
        assert cases[0][0, 0] != 7


def large_ones(what, size):
    """So many bytes both ways through both workers at once (7); gives the hub's worst lag."""
    data = bytearray(random.Random(1).randbytes(MIB) * (size // MIB))
    if what == "bytes":
        value = bytes(data)
    elif what == "numpy":
        import numpy

        value = numpy.frombuffer(data, dtype="uint8").copy()
    else:
        value = data
    expected = zlib.crc32(data)
    with stage.manager(min_processes=2, max_processes=2) as manager:
        # Both are up, and have the code.
        for each in [manager.submit(work.nap, 0.2) for _ in range(2)]:
            each.get(timeout=PATIENCE)
        lags = []

        def tick():
            while True:
                before = time.monotonic()
                gevent.sleep(0.001)
                lags.append(time.monotonic() - before - 0.001)

        ticker = gevent.spawn(tick)
        handles = [manager.submit(work.check_sum, value, size, expected) for _ in range(2)]
        gevent.wait(handles, timeout=4 * PATIENCE)
        ticker.kill()
        assert len({each.report.worker for each in handles}) == 2
        for handle in handles:
            found = handle.get(timeout=0)
            assert type(found) is type(value)
            assert expected == zlib.crc32(memoryview(found).cast("B"))
        lags.sort()
        return {"worst": lags[-1] * 1e3, "p99": lags[int(len(lags) * 0.99)] * 1e3}


# --- for properties of any value


def of(kind, name):
    """The task function ``name`` of this kind."""
    return globals()[name if kind == "sync" else f"{name}_async"]


class Carry(gtaskman.Task):
    """A task whose option is its result."""

    value: Any

    def run(self, progress):  # noqa: ARG002
        return self.value


@gtaskman.task(kind="async")
def wait_for_file(path):
    while not pathlib.Path(path).exists():
        gevent.sleep(0.02)
    return "came"


@gtaskman.task
def give_nested(depth):
    value = None
    for _ in range(depth):
        value = [value]
    return value


@gtaskman.task
def raise_text(text):
    raise ValueError(text)


@gtaskman.task
def say_progress(message, number):
    pen = gtaskman.current().progress
    pen.update(message=message)
    said = pen.message
    pen.update(number)
    return said


@gtaskman.task
def tell_attempt():
    return gtaskman.current().attempt


@gtaskman.task(kind="async")
def give_nested_async(depth):
    return give_nested(depth)


@gtaskman.task(kind="async")
def raise_text_async(text):
    raise ValueError(text)


@gtaskman.task(kind="async")
def say_progress_async(message, number):
    return say_progress(message, number)
