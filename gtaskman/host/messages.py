"""What a manager and the other processes of its host say to each other: kinds and bodies.

::

    process -> manager: HELLO     who speaks
                        DEFINE    which code a target number means
                        SUBMIT    run this task (number: the task's, of this connection)
                        ATTACH    tell how a task ends that was not sent over this connection
                        FOLLOW    tell how far this task is, too
                        ASK       answer this question
    manager -> process: WELCOME   how to speak, and how much may be said
                        REFUSED   a task was not taken in, or the whole connection, and why
                        BACK      a task came too late: here it is, for another manager
                        TAKEN     a task was taken in, where it was asked to say so
                        DONE      it has returned
                        ENDED     it has ended otherwise
                        PROGRESS  how far it is
                        ANSWER    an answer
                        CLOSING   nothing new is taken any more

The frames are those of a worker's pipe. Control is MessagePack; arguments and results are left as
the process, or the worker, has encoded them, and go behind it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from gtaskman import errors
from gtaskman.backoff import Backoff
from gtaskman.errors import DuplicateTaskError, FrameError, GTaskmanError
from gtaskman.redis.keys import queue_base
from gtaskman.report import Report, TaskStatus, printable
from gtaskman.terms import Terms
from gtaskman.wire.frames import MAX_BUFFERS
from gtaskman.wire.messages import SEALED
from gtaskman.wire.payload import EMPTY, Payload, as_it_came

VERSION = 1
HELLO, DEFINE, SUBMIT, ATTACH, FOLLOW, ASK = range(65, 71)
WELCOME, REFUSED, BACK, TAKEN, DONE, ENDED, PROGRESS, ANSWER, CLOSING = range(81, 90)
TO_MANAGER = range(HELLO, ASK + 1)
TO_PROCESS = range(WELCOME, CLOSING + 1)

# Flags of SUBMIT, beside payload.EMPTY (1), CHUNK (8) and SEALED (32)
SAY = 64  # answer with TAKEN or REFUSED at once
AGAIN = 128  # it was sent before, and nobody knows whether it was taken in
# Flag of CLOSING
SUCCESSOR = 1  # another manager will take this one's place: wait for it
# Flags of ANSWER
FAULT = 2  # the body is a Fault
TOLD = 4  # the body is what pack_told made

# SUBMIT: target u32 (0: the payload is an envelope, which names it), length of the id u16, of the
# terms u16 (0: the usual ones); id; terms and unique key; payload
_SUBMIT = struct.Struct("<IHH")
_TARGET = struct.Struct("<I")  # the first field of it
# DONE: when it was submitted, started, ended; target of its progress; worker, attempt, revision,
# length of its message; message; payload
_DONE = struct.Struct("<ddddIIIH")
_INLINE = 64 * 1024  # bytes of a result up to which it is copied among what is told
_encode = msgspec.msgpack.encode
_PLAIN = EMPTY | SEALED


class Hello(msgspec.Struct, array_like=True):
    """Who speaks: its version, what it is called, and a text that no other process has."""

    version: int
    pid: int
    title: str
    nonce: str


class Welcome(msgspec.Struct, array_like=True):
    """How to speak to this manager.

    ``instance`` is another one for every manager that ever was. With ``native``, code travels by
    reference and arguments as pickle; else tasks travel in envelopes, by their names. ``durable``
    is whether what was taken in outlives the manager. ``max_frame`` and ``max_bytes`` are bytes,
    the latter of all tasks that have not ended, of which there may be ``max_tasks``.
    """

    version: int
    instance: str
    pid: int
    title: str
    native: bool
    durable: bool
    queue: str
    parallel: int
    max_frame: int
    max_tasks: int
    max_bytes: int
    namespace: str = ""  # of its queue on a server, if it has one


def scope(welcome: Welcome, queue: str) -> str:
    """What signatures of a task of this queue are bound to: the same as on the manager's server."""
    return queue_base(welcome.namespace, queue) if welcome.namespace else queue


