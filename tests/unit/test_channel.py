"""Channels: two ends of a real pipe on a real loop."""

from __future__ import annotations

import os
import select
import socket
import threading

import gevent
import pytest
from gevent.event import Event

from gtaskman.errors import FrameError, FrameTooLarge
from gtaskman.wire.channel import Channel
from gtaskman.wire.frames import AT_ONCE, HEADER, KEPT, MAX_BUFFERS, head

pytestmark = pytest.mark.quick

LIMIT = 64 * 1024 * 1024
PATIENCE = 10  # seconds after which a test has failed; nothing is ever waited for so long
SO_SNDBUFFORCE = 32


class End:
    """One end of a pipe, which keeps what it hears."""

    def __init__(self, sock: socket.socket, limit: int = LIMIT) -> None:
        self.sock = sock
        self.batches: list[list[tuple[int, bytes, list[bytes]]]] = []
        self.closes: list[FrameError | None] = []
        self.before_frames = lambda frames: None
        self.event = Event()
        loop = gevent.get_hub().loop
        self.channel = Channel(
            sock.fileno(), loop, limit, range(256), self._on_frames, self._on_close
        )

    @property
    def heard(self) -> list[int]:
        return [number for batch in self.batches for number, _, _ in batch]

    @property
    def frames(self) -> dict[int, tuple[bytes, list[bytes]]]:
        return {number: rest for batch in self.batches for number, *rest in batch}

    def say(self, number: int, body: bytes = b"", *buffers: bytes) -> None:
        views = [memoryview(each) for each in buffers]
        self.channel.put_frame(head(1, 0, number, len(body), views) + body, views)

    def until(self, condition) -> None:
        """Let the hub run until something heard makes this true."""
        with gevent.Timeout(PATIENCE):
            while not condition():
                self.event.wait()
                self.event.clear()

    def _on_frames(self, frames) -> None:
        self.batches.append(
            [(f.number, bytes(f.body), list(map(bytes, f.buffers))) for f in frames]
        )
        self.event.set()
        self.before_frames(frames)

    def _on_close(self, error) -> None:
        self.closes.append(error)
        self.event.set()


@pytest.fixture
def ends():
    """Both ends of a pipe; the other one has yet to start to read."""
    socks = socket.socketpair()
    pair = [End(sock) for sock in socks]
    pair[0].channel.start()
    yield pair
    for end in pair:
        end.channel.stop()
        end.sock.close()


@pytest.fixture
def lone():
    """One end with a channel, and a bare socket as the other."""
    sock, other = socket.socketpair()
    end = End(sock)
    end.channel.start()
    yield end, other
    end.channel.stop()
    sock.close()
    other.close()


def one_turn() -> None:
    """Let the loop turn once."""
    gevent.idle()


def until_writable(end: End) -> None:
    """Let the hub run until the channel has written everything."""
    with gevent.Timeout(PATIENCE):
        while end.channel.pending:
            gevent.sleep(0)


# --- order


def test_frames_of_all_sizes_arrive_in_order_both_ways(ends):
    _here, there = ends
    there.channel.start()
    sizes = [0, 5, 70_000, 3, 3 * AT_ONCE, 1, 200_000, 0]
    # given frames of all sizes, some with buffers, put at both ends at once
    for number, size in enumerate(sizes, 1):
        for end in ends:
            end.say(number, bytes([number]) * size, b"b" * size, b"c")
            end.channel.soon()
    # if the hub runs
    for end in ends:
        end.until(lambda end=end: len(end.heard) == len(sizes))
    # expect each at the other end, whole and in order
    for end in ends:
        assert end.heard == list(range(1, len(sizes) + 1))
        for number, size in enumerate(sizes, 1):
            assert end.frames[number] == [bytes([number]) * size, [b"b" * size, b"c"]]
        assert not end.channel.torn


def test_what_is_put_in_one_turn_goes_in_one_write(ends):
    here, there = ends
    there.channel.start()
    for number in (1, 2, 3):
        here.say(number)
        here.channel.soon()
    there.until(lambda: there.heard)
    assert [[number for number, _, _ in batch] for batch in there.batches] == [[1, 2, 3]]


def test_soon_is_heard_even_when_a_flush_came_before_it(ends):
    here, there = ends
    there.channel.start()
    here.say(1)
    here.channel.soon()
    here.channel.flush()
    here.say(2)
    here.channel.soon()
    there.until(lambda: len(there.heard) == 2)
    assert there.heard == [1, 2]


def test_a_flush_writes_at_once(ends):
    here, there = ends
    here.say(1, b"now")
    here.channel.flush()
    assert here.channel.pending == 0
    there.channel.read()
    assert there.heard == [1]


