"""Bytes <-> frames, without any I/O.

A frame on the pipe::

    u32 body length | u8 kind | u8 flags | u16 buffers | u64 number
    then a u64 for each buffer: its size, and in the top byte what it becomes
    then the body, then the buffers

Small frames are parsed in place, in one buffer that is kept: reading into a fresh one for each
message costs a map and an unmap of memory. A frame that would not fit is read straight into
buffers of its own, so that nothing large is ever copied.
"""

from __future__ import annotations

import ctypes
import enum
import mmap
import struct
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from gtaskman.errors import FrameError, FrameTooLarge

HEADER = struct.Struct("<IBBHQ")
HEADER_SIZE = HEADER.size
KEPT = 256 * 1024  # bytes of the kept buffer: what a pipe holds at most in one read
AT_ONCE = 1024 * 1024  # bytes read or written per turn at most, so that the hub goes on
MAX_BUFFERS = 4096
_MAPPED = 64 * 1024  # a buffer from this size on is mapped, which zeroes it lazily
_SIZE_MASK = (1 << 56) - 1


class Becomes(enum.IntEnum):
    """What a received buffer is made of: it must arrive as the type that was sent."""

    MEMORY = 0
    BYTES = 1
    BYTEARRAY = 2


class Frame(NamedTuple):
    """One message as it came. ``body`` is valid until the next read, ``buffers`` for ever."""

    kind: int
    flags: int
    number: int
    body: memoryview
    buffers: Sequence[object]


_NO_BUFFERS: tuple[object, ...] = ()


def head(
    kind: int, flags: int, number: int, size: int, buffers: Sequence[memoryview] = ()
) -> bytes:
    """The bytes that go before a body of ``size`` bytes and its ``buffers``."""
    if not buffers:
        return HEADER.pack(size, kind, flags, 0, number)
    sizes = [raw.nbytes | (becomes(raw) << 56) for raw in buffers]
    return HEADER.pack(size, kind, flags, len(sizes), number) + struct.pack(
        f"<{len(sizes)}Q", *sizes
    )


def becomes(raw: memoryview) -> Becomes:
    """What the receiver shall make of this buffer."""
    owner = type(raw.obj)
    if owner is bytes:
        return Becomes.BYTES
    return Becomes.BYTEARRAY if owner is bytearray else Becomes.MEMORY


def allocate(size: int, kind: int) -> tuple[object, memoryview]:
    """A buffer to be filled: the object that will be handed on, and a writable view of it.

    ``bytes`` and ``bytearray`` come from the C API unfilled. Python's own constructors would zero
    100 MB first, and a copy afterwards would stop the hub for as long again. Filling a bytes
    object that nobody has seen yet is what ``PyBytes_FromStringAndSize(NULL, n)`` is for.
    """
    if kind == Becomes.BYTES:
        made = _new_bytes(None, size)
        return made, _view_of(_bytes_at(made), size, _WRITABLE)
    if kind == Becomes.BYTEARRAY:
        grown = _new_bytearray(None, size)
        return grown, memoryview(grown)
    if size < _MAPPED:
        small = memoryview(bytearray(size))
        return small, small
    mapped = memoryview(mmap.mmap(-1, size))
    return mapped, mapped


_new_bytes = ctypes.pythonapi.PyBytes_FromStringAndSize
_new_bytes.restype = ctypes.py_object
_new_bytes.argtypes = [ctypes.c_void_p, ctypes.c_ssize_t]
_new_bytearray = ctypes.pythonapi.PyByteArray_FromStringAndSize
_new_bytearray.restype = ctypes.py_object
_new_bytearray.argtypes = [ctypes.c_void_p, ctypes.c_ssize_t]
_bytes_at = ctypes.pythonapi.PyBytes_AsString
_bytes_at.restype = ctypes.c_void_p
_bytes_at.argtypes = [ctypes.py_object]
_view_of = ctypes.pythonapi.PyMemoryView_FromMemory
_view_of.restype = ctypes.py_object
_view_of.argtypes = [ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int]
_WRITABLE = 0x200  # PyBUF_WRITE


class _Filling:
    """A large frame while its parts are being read.

    Each buffer is allocated when its turn comes: a frame that is announced, and never sent, costs
    next to nothing.
    """

    def __init__(self, kind: int, flags: int, number: int, size: int, sizes: Sequence[int]) -> None:
        self.kind, self.flags, self.number = kind, flags, number
        self.body = (
            memoryview(bytearray(size)) if size < _MAPPED else memoryview(mmap.mmap(-1, size))
        )
        self.at = 0  # bytes of the whole frame that are there
        self._sizes = sizes
        self._size = size + sum(each & _SIZE_MASK for each in sizes)
        # What was allocated so far, and at which byte of the frame it begins; the last is filled.
        self._parts: list[tuple[object, memoryview, int]] = [(None, self.body, 0)]
        self.turn()

    @property
    def full(self) -> bool:
        return self.at == self._size

    def room(self) -> memoryview:
        _, view, start = self._parts[-1]
        at = self.at - start
        return view[at : at + AT_ONCE]

    def turn(self) -> None:
        """Go on with the next part when this one is full; may be called again."""
        while len(self._parts) <= len(self._sizes):
            _, view, start = self._parts[-1]
            if self.at < start + len(view):
                return
            size = self._sizes[len(self._parts) - 1]
            self._parts.append((*allocate(size & _SIZE_MASK, size >> 56), start + len(view)))

    def take(self, data: memoryview) -> int:
        """Fill in from ``data``; gives how many bytes were taken."""
        taken = 0
        while taken < len(data) and not self.full:
            room = self.room()
            count = min(len(room), len(data) - taken)
            room[:count] = data[taken : taken + count]
            self.at += count
            self.turn()
            taken += count
        return taken

    def frame(self) -> Frame:
        buffers = [owner for owner, _, _ in self._parts[1:]]
        return Frame(self.kind, self.flags, self.number, self.body, buffers)