class Code(msgspec.Struct, array_like=True, frozen=True):
    """Code for the workers, and the limits under which it runs; ``flags`` as in a definition."""

    name: str
    kind: str
    flags: int
    module: str
    path: str
    value: bytes | None
    timeout: float | None
    soft_timeout: float | None
    retries: int
    max_crashes: int | None
    at_most_once: bool
    backoff: Backoff


class Attach(msgspec.Struct, array_like=True):
    """A task by its id, and the name of its queue; ``follow`` is whether to tell its progress,
    ``sent`` whether the process that asks has sent the task itself, over another connection."""

    id: str
    queue: str
    follow: bool
    sent: bool = False


class Question(msgspec.Struct, array_like=True):
    """A question by its name."""

    name: str
    args: list[Any]


class Fault(msgspec.Struct, array_like=True):
    """An error of gtaskman's, by its name; ``id`` and ``key`` are those of a duplicate."""

    name: str
    message: str
    id: str | None = None
    key: str | None = None

    @classmethod
    def of(cls, error: GTaskmanError) -> Fault:
        """What is told of an error."""
        if isinstance(error, DuplicateTaskError):
            return cls("DuplicateTaskError", str(error), error.id, error.key)
        return cls(type(error).__name__, str(error))

    def error(self) -> GTaskmanError:
        """The error again; one that cannot be made here is a plain :class:`GTaskmanError`."""
        if self.name == "DuplicateTaskError" and self.id is not None:
            return DuplicateTaskError(self.id, self.key)
        kind = getattr(errors, self.name, None)
        if isinstance(kind, type) and issubclass(kind, GTaskmanError):
            try:
                return kind(self.message)
            except (TypeError, AttributeError):
                pass  # it takes more than a text
        return GTaskmanError(self.message)


class Order(NamedTuple):
    """A task to be run. ``target`` is the number of its code, or 0 if an envelope names it."""

    target: int
    id: str
    terms: Terms | None
    unique: str
    payload: Payload


class Told(NamedTuple):
    """A report without its result; that, as it came; and the pickled exception, if there is one."""

    report: Report
    result: Payload | None = None
    exception: bytes | None = None


# --- bodies in MessagePack -----------------------------------------------------------------------


def pack(value: Any) -> bytes:
    """A body in MessagePack."""
    return _encode(value)


def pack_question(name: str, args: list[Any]) -> bytes:
    """The body of ASK. Lone surrogates, which no task's id has, are written as escapes."""
    try:
        return _encode(Question(name, args))
    except UnicodeEncodeError:
        return _encode(Question(name, [_escaped(arg) for arg in args]))


def _escaped(value: Any) -> Any:
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value


class _Unpacker:
    """Makes structs of bodies; what is none raises :class:`FrameError`."""

    def __init__(self, kind: Any) -> None:
        self._decoder = msgspec.msgpack.Decoder(kind)

    def __call__(self, body: bytes | memoryview) -> Any:
        try:
            return self._decoder.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, GTaskmanError) as error:
            raise FrameError(f"a message cannot be read: {error}") from None


unpack_hello = _Unpacker(Hello)
unpack_welcome = _Unpacker(Welcome)
unpack_code = _Unpacker(Code)
unpack_attach = _Unpacker(Attach)
unpack_question = _Unpacker(Question)
unpack_fault = _Unpacker(Fault)
unpack_answer = _Unpacker(Any)
_unpack_terms = _Unpacker(tuple[Terms, str])
_unpack_told = _Unpacker(list[tuple[Report, int, bytes, int, bytes | None]])


# --- tasks ---------------------------------------------------------------------------------------


def submit_body(target: int, task_id: str, terms: Terms | None, unique: str) -> bytes:
    """The body of SUBMIT up to the payload, which goes behind it."""
    name = task_id.encode()
    if terms is None:
        return _SUBMIT.pack(target, len(name), 0) + name
    under = _encode((terms, unique))
    return _SUBMIT.pack(target, len(name), len(under)) + name + under


