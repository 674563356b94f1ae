"""Hypothesis strategies for values that break encodings, limits and number formats.

They know nothing of a transport: the tests of the pipe and those of a Redis server use the same.
Texts hold lone surrogates, NUL, line ends and terminal escapes; numbers lie at the edges of the
formats that a number is packed into; sizes lie a few bytes below and above a limit.

``terms()`` and ``limits()`` give options for ``with_options``, good and bad. ``spelled`` shortens
a value for a message.
"""

from __future__ import annotations

import datetime
import math
import os

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

# Texts that some encoding, terminal, protocol or file system does not take.
AWKWARD_TEXTS = (
    "",
    " ",
    "\0",
    "a\0b",
    "\n",
    "a\r\nb",
    "\x1b[2J\x1b]0;title\x07",
    "\ud800",
    "caf\udce9.txt",
    "\udfff\ud800",
    "\u2028\u2029\x85",
    "\u202e\u200b\ufeff",
    "\uffff\U0010ffff",
    "\U0001f600" * 60,
    "{}%s%(name)s${x}`'\"\\",
    "../../etc/passwd",
    "{tag}:*?[a]",
    "x" * 199,
    "x" * 200,
    "x" * 201,
    "x" * 4096,
    "x" * 4097,
    "é" * 70_000,
    "\ud800" * 20_000,
)

_EDGES = (0, 1, 2**7, 2**8, 2**15, 2**16, 2**31, 2**32, 2**53, 2**63, 2**64, 2**128, 10**400)
INTEGERS = tuple(
    sorted({sign * edge + by for edge in _EDGES for sign in (1, -1) for by in (-1, 0, 1)})
)
FLOATS = (
    0.0,
    -0.0,
    5e-324,
    -5e-324,
    2.2250738585072014e-308,
    1.7976931348623157e308,
    -1.7976931348623157e308,
    1e9,
    1e11,
    1e18,
    math.inf,
    -math.inf,
    math.nan,
)


def texts(max_size: int = 200) -> st.SearchStrategy[str]:
    """Texts of any code points, surrogates included, and those that something chokes on."""
    anything = st.text(st.characters(exclude_categories=()), max_size=max_size)
    return st.sampled_from(AWKWARD_TEXTS) | anything


def numbers() -> st.SearchStrategy[float]:
    """Numbers at the edges of every format, and some between them."""
    return (
        st.sampled_from(INTEGERS)
        | st.sampled_from(FLOATS)
        | st.integers(-(2**70), 2**70)
        | st.floats()
        | st.booleans()
    )


def sizes_near(*limits: int, reach: int = 70) -> st.SearchStrategy[int]:
    """Sizes from ``reach`` bytes below to ``reach`` above one of ``limits``; the limit itself and
    its neighbours are the likeliest."""
    by = st.sampled_from((-1, 0, 1)) | st.integers(-reach, reach)
    return st.builds(lambda limit, by: max(0, limit + by), st.sampled_from(limits), by)


def nested(depth: int) -> object:
    """Lists in lists, ``depth`` of them."""
    value: object = None
    for _ in range(depth):
        value = [value]
    return value


def depths() -> st.SearchStrategy[int]:
    """Depths for :func:`nested`, up to far beyond what a recursive encoder takes. (The structure
    itself could not be printed.)"""
    return st.sampled_from((1, 50, 150, 300, 900, 1100, 20_000))


def scalars() -> st.SearchStrategy[object]:
    """One value without parts."""
    return (
        st.none()
        | numbers()
        | texts(40)
        | st.binary(max_size=60)
        | st.binary(max_size=60).map(bytearray)
        | st.datetimes(timezones=st.none() | st.just(datetime.UTC))
        | st.timedeltas()
        | st.decimals()
        | st.uuids()
        | st.complex_numbers()
    )


def values(max_leaves: int = 12) -> st.SearchStrategy[object]:
    """Values that pickle carries, of any shape."""
    keys = texts(20) | st.integers() | st.binary(max_size=5) | st.none()
    return st.recursive(
        scalars(),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.tuples(inner, inner)
            | st.dictionaries(keys, inner, max_size=4)
        ),
        max_leaves=max_leaves,
    )


def ids() -> st.SearchStrategy[object]:
    """Ids for a task: good ones, and what cannot be one."""
    return st.uuids().map(str) | texts(210) | st.sampled_from((None, 5, b"bytes", "a" * 200))


def terms() -> st.SearchStrategy[dict[str, object]]:
    """Terms for ``with_options``, one or two at a time, sensible or not. None of them delays a
    task for longer than a moment unless the task must be refused."""
    wild = numbers() | texts(20) | st.none()
    # A wait that is allowed is short: what may be refused is all that is tried beyond that.
    waits = wild.filter(lambda value: not _is_wait(value)) | st.sampled_from((0, 0.01))
    return st.dictionaries(
        st.sampled_from(("priority", "delay", "ttl", "result_ttl", "unique", "queue", "eta")),
        waits,
        max_size=2,
    )


def limits() -> st.SearchStrategy[dict[str, object]]:
    """Limits for ``with_options``, one or two at a time, sensible or not."""
    wild = numbers() | texts(20) | st.none()
    return st.dictionaries(
        st.sampled_from(("timeout", "soft_timeout", "retries", "max_crashes", "backoff")),
        wild.filter(lambda value: not _is_short(value)),
        max_size=2,
    )


def _is_wait(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0.05 < value <= 1e12


def _is_short(value: object) -> bool:
    """Whether a task may fail just because this is its time limit."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 60


def spelled(value: object) -> str:
    """``repr(value)`` in short, even of a number with too many digits."""
    try:
        return f"{value!r:.300}"
    except ValueError:
        return f"a {type(value).__name__} with too many digits"


def alike(left: object, right: object) -> bool:
    """Whether a value came back as it was: equal and of the same type; a NaN is like a NaN."""
    if type(left) is not type(right):
        return False
    if isinstance(left, (list, tuple)):
        # Not by recursion: the structures are deeper than the interpreter's stack.
        pairs = [(left, right)]
        while pairs:
            one, other = pairs.pop()
            if type(one) is not type(other):
                return False
            if isinstance(one, (list, tuple)):
                if len(one) != len(other):
                    return False
                pairs.extend(zip(one, other, strict=True))
            elif not alike(one, other):
                return False
        return True
    if isinstance(left, dict):
        return list(left) == list(right) and all(alike(left[key], right[key]) for key in left)
    if isinstance(left, (str, bytes, bytearray, int)):
        return left == right
    return spelled(left) == spelled(right)  # tells -0.0 from 0.0, and takes a NaN for a NaN


# Bounded and the same each time in the suite; GTASKMAN_EXAMPLES=5000 makes it a long random run.
_examples = int(os.environ.get("GTASKMAN_EXAMPLES", "0"))


def bounded(examples: int, *, shrink: bool = True) -> settings:
    """Settings for a property over real processes: ``examples`` in the suite, always the same.

    ``GTASKMAN_EXAMPLES=5000`` in the environment asks for that many random ones instead. Without
    ``shrink`` the first example that fails is enough: for tests of the properties themselves.
    """
    return settings(
        max_examples=_examples or examples,
        derandomize=not _examples,
        database=None,
        phases=[*Phase] if shrink else [Phase.generate],
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