class FrameReader:
    """Cuts a stream of bytes into frames, wherever the reads happen to split it.

    Read into :meth:`room`, then say with :meth:`advance` how much came. ``limit`` is the largest
    frame in bytes; a larger one raises :class:`FrameTooLarge`. What cannot be a frame, such as one
    that is none of ``kinds``, raises :class:`FrameError`, before anybody waits for its body. After
    either the stream is of no use any more. A signal handler may raise anywhere in here: what was
    read but is not in a frame yet is noted in ``counts``, and the frames that were not handled yet
    are in ``cut``; then :meth:`advance` goes on. ``on_large(kind, number)``, if it is set, is
    called before a large frame is refused for its size, or read into buffers of its own.
    """

    on_large: Callable[[int, int], None] | None = None

    def __init__(self, limit: int, kept: int = KEPT, kinds: Collection[int] | None = None) -> None:
        self._limit = limit
        self._kinds = kinds
        self._kept = bytearray(kept)
        self._view = memoryview(self._kept)
        self._have = 0
        self._done = 0  # what lies before this has been handed on, what lies behind is yet to come
        self._large = min(kept // 2, limit)
        self._filling: _Filling | None = None
        self.counts: list[int] = []  # bytes that were read and are yet to be cut, one at most
        self.cut: list[Frame] = []  # the frames that advance() gave last

    @property
    def inside(self) -> bool:
        """Whether the stream stands inside a frame, so that an end here tears it."""
        return self._have > self._done or self._filling is not None

    def room(self) -> memoryview:
        """Where the next bytes go. Bodies that were handed on before are invalid from here on."""
        if self._filling is not None:
            return self._filling.room()
        if self._done == self._have:
            self._have = self._done = 0
            return self._view
        if self._done:
            rest = self._have - self._done
            self._kept[:rest] = bytes(self._view[self._done : self._have])
            self._have, self._done = rest, 0
        return self._view[self._have :]

    def advance(self, count: int | None = None) -> list[Frame]:
        """Take note of ``count`` new bytes, or of ``counts``; gives the frames that are whole now.

        Each change of what is noted is made by instructions between which no handler can run: a
        handler runs after a call, and where a loop begins again.
        """
        counts = self.counts
        if count is not None:
            counts.append(count)
        filling = self._filling
        if filling is not None:
            if counts:
                filling.at += counts[0]
                counts[0] = 0
            filling.turn()
            return self._filled(filling)
        # The hot loop of both sides: one pass over what is there, no call per frame.
        frames: list[Frame] = []
        view, have, at = self._view, self._have, self._done
        if counts:
            have += counts[0]
        unpack, header = HEADER.unpack_from, HEADER_SIZE
        append = frames.append
        new = tuple.__new__  # a quarter of what NamedTuple's own constructor takes
        while have - at >= header:
            size, kind, flags, many, number = unpack(view, at)
            start = at + header
            if many or size > self._large:
                taken, filling = self._with_buffers(frames, at, have)
                if taken == 0:
                    break
                at += taken
                continue
            end = start + size
            if end > have:
                self._check(kind)
                break
            append(new(Frame, (kind, flags, number, view[start:end], _NO_BUFFERS)))
            at = end
        self.cut = frames
        self._filling = filling
        self._have, self._done = have, at
        del counts[:]
        return frames

    def _filled(self, filling: _Filling) -> list[Frame]:
        frames = [filling.frame()] if filling.full else []
        self.cut = frames
        if frames:
            self._filling = None
        del self.counts[:]
        return frames

    def _with_buffers(self, frames: list[Frame], at: int, have: int) -> tuple[int, _Filling | None]:
        """Parse a frame that is large or has buffers.

        Gives how many bytes of it were taken, and what is still to be filled.
        """
        size, kind, flags, count, number = HEADER.unpack_from(self._view, at)
        self._check(kind)
        if count > MAX_BUFFERS:
            raise FrameError(f"a frame claims {count} buffers: these are no frames of ours")
        start = at + HEADER_SIZE + 8 * count
        if start > have:
            return 0, None
        sizes = struct.unpack_from(f"<{count}Q", self._view, at + HEADER_SIZE)
        total = size + sum(each & _SIZE_MASK for each in sizes)
        if self.on_large is not None:
            self.on_large(kind, number)
        if total > self._limit:
            raise FrameTooLarge(f"a frame of {total} bytes is over the limit of {self._limit}")
        filling = _Filling(kind, flags, number, size, sizes)
        taken = filling.take(self._view[start:have])
        size = int(start + taken - at)
        if not filling.full:
            return size, filling
        frames.append(filling.frame())
        return size, None

    def _check(self, kind: int) -> None:
        if self._kinds is not None and kind not in self._kinds:
            raise FrameError(f"a frame is of the unknown kind {kind}: these are no frames of ours")
