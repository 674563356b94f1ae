"""The journal of a run: one file, to which all its processes add lines that no kill can tear."""

from __future__ import annotations

import json
import logging
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

from chaos.settings import settings

SLIP = "the code has failed, as it was told to"
_descriptors: dict[int, int] = {}  # by process: a fork opens its own


class Event(NamedTuple):
    """Something that happened; ``at`` is in monotonic seconds, the same for all processes."""

    at: float
    pid: int
    what: str
    told: list[Any]


def write(what: str, *told: Any) -> None:
    """Note that something happens in this process."""
    pid = os.getpid()
    descriptor = _descriptors.get(pid)
    if descriptor is None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        descriptor = _descriptors[pid] = os.open(settings().journal, flags)
    os.write(descriptor, json.dumps([time.monotonic(), pid, what, *told]).encode() + b"\n")


def read(path: Path) -> list[Event]:
    """All that was noted so far, in order."""
    events = []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        at, pid, what, *told = json.loads(line)
        events.append(Event(at, pid, what, told))
    return events


class _Witness(logging.Handler):
    """Notes what the product itself says has gone wrong."""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info:
            text += f"\n{logging.Formatter().formatException(record.exc_info)}"
        write("log", record.levelname, str(record.msg), text)


def witness() -> None:
    """Note the warnings and errors that this process logs."""
    logging.getLogger("gtaskman").addHandler(_Witness(logging.WARNING))
