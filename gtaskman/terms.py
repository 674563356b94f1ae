"""``Terms``: how a task waits before it runs, and how long its report is kept afterwards.

Limits, which hold while it runs, are part of its definition. Terms are not: a worker never hears
of them, and each call may have its own.
"""

from __future__ import annotations

import datetime
import hashlib
import re
from typing import Any, TypeGuard

import msgspec

from gtaskman.errors import TaskOptionError
from gtaskman.fields import shown

LOWEST_PRIORITY, HIGHEST_PRIORITY = -100, 100
MAX_KEY = 200  # characters of a unique key
LONGEST = 1e9  # seconds, some thirty years: what is longer is a mistake
LATEST = 1e11  # seconds since the epoch, the year 5138
_QUEUE = re.compile(r"[A-Za-z0-9_.-]{1,100}")


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """How a task waits; times in seconds. Raises :class:`TaskOptionError`, which names the field.

    ``queue`` names the queue that it goes to; the in-memory queue is one, whatever it is called.
    Those of a higher ``priority`` (-100 to 100) go first. It becomes due ``delay`` seconds after
    it was submitted, or at ``eta``, an aware datetime (kept as seconds since the epoch). Of those
    with one ``unique`` key only one waits or runs at a time; True stands for the task's name and
    arguments. It must start within ``ttl`` seconds from when it is due, or fails as expired. Its
    last report is kept for ``result_ttl`` seconds.
    """

    queue: str = "default"
    priority: int = 0
    delay: float = 0.0
    eta: float | None = None
    unique: str | bool = False
    ttl: float | None = None
    result_ttl: float | None = None

    def __post_init__(self) -> None:
        _check_queue(self.queue)
        _check_priority(self.priority)
        _check_seconds("delay", self.delay)
        _check_unique(self.unique)
        if self.eta is not None:
            msgspec.structs.force_setattr(self, "eta", _moment(self.eta))
        if self.ttl is not None:
            _check_seconds("ttl", self.ttl)
            if not self.ttl:
                raise _wrong("ttl", "seconds above 0", self.ttl)
        if self.result_ttl is not None:
            _check_seconds("result_ttl", self.result_ttl)
        if self.delay and self.eta is not None:
            raise TaskOptionError("delay and eta contradict each other: give one", None, "eta")

    def replace(self, **changes: Any) -> Terms:
        """The same terms with ``changes``; a new ``delay`` takes the place of an ``eta``, and
        the other way round."""
        if "delay" in changes:
            changes.setdefault("eta", None)
        elif changes.get("eta") is not None:
            changes["delay"] = 0.0
        changed = msgspec.structs.replace(self, **changes)
        return DEFAULT if changed == DEFAULT else changed

    def wait(self, now: float) -> float:
        """Seconds until it becomes due, if it is submitted ``now`` (since the epoch)."""
        return max(0.0, self.eta - now) if self.eta is not None else self.delay


def fingerprint(name: str, arguments: Any) -> str:
    """A key for this task with these arguments, the same in every process.

    Equal arguments of the same types give the same key. Raises :class:`TaskOptionError` for what
    has no form that is the same everywhere: numbers, texts, bytes, dates, lists, dicts, sets,
    dataclasses and the like have one.
    """
    try:
        written = msgspec.msgpack.encode(arguments, order="deterministic")
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise TaskOptionError(
            f"{name}: unique=True needs arguments that are written alike in every process"
            f" ({error}): give a text as the key instead",
            name,
            "unique",
        ) from None
    return f"{name}:{hashlib.sha256(written).hexdigest()[:32]}"


def _wrong(field: str, expected: str, value: object) -> TaskOptionError:
    return TaskOptionError(f"{field} takes {expected}, not {shown(value)}", None, field)


def _check_queue(value: object) -> None:
    if not isinstance(value, str) or not _QUEUE.fullmatch(value):
        raise _wrong("queue", "1 to 100 letters, digits, '_', '.' or '-'", value)


def _check_priority(value: object) -> None:
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if not is_whole or value not in range(LOWEST_PRIORITY, HIGHEST_PRIORITY + 1):
        expected = f"a whole number from {LOWEST_PRIORITY} to {HIGHEST_PRIORITY}"
        raise _wrong("priority", expected, value)


def _check_unique(value: object) -> None:
    if isinstance(value, bool):
        return
    if not isinstance(value, str) or not 0 < len(value) <= MAX_KEY or not value.isprintable():
        raise _wrong("unique", f"True, or a printable text of 1 to {MAX_KEY} characters", value)


def _check_seconds(field: str, value: object) -> None:
    if not _is_number(value) or not 0 <= value <= LONGEST:
        raise _wrong(field, f"seconds from 0 to {LONGEST:,.0f}", value)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _moment(value: object) -> float:
    """An aware datetime, or seconds since the epoch, as the latter."""
    if isinstance(value, datetime.datetime):
        if value.utcoffset() is None:
            raise TaskOptionError(
                f"eta={value!r} has no time zone, and so is no moment: make it aware"
                " (datetime.now(timezone.utc) + ..., or value.astimezone()), or give delay=",
                None,
                "eta",
            )
        value = value.timestamp()
    if not _is_number(value) or not abs(value) <= LATEST:
        raise _wrong("eta", "an aware datetime or seconds since the epoch", value)
    return float(value)


DEFAULT = Terms()
"""The terms of most tasks: whoever is in a hurry compares with ``is``."""