# --- back-pressure


def test_what_the_other_end_does_not_read_waits_here_and_stops_nobody(ends):
    here, there = ends
    body = os.urandom(5 * AT_ONCE)
    # given more than the kernel takes, and nobody who reads it
    here.say(1, body)
    here.channel.flush()
    # if the hub runs for a while
    for _ in range(5):
        one_turn()
    # expect it to go on, and the rest to wait
    assert 0 < here.channel.pending < len(body) + HEADER.size
    # if more is put, and the other end begins to read
    here.say(2, b"", body, b"small")
    here.say(3)
    here.channel.soon()
    here.channel.flush()
    there.channel.start()
    there.until(lambda: len(there.heard) == 3)
    # expect everything, in order
    assert there.heard == [1, 2, 3]
    assert there.frames[1] == [body, []]
    assert there.frames[2] == [b"", [body, b"small"]]
    assert here.channel.pending == 0


def test_after_a_jam_the_next_frame_goes_at_once(ends):
    here, there = ends
    here.say(1, bytes(3 * AT_ONCE))
    here.channel.flush()
    there.channel.start()
    there.until(lambda: there.heard == [1])
    until_writable(here)
    one_turn()
    here.say(2)
    here.channel.flush()
    assert here.channel.pending == 0
    there.until(lambda: there.heard == [1, 2])


def test_a_write_is_never_larger_than_a_turns_share(ends, monkeypatch):
    # given a pipe that would take anything at once
    here, _there = ends
    sizes = []

    def note(size):
        sizes.append(size)
        return size

    monkeypatch.setattr(os, "write", lambda fd, data: note(len(data)))
    monkeypatch.setattr(os, "writev", lambda fd, parts: note(sum(map(len, parts))))
    # if much is written, in few parts and in many
    for number in range(40):
        here.say(number, bytes(100_000), bytes(1000))
    here.say(40, bytes(3 * AT_ONCE))
    total = here.channel.pending
    here.channel.flush()
    # expect one share now, and the rest in turns of their own
    assert len(sizes) == 1
    until_writable(here)
    assert sum(sizes) == total
    assert max(sizes) <= AT_ONCE


