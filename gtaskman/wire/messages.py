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
                       VOIDS      runs that returned nothing, as many as had ended by then
                       PROGRESS   how far it is
                       RETURNED   runs that were recalled and had not started
                       PONG       an answer to PING, with a stack
                       HELD       an async run kept the hub, and so the runs beside it, from running
    between a manager of services and a worker that is one, beside these:
    manager -> worker: END     end the service, in its own way
    worker -> manager: UP      how far the service is
                       TELL    a message for whoever listens
    both:              CALL    call this method (number: the call's, of whoever calls)
                       ANSWER  what it returned or raised

Parent and child are the same version of gtaskman by construction: the child is a fork, or was
started by the parent from the same files.
"""

from __future__ import annotations

import enum
import pickle
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

from gtaskman.task import ASYNC, CLASS, ONCE
from gtaskman.wire.frames import head

__all__ = ["ASYNC", "CHUNK", "CLASS", "ONCE"]

# Kinds are plain ints on the hot path; the enum only names them in errors and reprs.
DEFINE, RUN, CANCEL, RECALL, PING, STOP = range(1, 7)
READY, DONE, FAIL, PROGRESS, RETURNED, PONG, VOIDS, HELD = range(17, 25)
TO_WORKER = range(DEFINE, STOP + 1)
TO_MANAGER = range(READY, HELD + 1)
END, CALL, ANSWER, UP, TELL = range(33, 38)
TO_SERVICE = frozenset({*TO_WORKER, END, CALL, ANSWER})
FROM_SERVICE = frozenset({*TO_MANAGER, UP, TELL, CALL, ANSWER})
RAISED = 2  # flag of ANSWER, beside payload.EMPTY: the body is a Fault

# Flags of RUN, beside payload.EMPTY (1) and those of the definition: ASYNC (2), run it as a
# greenlet beside others; ONCE (4), flush its result at once, so that a crash of the next task
# cannot lose it; CLASS (16), the target is a Task class: revive it and call its run.
CHUNK = 8  # its last argument is a list: call the target with each of its items
# Of RUN and of DONE: the payload is an envelope, for a server in between (gtaskman.envelope).
SEALED = 32


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


class Up(enum.IntEnum):
    """How far a service is; travels as the flags of UP."""

    ENTERED = 0  # its run has been entered
    READY = 1  # it is ready as well


# RUN: target u32, attempt u32, length of the id u16, time limit f64 (0: none); id; payload
ORDER = struct.Struct("<IIHd")
ORDER_SIZE = ORDER.size
# DONE and FAIL: start and end on the system's monotonic clock, which all its processes share
SPAN = struct.Struct("<dd")
SPAN_SIZE = SPAN.size
# VOIDS, for each run: its number, its start and end
VOID = struct.Struct("<Qdd")
# The same with the frame's header before it, for frames without buffers: one call on the hot path
_pack_order = struct.Struct("<IBBHQIIHd").pack
_pack_span = struct.Struct("<IBBHQdd").pack
# Bytes of a frame that are kept for what stands before a payload: the fields of any message, the
# longest id and key (4 bytes a character), the name of a queue.
_BEFORE_PAYLOAD = 4096


def payload_limit(max_frame: int) -> int:
    """The largest payload, in bytes, that fits any message within a frame of ``max_frame``."""
    return max_frame - _BEFORE_PAYLOAD


def order_frame(
    flags: int,
    number: int,
    target: int,
    attempt: int,
    task_id: str,
    limit: float,
    payload: bytes,
    buffers: Sequence[memoryview],
) -> bytes:
    """RUN without its buffers, which go behind it."""
    name = task_id.encode()
    length = len(name)
    size = ORDER_SIZE + length + len(payload)
    if buffers:
        order = ORDER.pack(target, attempt, length, limit)
        return head(RUN, flags, number, size, buffers) + order + name + payload
    start = _pack_order(size, RUN, flags, 0, number, target, attempt, length, limit)
    return start + name + payload


def reply_frame(
    kind: int,
    flags: int,
    number: int,
    started: float,
    ended: float,
    payload: bytes,
    buffers: Sequence[memoryview],
) -> bytes:
    """DONE or FAIL without its buffers, which go behind it."""
    size = SPAN_SIZE + len(payload)
    if buffers:
        return head(kind, flags, number, size, buffers) + SPAN.pack(started, ended) + payload
    return _pack_span(size, kind, flags, 0, number, started, ended) + payload


class Fault(NamedTuple):
    """The body of FAIL: an exception in words, and pickled where it can travel.

    ``last_message`` is what the task said itself when it failed, or "".
    """

    exc_type: str | None
    message: str
    traceback: str | None
    exception: bytes | None
    last_message: str = ""


class Stack(NamedTuple):
    """The body of PONG: what the worker was doing."""

    pid: int
    running: int
    jobs: int
    text: str


def pack(value: Any) -> bytes:
    """The body of a message that is not on the hot path."""
    return pickle.dumps(value, 5)


def unpack(body: memoryview) -> Any:
    """What :func:`pack` packed."""
    return pickle.loads(body)
