"""Tasks that travel through a server, and are annotated: what arrives is as it was sent.

Others are those of ``scenarios.work``. Importing this starts nothing.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import os
import uuid
from dataclasses import dataclass

import gevent
from scenarios import work

import gtaskman


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Point:
    x: int
    y: float


@dataclass
class Everything:
    moment: datetime.datetime
    key: uuid.UUID
    price: decimal.Decimal
    data: bytes
    names: set[str]
    pair: tuple[int, str]
    colour: Colour
    points: list[Point]


@gtaskman.task
def double(number: int) -> int:
    return 2 * number


@gtaskman.task(kind="async")
def double_async(number: int) -> int:
    return 2 * number


@gtaskman.task
def mirror(
    everything: Everything, moment: datetime.datetime, *names: bytes, key: uuid.UUID
) -> tuple[Everything, datetime.datetime, list[bytes], uuid.UUID, str]:
    """What came, and of which types it was here."""
    kinds = ",".join(type(each).__name__ for each in (everything, moment, *names, key))
    return everything, moment, list(names), key, kinds


@gtaskman.task
def invert(number: int) -> float:
    return 1 / number


class Multiply(gtaskman.Task):
    first: decimal.Decimal
    second: decimal.Decimal = decimal.Decimal(2)

    def run(self, progress: gtaskman.Progress) -> decimal.Decimal:
        progress.update(message="multiplying")
        return self.first * self.second


@gtaskman.task
def mirror_moment(moment: datetime.datetime | None = None) -> datetime.datetime:
    return moment or datetime.datetime(2026, 2, 3, tzinfo=datetime.UTC)


@gtaskman.task
def text(size: int) -> str:
    """A text of so many characters."""
    return "x" * size


@gtaskman.task
def whatever(value):
    """Unannotated: it comes back as the codec has it."""
    return value


@gtaskman.task
def steps(count: int) -> int:
    """Say how far it is, ``count`` times."""
    for step in range(1, count + 1):
        gtaskman.current().progress.update(step, target=count, message=f"step {step}")
        work.original_sleep(0.3)  # longer than progress is gathered for
    return count


def _hang_once(path: str) -> int:
    """Hang the first time, and say so; give the attempt the next time."""
    attempt = gtaskman.current().attempt
    first = not os.path.exists(path)
    work.mark(path, f"begin {attempt}")
    if first:
        try:
            gevent.sleep(600)
        finally:
            work.mark(path, "stopped")
    return attempt


@gtaskman.task
def hang_once(path: str) -> int:
    return _hang_once(path)


@gtaskman.task(kind="async")
def hang_once_async(path: str) -> int:
    return _hang_once(path)


@gtaskman.task
def linger(path: str, seconds: float) -> int:
    """Mark when it begins and when it ends."""
    work.mark(path, "begin")
    work.original_sleep(seconds)
    work.mark(path, "end")
    return os.getpid()


@gtaskman.task
def nested(number: int) -> int:
    """Send one more task from inside one, by the default manager of the worker."""
    return gtaskman.submit(double, number).get(timeout=20)


@gtaskman.task
def complain(text):
    """Raise with any text."""
    raise ValueError(text)


@gtaskman.task
def mutter(completed, target, message):
    """Say any numbers and any text as progress."""
    gtaskman.current().progress.update(completed, target=target, message=message)
    return "said"


@gtaskman.task
def stop_slowly(path: str, seconds: float, clean_up: float) -> int:
    """Mark when it begins, ends, and has stopped, which takes a while."""
    work.mark(path, "begin")
    try:
        gevent.sleep(seconds)
    except BaseException:
        work.original_sleep(clean_up)
        work.mark(path, "stopped")
        raise
    work.mark(path, "end")
    return 1


@gtaskman.task
def odd_progress() -> int:
    """Write what no encoding has."""
    progress = gtaskman.current().progress
    progress.update(1, message="caf\udce9")
    work.original_sleep(0.5)
    return 1
