"""A pipe's end on a gevent loop: reads into frames, writes what the kernel takes.

The reader is a callback of the loop, not a greenlet, and at most a megabyte is read or written in
one turn: however much there is on the way, the hub goes on. Nothing here blocks but
:meth:`Channel.drain`, which a worker calls from a task that keeps its hub from running.
"""

from __future__ import annotations

import logging
import os
import select
from collections.abc import Callable, Collection, Sequence
from typing import Any

from gevent import monkey

from gtaskman.errors import FrameError
from gtaskman.wire.frames import AT_ONCE, Frame, FrameReader
from gtaskman.wire.watcher import READ, WRITE, Watcher

log = logging.getLogger(__name__)

_JOINED = 64 * 1024  # parts up to this size are copied together: one write is cheaper than many
_VECTORS = 64


class Channel:
    """One end of a worker's pipe.

    ``on_frames(frames)`` gets what was read, in order; their bodies are valid until it returns. If
    it is left by something that is no ``Exception``, such as KeyboardInterrupt, it is called again
    with the same list if it ``resumes``; else the channel is closed.
    ``on_close(error)`` is called once when the other end is gone (None) or talks nonsense.
    ``on_flush``, if it is set, is called before anything is written, to :meth:`put` what it has.
    """

    on_flush: Callable[[], None] | None = None

    def __init__(
        self,
        fd: int,
        loop: Any,
        limit: int,
        kinds: Collection[int],
        on_frames: Callable[[list[Frame]], None],
        on_close: Callable[[FrameError | None], None],
        ref: bool = True,
        resumes: bool = True,
    ) -> None:
        os.set_blocking(fd, False)
        self.fd = fd
        self.reading = False
        self.closed = False
        self.total = 0  # bytes read so far
        self._loop = loop
        self._resumes = resumes
        self._reader = FrameReader(limit, kinds=kinds)
        self._on_frames = on_frames
        self._on_close = on_close
        self.parts: list[bytes | memoryview] = []  # to be written; put() adds to it
        self._written: list[int] = []  # bytes at their head that the kernel has taken, one at most
        self._blocked = False
        self._scheduled = False
        self._readable = Watcher(loop, fd, READ, "reading a pipe", ref)
        self._writable = Watcher(loop, fd, WRITE, "writing a pipe", ref)

    def start(self, on_readable: Callable[[], None] | None = None) -> None:
        """Begin to read: the loop calls ``on_readable``, or :meth:`read` itself."""
        self._readable.start(on_readable or self.read)

    def announce_large(self, on_large: Callable[[int, int], None]) -> None:
        """Call ``on_large(kind, number)`` before memory is allocated for a large frame."""
        self._reader.on_large = on_large

    # --- reading

    def read(self) -> None:
        """Read what is there, up to the turn's share, and hand it on."""
        if self.reading or self.closed:
            return
        self.reading = True
        try:
            gone = self._read_some()
        except FrameError as error:
            self._close(error)
        except Exception as error:
            # Whatever it was, frames may be lost now: this pipe can be trusted no more.
            log.exception("what came over a pipe could not be handled")
            self._close(FrameError(f"{type(error).__name__}: {error}"))
        except BaseException as error:
            if self._reader.cut and not self._resumes:
                self._close(FrameError(f"interrupted by {type(error).__name__}"))
            raise
        else:
            if gone:
                self._close(None)
        finally:
            self.reading = False

    def read_all(self) -> None:
        """Read until the pipe is empty or closed: the last words of a worker that died."""
        while not self.closed:
            before = self.total
            self.read()
            if self.total == before:
                return

    def _read_some(self) -> bool:
        """Whether the other end is gone."""
        reader, left = self._reader, AT_ONCE
        if reader.cut or reader.counts:
            # A signal handler has raised before this was handled: now, first of all.
            self._hand_on(reader.cut or reader.advance())
        while left > 0:
            room = reader.room()
            try:
                # Noted without an instruction in between, after which a handler could raise.
                reader.counts.extend(map(os.readv, (self.fd,), ((room,),)))
            except BlockingIOError:
                return False
            except (ConnectionResetError, BrokenPipeError):
                # A peer that dies with unread bytes of ours resets the pipe: an end like any other.
                return True
            count = reader.counts[0]
            if not count:
                return True
            self.total += count
            left -= count
            self._hand_on(reader.advance())
            if count < len(room) or self.closed:
                return False
        return False

    def _hand_on(self, frames: list[Frame]) -> None:
        if frames:
            self._on_frames(frames)
            self._reader.cut = []

    @property
    def torn(self) -> bool:
        """Whether the last bytes were the beginning of a frame that never came whole."""
        return self._reader.inside

    # --- writing

    @property
    def pending(self) -> int:
        """Bytes that the kernel has not taken yet."""
        return sum(map(len, self.parts))

    def put(self, *parts: bytes | memoryview) -> None:
        """Take bytes to be written by the next :meth:`flush`, :meth:`soon` or :meth:`drain`."""
        self.parts.extend(parts)

    def put_frame(self, frame: bytes, buffers: Sequence[memoryview] = ()) -> None:
        """:meth:`put` for a frame and the buffers behind it."""
        self.parts.append(frame)
        if buffers:
            self.parts.extend(raw for raw in buffers if raw.nbytes)

    def soon(self) -> None:
        """Flush at the end of this turn of the loop, once for all that is put until then."""
        if not self._scheduled and not self._blocked:
            self._scheduled = True
            self._loop.run_callback(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        self.flush()

    def flush(self) -> None:
        """Write what the kernel takes now; the rest goes when it takes more."""
        if self.on_flush is not None:
            self.on_flush()
        if self._blocked or self.closed or not self.parts:
            return
        if not self._write_some():
            self._writable.start(self._on_writable)
            self._blocked = True

    def _on_writable(self) -> None:
        if self._write_some():
            self._blocked = False
            self._writable.stop()

    def drain(self) -> None:
        """Write everything, blocking: for a task that keeps the hub from running."""
        if self.on_flush is not None:
            self.on_flush()
        poll = None
        while self.parts and not self.closed:
            if self._write_some() or not self.parts:
                continue
            if poll is None:
                poll = monkey.get_original("select", "poll")()
                poll.register(self.fd, select.POLLOUT)
            poll.poll()

    def _write_some(self) -> bool:
        """Write up to a turn's share; whether everything went.

        A signal handler may raise anywhere in here: no byte is written twice or left out.
        """
        parts, written = self.parts, self._written
        self._drop_written()
        try:
            # Noted without an instruction in between, after which a handler could raise.
            if sum(map(len, parts)) <= _JOINED:
                # By far the commonest: a few small frames, which the kernel takes whole.
                data = parts[0] if len(parts) == 1 else b"".join(parts)
                written.extend(map(os.write, (self.fd,), (data,)))
            else:
                written.extend(map(os.writev, (self.fd,), (self._gather(),)))
        except BlockingIOError:
            return False
        except (BrokenPipeError, ConnectionResetError):
            # The reading side reports the death, with whatever the peer said before.
            parts.clear()
        self._drop_written()
        return not parts

    def _gather(self) -> list[bytes | memoryview]:
        """The next parts to offer: the small ones joined, at most a turn's share in all."""
        offered: list[bytes | memoryview] = []
        small: list[bytes | memoryview] = []
        size = 0
        for part in self.parts:
            length = len(part)
            if size + length > AT_ONCE and size:
                break
            size += length
            if length <= _JOINED:
                small.append(part)
                continue
            if small:
                offered.append(b"".join(small))
                small = []
            offered.append(part if length <= AT_ONCE else memoryview(part)[:AT_ONCE])
            if len(offered) >= _VECTORS or length > AT_ONCE:
                break
        if small:
            offered.append(b"".join(small))
        return offered

    def _drop_written(self) -> None:
        """Forget what the kernel has taken; no handler can run between the last two statements."""
        parts, written = self.parts, self._written
        if not written:
            return
        count, taken = written[0], 0
        rest: list[bytes | memoryview] = []
        for part in parts:
            length = len(part)
            if count < length:
                if count:
                    rest = [memoryview(part)[count:]]
                    taken += 1
                break
            count -= length
            taken += 1
        parts[:taken] = rest
        del written[:]

    # --- the end

    def _close(self, error: FrameError | None) -> None:
        if not self.closed:
            self._end(error)

    def _end(self, error: FrameError | None) -> None:
        try:
            self.stop()
            self._on_close(error)
        except Exception:
            raise
        except BaseException:
            # A signal handler has raised: its owner must hear of the end all the same.
            self._loop.run_callback(self._end, error)
            raise

    def stop(self) -> None:
        """Stop reading and writing; the descriptor stays the owner's."""
        self.closed = True
        self._readable.close()
        self._writable.close()
        self.parts.clear()