@pytest.mark.parametrize("size", [1000, 10 * AT_ONCE], ids=["many small", "one large"])
def test_at_most_a_turns_share_is_read_at_once(size):
    # given a pipe full of megabytes, which takes a privilege
    sock, other = socket.socketpair()
    try:
        other.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 64 * AT_ONCE)
    except PermissionError:
        pytest.skip("only root may make a pipe so large")
    frame = head(1, 0, 1, size) + bytes(size)
    other.setblocking(False)
    stream = frame * (10 * AT_ONCE // len(frame) + 1)
    sent = other.send(stream[: 8 * AT_ONCE])
    assert sent > 4 * AT_ONCE
    end = End(sock)
    # if it is read once
    end.channel.read()
    # expect a turn's share, and at most one read more
    assert AT_ONCE // 2 < end.channel.total <= AT_ONCE + KEPT
    # if it is read to the end
    other.close()
    end.channel.read_all()
    assert end.channel.total == sent
    assert end.closes == [None]
    sock.close()


# --- the end


@pytest.mark.parametrize("unread", [b"", b"unread"], ids=["end", "reset"])
def test_an_end_and_a_reset_are_the_same(lone, unread):
    end, other = lone
    # given a peer that says something and dies, with or without unread bytes of ours
    os.write(end.sock.fileno(), unread) if unread else None
    other.sendall(head(1, 0, 1, 0))
    end.until(lambda: end.heard == [1])
    other.close()
    # expect to be told once that it is gone
    end.until(lambda: end.closes)
    for _ in range(3):
        one_turn()
    assert end.closes == [None]
    assert end.channel.closed
    assert not end.channel.torn


def test_a_peer_that_dies_within_a_frame_leaves_it_torn(lone):
    end, other = lone
    other.sendall(head(1, 0, 1, 0) + head(1, 0, 2, 100) + b"half")
    other.close()
    end.until(lambda: end.closes)
    assert end.heard == [1]
    assert end.closes == [None]
    assert end.channel.torn


@pytest.mark.parametrize(
    ("nonsense", "error"),
    [
        (HEADER.pack(0, 1, 0, MAX_BUFFERS + 1, 1), FrameError),
        (HEADER.pack(LIMIT + 1, 1, 0, 0, 1), FrameTooLarge),
    ],
)
def test_nonsense_ends_the_conversation_with_an_error(lone, nonsense, error):
    end, other = lone
    other.sendall(nonsense + bytes(1000))
    end.until(lambda: end.closes)
    assert [type(each) for each in end.closes] == [error]
    # expect nothing to be read from such a pipe any more
    other.sendall(head(1, 0, 1, 0))
    one_turn()
    assert end.heard == []
    assert len(end.closes) == 1


def test_a_failure_to_handle_frames_ends_the_conversation_too(lone, caplog):
    end, other = lone

    def fail(frames):
        raise RuntimeError("cannot")

    end.before_frames = fail
    other.sendall(head(1, 0, 1, 0))
    end.until(lambda: end.closes)
    assert isinstance(end.closes[0], FrameError)
    assert "cannot" in str(end.closes[0])
    assert "cannot" in caplog.text


def test_writing_to_a_peer_that_is_gone_raises_nothing(lone):
    end, other = lone
    other.close()
    end.say(1, bytes(3 * AT_ONCE))
    end.channel.flush()
    end.channel.drain()
    assert end.channel.pending == 0
    end.until(lambda: end.closes == [None])


def test_a_dead_workers_last_words_are_read_to_the_end(lone):
    end, other = lone
    # given a peer that has said much before it died
    for number in range(1, 21):
        other.sendall(head(1, 0, number, 1000) + bytes(1000))
    other.close()
    # if its pipe is read to the end, though the hub does not run
    end.channel.read_all()
    # expect all of it
    assert end.heard == list(range(1, 21))
    assert end.closes == [None]
    # if nothing is left
    end.channel.read_all()
    assert end.closes == [None]


def test_reading_all_of_a_living_pipe_ends_where_it_is_empty(lone):
    end, other = lone
    other.sendall(head(1, 0, 1, 0))
    end.channel.read_all()
    assert end.heard == [1]
    assert end.closes == []


def test_a_stopped_channel_neither_reads_nor_writes(lone):
    end, other = lone
    end.say(1)
    end.channel.soon()
    end.channel.stop()
    other.sendall(head(1, 0, 2, 0))
    one_turn()
    end.channel.read()
    end.channel.flush()
    assert end.batches == end.closes == []
    other.setblocking(False)
    with pytest.raises(BlockingIOError):
        other.recv(1)
    assert end.sock.fileno() >= 0, "the descriptor stays its owner's"


def test_whoever_stops_while_frames_are_handled_hears_no_more(lone):
    end, other = lone
    end.before_frames = lambda frames: end.channel.stop()
    other.sendall(head(1, 0, 1, 0))
    end.until(lambda: end.batches)
    other.sendall(head(1, 0, 2, 0))
    one_turn()
    end.channel.read_all()
    assert len(end.batches) == 1
    assert end.closes == []


def test_a_read_within_a_read_does_nothing(lone):
    end, other = lone
    end.before_frames = lambda frames: end.channel.read()
    other.sendall(head(1, 0, 1, 0) + head(1, 0, 2, 0))
    end.until(lambda: len(end.heard) == 2)
    assert len(end.batches) == 1


# --- from a task that keeps the hub from running


def collect(sock: socket.socket, size: int) -> tuple[threading.Thread, bytearray]:
    """Read ``size`` bytes on a native thread, slowly enough for the pipe to fill."""
    data = bytearray()

    def read():
        while len(data) < size:
            assert select.select([sock], [], [], PATIENCE)[0]
            data.extend(sock.recv(100_000))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    return thread, data


@pytest.mark.parametrize("blocked", [False, True], ids=["free", "jammed"])
def test_a_drain_writes_everything_though_the_hub_does_not_run(lone, blocked):
    end, other = lone
    body = os.urandom(4 * AT_ONCE)
    expected = head(1, 0, 1, len(body)) + body + head(1, 0, 2, 5) + b"drain"
    # given a large frame, which is jammed already or has yet to go
    end.say(1, body)
    end.channel.soon()
    if blocked:
        end.channel.flush()
    # if a task says something and drains the pipe, and never yields to the hub
    turns = []
    gevent.get_hub().loop.run_callback(turns.append, 1)
    thread, received = collect(other, len(expected))
    end.say(2, b"drain")
    end.channel.drain()
    # expect everything to be written, in order
    assert end.channel.pending == 0
    assert turns == []
    thread.join(PATIENCE)
    assert received == expected
    # if the hub runs again, expect it to find its pipe in order
    one_turn()
    one_turn()
    end.say(3)
    end.channel.soon()
    thread, received = collect(other, HEADER.size)
    with gevent.Timeout(PATIENCE):
        while thread.is_alive():
            gevent.sleep(0.001)
    assert received == head(1, 0, 3, 0)
    assert end.closes == []
