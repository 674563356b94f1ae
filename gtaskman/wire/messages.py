"""The messages of the pipe: their kinds, flags and bodies.

::

    manager -> worker: DEFINE  which code a target number means
                       RUN     do this task (number: this run of it)
                       CANCEL  stop it, and why
                       RECALL  give back what has not started
                       PING    say what you are doing
                       STOP    end
    worker -> manager: READY   send me work
                       DONE FAIL  how a run ended
                       PROGRESS   how far it is
                       RETURNED   runs that were recalled and had not started
                       PONG       an answer to PING, with a stack

Parent and child are the same version of gtaskman by construction: the child is a fork, or was
started by the parent from the same files.
"""

from __future__ import annotations

import enum
import pickle
import struct
from typing import Any, NamedTuple

# Kinds are plain ints on the hot path; the enum only names them in errors and reprs.
DEFINE, RUN, CANCEL, RECALL, PING, STOP = range(1, 7)
READY, DONE, FAIL, PROGRESS, RETURNED, PONG = range(17, 23)

# Flags of RUN, beside payload.EMPTY (1)
ASYNC = 2  # run it as a greenlet beside others
ONCE = 4  # its result is flushed at once, so that a crash of the next task cannot lose it
CHUNK = 8  # its only argument is a list: call the target with each of them
CLASS = 16  # the target is a Task class: revive it and call its run


class Why(enum.IntEnum):
    """Why a task is to stop; travels as the flags of CANCEL."""

    CANCELLED = 0
    TIMEOUT = 1
    SOFT_TIMEOUT = 2


class Ended(enum.IntEnum):
    """How a run failed; travels as the flags of FAIL."""

    ERROR = 0
    CANCELLED = 1
    TIMEOUT = 2
    UNRESOLVED = 3  # the code could not be imported in the worker
    UNDECODED = 4  # the arguments could not be decoded there


# RUN: target u32, attempt u16, length of the id u16, time limit f64 (0: none); id; payload
ORDER = struct.Struct("<IHHd")
# DONE and FAIL: start and end on the system's monotonic clock, which all its processes share
SPAN = struct.Struct("<dd")
SPAN_SIZE = SPAN.size


class Order(NamedTuple):
    """What a worker is told to run."""

    number: int
    flags: int
    target: int
    attempt: int
    id: str
    limit: float
    body: bytes
    buffers: Any


def pack_order(target: int, attempt: int, task_id: str, limit: float, payload: bytes) -> bytes:
    """The body of RUN."""
    name = task_id.encode()
    return ORDER.pack(target, attempt, len(name), limit) + name + payload


def unpack_order(number: int, flags: int, body: memoryview, buffers: Any) -> Order:
    """RUN, with its body copied: the view is valid only until the next read."""
    target, attempt, length, limit = ORDER.unpack_from(body)
    data = bytes(body)
    start = ORDER.size + length
    task_id = data[ORDER.size : start].decode()
    return Order(number, flags, target, attempt, task_id, limit, data[start:], buffers)


class Fault(NamedTuple):
    """The body of FAIL: an exception in words, and pickled where it can travel."""

    exc_type: str | None
    message: str
    traceback: str | None
    exception: bytes | None


class Stack(NamedTuple):
    """The body of PONG: what the worker was doing."""

    running: int
    jobs: int
    text: str


def pack(value: Any) -> bytes:
    """The body of a message that is not on the hot path."""
    return pickle.dumps(value, 5)


def unpack(body: memoryview) -> Any:
    """What :func:`pack` packed."""
    return pickle.loads(body)