def retarget(body: memoryview, target: int) -> bytes:
    """The body of SUBMIT, with another number for its code."""
    return _TARGET.pack(target) + bytes(body[_TARGET.size :])


def target_of(body: memoryview) -> int:
    """The number of the code in the body of SUBMIT."""
    return int(_TARGET.unpack_from(body)[0])


def read_submit(flags: int, body: memoryview, buffers: Sequence[object]) -> Order:
    """What SUBMIT orders. Raises :class:`FrameError`."""
    try:
        target, id_size, terms_size = _SUBMIT.unpack_from(body)
        start = _SUBMIT.size + id_size
        task_id = str(body[_SUBMIT.size : start], "utf-8")
    except (struct.error, UnicodeDecodeError) as error:
        raise FrameError(f"a task cannot be read: {error}") from None
    terms, unique = None, ""
    if terms_size:
        terms, unique = _unpack_terms(body[start : start + terms_size])
        start += terms_size
    return Order(target, task_id, terms, unique, as_it_came(flags & _PLAIN, body[start:], buffers))


def done_body(report: Report) -> bytes:
    """The body of DONE up to the payload, which goes behind it."""
    message = report.message.encode(errors="replace")
    return (
        _DONE.pack(
            report.created_at,
            report.started_at or 0.0,
            report.finished_at or 0.0,
            report.target,
            report.worker or 0,
            report.attempt,
            report.revision,
            len(message),
        )
        + message
    )


def read_done(
    task_id: str, name: str, kind: str, flags: int, body: bytes | memoryview, size: int
) -> tuple[Report, memoryview]:
    """The last report that DONE stands for, without its result, and the payload's body.

    ``size`` is that of the payload's buffers, in bytes. Raises :class:`FrameError`.
    """
    try:
        created, started, ended, target, worker, attempt, revision, length = _DONE.unpack_from(body)
    except struct.error as error:
        raise FrameError(f"a result cannot be read: {error}") from None
    start = _DONE.size + length
    data = memoryview(body)[start:]
    report = Report(
        task_id,
        name,
        kind,
        TaskStatus.COMPLETED,
        created,
        bytes(memoryview(body)[_DONE.size : start]).decode(errors="replace"),
        target,
        target,
        None,
        None,
        started or None,
        ended or None,
        attempt,
        worker or None,
        revision,
        0 if flags & EMPTY else data.nbytes + size,
    )
    return report, data


# --- reports -------------------------------------------------------------------------------------


def pack_told(every: Iterable[Told]) -> tuple[bytes, list[memoryview]]:
    """Reports as a body, and the buffers that go behind it."""
    rows: list[tuple[Report, int, Any, int, bytes | None]] = []
    buffers: list[memoryview] = []
    for report, result, exception in every:
        if result is None:
            rows.append((report, -1, b"", 0, exception))
        elif len(result.body) < _INLINE and not result.buffers:
            rows.append((report, result.flags, result.body, 0, exception))
        else:
            own = [memoryview(result.body), *result.buffers]
            rows.append((report, result.flags, b"", len(own), exception))
            buffers += own
    if len(buffers) > MAX_BUFFERS:
        raise GTaskmanError(f"these are {len(rows)} reports with large results: ask for fewer")
    try:
        return _encode(rows), buffers
    except UnicodeEncodeError:
        return _encode([(printable(row[0]), *row[1:]) for row in rows]), buffers


def unpack_told(body: bytes | memoryview, buffers: Sequence[object]) -> list[Told]:
    """What :func:`pack_told` packed. Raises :class:`FrameError`."""
    found = []
    left = list(buffers)
    for report, flags, data, count, exception in _unpack_told(body):
        own, left = left[:count], left[count:]
        if len(own) < count:
            raise FrameError("a report's result has not come with it")
        found.append(Told(report, _result(flags, data, own), exception))
    return found


def _result(flags: int, data: bytes, own: list[Any]) -> Payload | None:
    if flags < 0:
        return None
    if not own:
        return Payload(flags, data, ())
    return Payload(flags, own[0], tuple(own[1:]))
