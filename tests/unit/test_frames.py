"""Frames: whatever the reads look like, what was sent comes out, or an error that says why not."""

from __future__ import annotations

import array
import mmap
import struct
import tracemalloc
from typing import NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gtaskman.errors import FrameError, FrameTooLarge
from gtaskman.wire.frames import (
    AT_ONCE,
    HEADER,
    HEADER_SIZE,
    KEPT,
    MAX_BUFFERS,
    FrameReader,
    head,
)

pytestmark = pytest.mark.quick

LIMIT = 64 * 1024 * 1024


class Sent(NamedTuple):
    kind: int
    flags: int
    number: int
    body: bytes
    buffers: tuple = ()

    def encoded(self) -> bytes:
        views = [memoryview(each) for each in self.buffers]
        start = head(self.kind, self.flags, self.number, len(self.body), views)
        return start + self.body + b"".join(views)


def memory(data: bytes) -> array.array:
    """A buffer that is neither bytes nor bytearray, as an array's memory is."""
    return array.array("B", data)


def contents(buffer: object) -> tuple[str, bytes]:
    """What a buffer is and holds, for comparison."""
    kind = type(buffer) if isinstance(buffer, (bytes, bytearray)) else memory
    return kind.__name__, bytes(memoryview(buffer))


def feed(reader: FrameReader, *pieces: bytes) -> list[Sent]:
    """Give the reader each piece as one or more reads, and copy what comes, as its users do."""
    received = []
    for piece in pieces:
        data = memoryview(piece)
        while len(data):
            room = reader.room()
            count = min(len(room), len(data))
            assert count, "the reader offers no room, so that a read would look like an end"
            room[:count] = data[:count]
            data = data[count:]
            for frame in reader.advance(count):
                kind, flags, number, body, buffers = frame
                received.append(Sent(kind, flags, number, bytes(body), tuple(buffers)))
    return received


def comparable(frames: list[Sent]) -> list[tuple]:
    return [(*frame[:4], [contents(each) for each in frame.buffers]) for frame in frames]


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    """``data`` cut at each of ``cuts``, taken modulo its length."""
    at = sorted({cut % (len(data) + 1) for cut in cuts})
    return [data[a:b] for a, b in zip([0, *at], [*at, len(data)], strict=True)]


buffers = st.builds(
    lambda make, data: make(data),
    st.sampled_from([bytes, bytearray, memory]),
    st.binary(max_size=200),
)
sent_frames = st.builds(
    Sent,
    st.integers(0, 255),
    st.integers(0, 255),
    st.integers(0, 2**64 - 1),
    st.binary(max_size=200),
    st.lists(buffers, max_size=3).map(tuple),
)
HELLO, LONGER = Sent(1, 0, 7, b"hello"), Sent(2, 3, 8, b"x" * 40)


@given(
    st.lists(sent_frames, max_size=8),
    st.lists(st.integers(0, 5000), max_size=12),
    st.sampled_from([64, 65, 100, 512, KEPT]),
)
@example([HELLO, LONGER], [50], KEPT)
@example([HELLO, HELLO, LONGER], list(range(90)), 64)
def test_frames_come_out_as_they_went_in_however_the_stream_is_cut(frames, cuts, kept):
    # given a stream of frames with buffers of any kind
    stream = b"".join(frame.encoded() for frame in frames)
    reader = FrameReader(LIMIT, kept)
    # if it is read in any pieces, into a kept buffer of any size
    received = feed(reader, *split(stream, cuts))
    # expect the same frames, each buffer of the type that was sent
    assert comparable(received) == comparable(frames)
    assert not reader.inside


def test_a_torn_frame_behind_whole_ones_does_not_touch_their_bodies():
    # given a read that ends within its last frame
    reader = FrameReader(LIMIT)
    stream = HELLO.encoded() + LONGER.encoded()
    # if what is whole is looked at before the next read
    received = feed(reader, stream[:-10])
    # expect it untouched, and the other one with the next read
    assert comparable(received) == comparable([HELLO])
    assert comparable(feed(reader, stream[-10:])) == comparable([LONGER])


@pytest.mark.parametrize("kept", [64, KEPT])
def test_an_end_at_any_offset_tells_whether_a_frame_was_torn(kept):
    frames = [HELLO, Sent(3, 0, 9, b"", (b"abc", bytearray(b""), memory(b"de"))), LONGER]
    stream, ends = b"", {0}
    for frame in frames:
        stream += frame.encoded()
        ends.add(len(stream))
    for offset in range(len(stream) + 1):
        # given a peer that dies after so many bytes
        reader = FrameReader(LIMIT, kept)
        received = feed(reader, stream[:offset])
        # expect every whole frame, and to be told if there was the beginning of another
        whole = sum(end <= offset for end in ends) - 1
        assert comparable(received) == comparable(frames[:whole])
        assert reader.inside is (offset not in ends), offset


