"""The slate: a page of memory that a worker shares with its manager.

The worker notes what it is about to run before it runs it. A pipe cannot say that of a worker
that is blocked or dead; the slate can: which task was running when the worker died, which ones
had not even arrived, and since when the running one runs.
"""

from __future__ import annotations

import mmap
import os
import struct
from typing import NamedTuple

_SIZE = mmap.PAGESIZE
# received u64 | begun u64 | running u64 | since f64 | arriving u64
_NUMBER = struct.Struct("<Q")
_BEGIN = struct.Struct("<QQd")
_RUNNING = struct.Struct("<Qd")
_RECEIVED_AT, _BEGUN_AT, _RUNNING_AT, _ARRIVING_AT = 0, 8, 16, 32


class Running(NamedTuple):
    """The sync run in progress: its number (0: none) and its start on the monotonic clock."""

    number: int
    since: float


class Slate:
    """One side's view of the page; ``fd`` is closed once it is mapped."""

    def __init__(self, fd: int) -> None:
        self._page = mmap.mmap(fd, _SIZE)

    @classmethod
    def create(cls) -> tuple[Slate, int]:
        """A blank slate, and the descriptor by which a worker gets it too."""
        fd = os.memfd_create("gtaskman-slate", os.MFD_CLOEXEC)
        try:
            os.ftruncate(fd, _SIZE)
            return cls(fd), fd
        except BaseException:
            os.close(fd)
            raise

    def receive(self, number: int) -> None:
        """The worker has read the order with this number."""
        _NUMBER.pack_into(self._page, _RECEIVED_AT, number)

    def arrive(self, number: int) -> None:
        """The worker is about to allocate and read the large order with this number."""
        _NUMBER.pack_into(self._page, _ARRIVING_AT, number)

    def begin(self, number: int, now: float) -> None:
        """The worker is about to run this one, a higher number than any before."""
        _BEGIN.pack_into(self._page, _BEGUN_AT, number, number, now)

    def end(self) -> None:
        """The worker runs nothing."""
        _RUNNING.pack_into(self._page, _RUNNING_AT, 0, 0.0)

    def received(self) -> int:
        """The highest number that the worker has read."""
        return int(_NUMBER.unpack_from(self._page, _RECEIVED_AT)[0])

    def arriving(self) -> int:
        """The last large order that the worker began to read.

        While it is higher than :meth:`received`, that order has not been read completely: if the
        worker is dead, it may have died of its size.
        """
        return int(_NUMBER.unpack_from(self._page, _ARRIVING_AT)[0])

    def begun(self) -> int:
        """The last sync run that the worker has begun, whether or not it has ended."""
        return int(_NUMBER.unpack_from(self._page, _BEGUN_AT)[0])

    def running(self) -> Running:
        """What the worker runs."""
        return Running(*_RUNNING.unpack_from(self._page, _RUNNING_AT))

    def close(self) -> None:
        """Let the page go."""
        self._page.close()
