"""``Record``: what the server keeps of a task; and how reports become records and records reports.

Nothing here talks to a server.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from gtaskman.distant import Reading
from gtaskman.errors import PayloadError
from gtaskman.report import DEFAULT_TARGET, Failure, FailureKind, Report, TaskStatus, printable

LETTERS = {
    TaskStatus.WAITING: "W",
    TaskStatus.PROCESSING: "P",
    TaskStatus.COMPLETED: "C",
    TaskStatus.FAILED: "F",
    TaskStatus.CANCELLED: "X",
}
STATUSES = {letter: status for status, letter in LETTERS.items()}
KINDS = {"s": "sync", "a": "async"}


class Record(NamedTuple):
    """The fields of one record. Times are seconds since the epoch, by the server's clock.

    ``why`` says how it ended if no owner told it: the reason of a cancel, or ``expired``,
    ``poison``, ``lost``, or ``gone`` in a storage. ``stopping`` is the reason why a running one
    shall be cancelled.
    ``progress`` and ``end`` are what :func:`end_of` made of a report, ``result`` an envelope.
    """

    id: str
    status: str  # W waiting, P running, C completed, F failed, X cancelled
    name: str
    kind: str  # s or a
    sequence: int
    priority: int
    created: float
    started: float | None
    finished: float | None
    attempt: int  # 0 until it is first handed out
    losses: int
    token: int  # 0 until then
    owner: str
    once: bool
    unique: str
    ttl: float
    why: str
    stopping: str | None
    progress: bytes
    end: bytes
    result: bytes


Decoder = Callable[[Record], Any]
"""Makes the value of a completed record's result, which may be empty: then the task returned None,
unless a signature is required. A signature is over the record's id and name too."""


def record_of(task_id: bytes, flat: Sequence[bytes], body: bytes) -> Record:
    """A record of the fields, names and values in turn, and the body that the scripts give.

    It raises nothing: other programs may have written what stands there.
    """
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    stopping = fields.get(b"x")
    return Record(
        task_id.decode(errors="backslashreplace"),
        _text(fields, b"st"),
        _text(fields, b"n"),
        _text(fields, b"k"),
        _whole(fields, b"q"),
        _whole(fields, b"pr"),
        _seconds(fields, b"c") or 0.0,
        _seconds(fields, b"b"),
        _seconds(fields, b"f"),
        _whole(fields, b"a"),
        _whole(fields, b"lo"),
        _whole(fields, b"t"),
        _text(fields, b"ow"),
        b"on" in fields,
        _text(fields, b"u"),
        _seconds(fields, b"tt") or 0.0,
        _text(fields, b"y"),
        None if stopping is None else stopping.decode(errors="replace"),
        fields.get(b"pg", b""),
        *parts(body),
    )


def body_of(end: bytes, result: bytes) -> bytes:
    """The end and the result as one text of bytes; empty if both are."""
    return b"%d\n%b%b" % (len(end), end, result) if end or result else b""


def parts(body: bytes) -> tuple[bytes, bytes]:
    """The end and the result in what :func:`body_of` made."""
    if not body:
        return b"", b""
    size, _, rest = body.partition(b"\n")
    if not size.isdigit():
        return body, b""  # damaged: it will not be decoded
    length = int(size)
    return rest[:length], rest[length:]


def _text(fields: Mapping[bytes, bytes], name: bytes) -> str:
    return fields.get(name, b"").decode(errors="replace")


def _whole(fields: Mapping[bytes, bytes], name: bytes) -> int:
    try:
        return int(fields.get(name, 0))
    except ValueError:
        return 0


def _seconds(fields: Mapping[bytes, bytes], name: bytes) -> float | None:
    return _whole(fields, name) / 1000 if name in fields else None


# --- reports -------------------------------------------------------------------------------------


class _Told(msgspec.Struct, array_like=True, gc=False):
    """What a report has beside what its record says; new fields only at the end."""

    created_at: float
    message: str = ""
    completed: int | float = 0
    target: int | float = DEFAULT_TARGET
    error: Failure | None = None
    started_at: float | None = None
    finished_at: float | None = None
    attempt: int = 1
    worker: int | None = None
    revision: int = 0
    result_size: int = 0


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Told)