@pytest.mark.parametrize("make", [bytes, bytearray, memory])
@pytest.mark.parametrize(
    "size", [0, 1, 64 * 1024 - 1, 64 * 1024, 100 * 1024, KEPT + 1, 3 * AT_ONCE + 5]
)
@pytest.mark.parametrize("step", [4096 + 7, AT_ONCE])
def test_a_large_frame_keeps_types_and_contents(make, size, step):
    # given a frame whose body and buffers are of this size, between two small ones
    data = bytes(range(256)) * (size // 256 + 1)
    large = Sent(5, 6, 7, data[:size], (make(data[:size]), make(data[1 : size + 1])))
    stream = HELLO.encoded() + large.encoded() + LONGER.encoded()
    reader = FrameReader(LIMIT)
    # if it is read in steps
    pieces = [stream[at : at + step] for at in range(0, len(stream), step)]
    received = feed(reader, *pieces)
    # expect all three of them, to the byte
    assert comparable(received) == comparable([HELLO, large, LONGER])
    assert not reader.inside


def test_buffers_stay_valid_when_the_reading_goes_on():
    # given a frame with a buffer of each kind
    first = Sent(1, 0, 1, b"", (b"a" * 50, bytearray(b"b" * 50), memory(b"c" * 50)))
    reader = FrameReader(LIMIT, kept=512)
    received = feed(reader, first.encoded())
    # if much more is read over the same kept buffer
    feed(reader, *[LONGER.encoded()] * 100)
    # expect the buffers as they were
    assert comparable(received) == comparable([first])


def test_memory_arrives_writable_and_bytearrays_grow():
    reader = FrameReader(LIMIT)
    sent = Sent(1, 0, 1, b"", (bytearray(b"ab"), memory(b"cd"), memory(b"e" * 100_000)))
    (frame,) = feed(reader, sent.encoded())
    grown, small, mapped = frame.buffers
    grown += b"c" * 1000
    small[0] = mapped[0] = 1
    assert isinstance(mapped.obj, mmap.mmap)
    assert grown[:3] == b"abc"


def test_no_room_offers_more_than_one_turn_may_read():
    # given a frame of many megabytes, of which only the head has come
    reader = FrameReader(LIMIT)
    feed(reader, head(1, 0, 1, 10 * AT_ONCE))
    # expect that one read cannot take more than a turn's share of it
    assert len(reader.room()) == AT_ONCE


@pytest.mark.parametrize("kept", [64, KEPT])
@pytest.mark.parametrize(
    "frame",
    [
        Sent(1, 0, 1, b"x" * 1001),
        Sent(1, 0, 1, b"", (b"x" * 1001,)),
        Sent(1, 0, 1, b"x" * 501, (b"x" * 300, bytearray(200))),
    ],
    ids=["body", "buffer", "sum"],
)
def test_a_frame_over_the_limit_is_refused_as_soon_as_its_head_is_there(frame, kept):
    reader = FrameReader(1000, kept)
    start = frame.encoded()[: HEADER_SIZE + 8 * len(frame.buffers)]
    with pytest.raises(FrameTooLarge, match=r"1001 bytes.*1000"):
        feed(reader, start)


@pytest.mark.parametrize(
    "frame", [Sent(1, 0, 1, b"x" * 1000), Sent(1, 0, 1, b"x" * 400, (b"y" * 600,))]
)
def test_a_frame_of_exactly_the_limit_passes(frame):
    assert comparable(feed(FrameReader(1000), frame.encoded())) == comparable([frame])


def test_a_claim_of_absurdly_much_allocates_nothing():
    # given a head that claims more memory than there is
    claim = HEADER.pack(0, 1, 0, 1, 1) + struct.pack("<Q", 2**55)
    with pytest.raises(FrameTooLarge):
        feed(FrameReader(LIMIT), claim)


def test_an_absurd_number_of_buffers_is_no_frame_of_ours():
    with pytest.raises(FrameError, match="buffers"):
        feed(FrameReader(LIMIT), HEADER.pack(0, 1, 0, MAX_BUFFERS + 1, 1))


def test_the_largest_number_of_buffers_passes():
    most = Sent(1, 0, 1, b"body", (b"x",) * MAX_BUFFERS)
    assert comparable(feed(FrameReader(LIMIT), most.encoded())) == comparable([most])


def test_a_large_frame_is_announced_before_memory_is_allocated_for_it(monkeypatch):
    # given a reader that has no memory for a large frame
    announced = []
    reader = FrameReader(1 << 30)
    reader.on_large = lambda kind, number: announced.append((kind, number))

    def no_memory(*_):
        raise MemoryError

    monkeypatch.setattr("gtaskman.wire.frames._Filling", no_memory)
    stream = head(2, 0, 77, 4) + b"tiny" + head(2, 0, 78, 1 << 29)
    reader.room()[: len(stream)] = stream
    # if its head arrives
    with pytest.raises(MemoryError):
        reader.advance(len(stream))
    # expect that it was announced, and the small one not
    assert announced == [(2, 78)]


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_buffers_that_are_announced_only_are_not_allocated(kind):
    """Thousands of buffers take 33 kB to announce, and would take 245 MB."""
    reader = FrameReader(1 << 30)
    sizes = [60_000 | (kind << 56)] * MAX_BUFFERS
    data = HEADER.pack(0, 1, 0, len(sizes), 1) + struct.pack(f"<{len(sizes)}Q", *sizes)
    reader.room()[: len(data)] = data
    tracemalloc.start()
    try:
        assert reader.advance(len(data)) == []
        assert tracemalloc.get_traced_memory()[0] < 2_000_000
    finally:
        tracemalloc.stop()
    room = reader.room()
    assert 0 < len(room) <= 60_000
