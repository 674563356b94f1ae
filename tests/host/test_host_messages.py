"""What is said over a socket comes out as it went in, and nonsense is known for what it is."""

from __future__ import annotations

import numpy
import pytest

import gtaskman
from gtaskman import errors
from gtaskman.errors import DuplicateTaskError, FrameError, GTaskmanError
from gtaskman.host import messages
from gtaskman.host.messages import Fault, Told
from gtaskman.report import Failure, FailureKind, Report, TaskStatus
from gtaskman.terms import Terms
from gtaskman.wire.payload import NOTHING, Payload, decode_value, encode_value

pytestmark = pytest.mark.quick

CRASH = Failure(FailureKind.CRASH, "no", "E", "t", -9, "SIGKILL")
FAILED = Report(
    "a", "b", "sync", TaskStatus.FAILED, 1.5, "no", 2, 3.5, None, CRASH, 2.5, 3.5, 2, 77, 9
)
DONE = Report(
    "a", "ü.b", "async", TaskStatus.COMPLETED, 1.5, "half ü", 8, 8, None, None, 2.25, 3.5, 3, 77, 9
)
UNPACKERS = (
    messages.unpack_hello,
    messages.unpack_welcome,
    messages.unpack_code,
    messages.unpack_attach,
    messages.unpack_question,
    messages.unpack_fault,
)


@pytest.mark.parametrize("terms", [None, Terms(priority=5, delay=1.5, unique="u", ttl=3)])
@pytest.mark.parametrize("value", [None, 5, "ü" * 300_000, bytes(100_000)])
def test_a_task(terms, value):
    payload = encode_value(value, 1 << 30)
    body = messages.submit_body(7, "id ü", terms, "key") + bytes(payload.body)
    order = messages.read_submit(payload.flags, memoryview(body), payload.buffers)
    assert (order.target, order.id, order.terms) == (7, "id ü", terms)
    assert order.unique == ("key" if terms is not None else "")
    assert decode_value(*order.payload) == value
    again = messages.read_submit(1, memoryview(messages.retarget(memoryview(body), 9)), ())
    assert (again.target, again.id) == (9, "id ü")


@pytest.mark.parametrize("size", range(20))
def test_a_torn_task_is_nonsense(size):
    body = messages.submit_body(7, "a long enough id", Terms(priority=5), "key")
    with pytest.raises(FrameError):
        messages.read_submit(1, memoryview(body)[:size], ())


def test_a_result():
    body = messages.done_body(DONE) + b"payload"
    report, data = messages.read_done("a", "ü.b", "async", 0, body, 100)
    assert bytes(data) == b"payload"
    assert report == gtaskman.Report(**{**fields(DONE), "result_size": 107})
    with pytest.raises(FrameError):
        messages.read_done("a", "b", "sync", 0, body[:20], 0)


def fields(report):
    return {name: getattr(report, name) for name in report.__struct_fields__}


def test_reports_with_small_and_large_results():
    array = numpy.arange(100_000)
    values = [1, "x" * 100_000, array, bytes(100_000), [array, "y"]]
    told = [Told(FAILED, None, b"pickle"), Told(DONE, NOTHING)]
    told += [Told(DONE, encode_value(value, 1 << 30)) for value in values]
    body, buffers = messages.pack_told(told)
    back = messages.unpack_told(body, [each.tobytes() for each in buffers])
    assert [each.report for each in back] == [each.report for each in told]
    assert [each.exception for each in back] == [b"pickle", *[None] * 6]
    assert back[0].result is None
    for each, value in zip(back[2:], values, strict=True):
        found = decode_value(*each.result)
        assert repr(found) == repr(value)
    with pytest.raises(FrameError):
        messages.unpack_told(body, buffers[:-1])


def test_lone_surrogates_do_not_keep_a_report_from_being_told():
    odd = gtaskman.Report(**{**fields(FAILED), "message": "\udc80", "error": Failure(
        FailureKind.ERROR, "\udc81", "E", "\udc82")})  # fmt: skip
    body, buffers = messages.pack_told([Told(odd)])
    (back,) = messages.unpack_told(body, buffers)
    assert (back.report.message, back.report.error.traceback) == (r"\udc80", r"\udc82")


def test_a_large_result_is_not_copied():
    payload = Payload(0, b"", (memoryview(bytes(1_000_000)),))
    _, buffers = messages.pack_told([Told(DONE, payload)])
    assert buffers[-1].obj is payload.buffers[0].obj


@pytest.mark.parametrize(
    "error",
    [
        DuplicateTaskError("a"),
        DuplicateTaskError("a", "key"),
        errors.ManagerStopped("no more"),
        errors.PayloadError("cannot"),
        errors.ServerUnavailable("away"),
        errors.BindError("taken"),
    ],
)
def test_errors_come_as_their_own_type(error):
    back = messages.unpack_fault(messages.pack(Fault.of(error))).error()
    assert (type(back), str(back)) == (type(error), str(error))
    assert vars(back) == vars(error)


def test_an_error_that_nobody_knows_here_is_a_plain_one():
    for name in ("Unheard", "TaskFailed", "annotations"):
        assert type(Fault(name, "text").error()) is GTaskmanError
        assert str(Fault(name, "text").error()) == "text"


@pytest.mark.parametrize("body", [b"", b"\xc1", b"\x90", messages.pack([1, 2, 3])])
def test_what_is_no_message(body):
    for unpack in UNPACKERS:
        with pytest.raises(FrameError):
            unpack(body)