def end_of(report: Report) -> bytes:
    """A report as bytes, without its id, name, kind, status and result; of a running task too."""
    try:
        return _encoder.encode(_told(report))
    except UnicodeEncodeError:
        return _encoder.encode(_told(printable(report)))


def _told(report: Report) -> _Told:
    return _Told(
        report.created_at,
        report.message,
        _number(report.completed),
        _number(report.target),
        report.error,
        report.started_at,
        report.finished_at,
        report.attempt,
        report.worker,
        report.revision,
        report.result_size,
    )


def _number(value: float) -> float:
    """As the task gave it where MessagePack has it: an int of 64 bits, or a float."""
    if type(value) is int and -(2**63) <= value < 2**63:
        return value
    try:
        return float(value)
    except OverflowError:  # an int beyond all floats
        return sys.float_info.max if value > 0 else -sys.float_info.max


def report_of(record: Record, result_decoder: Decoder) -> Report:
    """The report that a record stands for.

    ``result_decoder`` is asked for the result of a completed one. Raises :class:`PayloadError` for
    a damaged record, and whatever the decoder raises.
    """
    status = STATUSES.get(record.status)
    if status is None:
        raise _damaged(record.id, f"its status is {record.status!r:.20}")
    kind = KINDS.get(record.kind, record.kind)
    completed = status is TaskStatus.COMPLETED
    blob = record.end or record.progress
    if not blob:
        untold = _report_untold(record, status, kind)
        if completed and (value := result_decoder(record)) is not None:
            return msgspec.structs.replace(untold, result=value)
        return untold
    told = _read(record.id, blob)
    return Report(
        record.id,
        record.name,
        kind,
        status,
        told.created_at,
        told.message,
        told.completed,
        told.target,
        result_decoder(record) if completed else None,
        told.error,
        told.started_at,
        told.finished_at,
        told.attempt,
        told.worker,
        told.revision,
        told.result_size,
    )


def reading_of(record: Record, result_decoder: Decoder) -> Reading:
    """The report that a record stands for, whatever stands in it: an unreadable one says so."""
    try:
        return Reading(report_of(record, result_decoder))
    except PayloadError as error:
        why, unread = f"its result cannot be read: {error}", error
    try:
        report = report_without_result(record)
    except PayloadError as error:
        why, unread = str(error), error
        status = STATUSES.get(record.status, TaskStatus.FAILED)
        report = _report_untold(record, status, KINDS.get(record.kind, record.kind))
    return Reading(msgspec.structs.replace(report, message=why), unread)


def report_without_result(record: Record) -> Report:
    """The report that a record stands for, for those who cannot read its result, or need not."""
    return report_of(record, no_result)


def no_result(_record: Record) -> None:
    """A decoder for those who cannot read results, or need not."""


def _read(task_id: str, blob: bytes) -> _Told:
    try:
        return _decoder.decode(blob)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _damaged(task_id, error) from None


def _damaged(task_id: str, why: object) -> PayloadError:
    return PayloadError(f"the record of task {task_id!r} is damaged, or of a later version: {why}")


def _report_untold(record: Record, status: TaskStatus, kind: str) -> Report:
    """Of a task of which no owner told anything: it waits, has just begun, or ended without one."""
    error = _failure(record) if status is TaskStatus.FAILED else None
    return Report(
        record.id,
        record.name,
        kind,
        status,
        record.created,
        error.message if error else record.why,
        error=error,
        started_at=record.started,
        finished_at=record.finished,
        attempt=max(1, record.attempt),
        revision=_revision(record),
    )


def _revision(record: Record) -> int:
    """One above those of the attempts before; tokens are microseconds, and rise."""
    if record.finished is not None:
        return max(record.token + 1, int(record.finished * 1_000_000))
    return record.token or 1


def _failure(record: Record) -> Failure:
    if record.why == "expired":
        return Failure(FailureKind.EXPIRED, f"it had not started within {record.ttl:g} s")
    if record.why == "poison":
        what = f"the managers that ran it died, {record.losses} times: it is given up"
        return Failure(FailureKind.CRASH, what)
    if record.why == "gone":
        what = "the manager that had it died, or lost its way to the storage for too long"
        return Failure(FailureKind.CRASH, what)
    what = "its manager died, and it may be run at most once: it is lost with its owner"
    return Failure(FailureKind.CRASH, what)
