"""Messages: what is packed comes out, and no two kinds or flags are taken for one another."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gtaskman.task import MAX_ID
from gtaskman.wire import messages
from gtaskman.wire.frames import FrameReader
from gtaskman.wire.messages import Fault, Stack, order_frame, pack, reply_frame, unpack
from gtaskman.wire.payload import EMPTY

pytestmark = pytest.mark.quick

printable = st.text(min_size=1, max_size=MAX_ID).filter(str.isprintable)


def read(stream):
    """The frames of a stream that is read at once, their bodies as copies."""
    reader = FrameReader(1 << 20)
    reader.room()[: len(stream)] = stream
    return [frame._replace(body=bytes(frame.body)) for frame in reader.advance(len(stream))]


buffers = st.lists(st.binary(max_size=50).map(memoryview), max_size=2)


@given(
    target=st.integers(0, 2**32 - 1),
    attempt=st.integers(1, 2**31) | st.just(2**32 - 1),
    task_id=printable | st.just("\U0001f600" * MAX_ID),
    limit=st.floats(0, 1e9),
    payload=st.binary(max_size=300),
    buffers=buffers,
)
def test_an_order_comes_out_as_it_was_packed(target, attempt, task_id, limit, payload, buffers):
    # given the frame of an order, with buffers behind it or without
    stream = order_frame(messages.ASYNC, 5, target, attempt, task_id, limit, payload, buffers)
    # if it is read
    (frame,) = read(stream + b"".join(buffers))
    # expect all that was said
    assert (frame.kind, frame.flags, frame.number) == (messages.RUN, messages.ASYNC, 5)
    said = messages.ORDER.unpack_from(frame.body)
    name = task_id.encode()
    assert said == (target, attempt, len(name), limit)
    assert frame.body[messages.ORDER.size :] == name + payload
    assert list(frame.buffers) == buffers


@pytest.mark.parametrize("buffers", [[], [memoryview(b"b")]])
def test_a_payload_of_the_limit_fits_a_frame_whatever_stands_before_it(buffers):
    max_frame = 1 << 20
    payload = bytes(messages.payload_limit(max_frame) - sum(map(len, buffers)))
    longest_id = "\U0001f600" * MAX_ID
    stream = order_frame(0, 2**60, 2**32 - 1, 2**32 - 1, longest_id, 1e9, payload, buffers)
    stream += b"".join(buffers)

    reader, frames, at = FrameReader(max_frame), [], 0
    while at < len(stream):
        room = reader.room()
        room[: len(stream) - at] = stream[at : at + len(room)]
        count = min(len(room), len(stream) - at)
        frames += reader.advance(count)
        at += count

    assert len(frames) == 1


@pytest.mark.parametrize("kind", [messages.DONE, messages.FAIL])
@given(
    times=st.tuples(st.floats(0, 1e9), st.floats(0, 1e9)),
    payload=st.binary(max_size=300),
    buffers=buffers,
)
def test_a_reply_comes_out_as_it_was_packed(kind, times, payload, buffers):
    stream = reply_frame(kind, 3, 2**40, *times, payload, buffers)
    (frame,) = read(stream + b"".join(buffers))
    assert (frame.kind, frame.flags, frame.number) == (kind, 3, 2**40)
    assert messages.SPAN.unpack_from(frame.body) == times
    assert frame.body[messages.SPAN_SIZE :] == payload
    assert list(frame.buffers) == buffers


@pytest.mark.parametrize(
    "value",
    [
        Fault("ValueError", "no", "Traceback ...", b"\x80pickled"),
        Fault(None, "", None, None),
        Stack(4711, 5, 2, "in main"),
        [1, 2, 3],
        ("tests.name", ("module", "path", None)),
    ],
)
def test_rarer_messages_come_out_as_they_were_packed(value):
    received = unpack(memoryview(pack(value)))
    assert received == value
    assert type(received) is type(value)


def test_every_kind_has_a_number_of_its_own_that_fits_a_byte():
    down = {messages.DEFINE, messages.RUN, messages.CANCEL}
    down |= {messages.RECALL, messages.PING, messages.STOP}
    up = {messages.READY, messages.DONE, messages.FAIL}
    up |= {messages.PROGRESS, messages.RETURNED, messages.PONG, messages.VOIDS}
    assert len(down | up) == 13
    assert all(0 < kind < 256 for kind in down | up)


def test_every_flag_of_an_order_is_a_bit_of_its_own():
    flags = [EMPTY, messages.ASYNC, messages.ONCE, messages.CHUNK, messages.CLASS]
    assert sum(flags) == flags[0] | flags[1] | flags[2] | flags[3] | flags[4]
    assert all(flag & (flag - 1) == 0 for flag in flags)
    assert sum(flags) < 256
