"""One child process, as its parent sees it: its pipe, its slate, its signals, how it ended.

It knows nothing of what the process does: a :class:`~gtaskman.pool.worker.Worker` runs tasks in
it, an instance of a service runs that.
"""

from __future__ import annotations

import _socket
import functools
import logging
import os
import posix
import signal
import time
from collections.abc import Callable, Collection
from typing import Any, Self

from gtaskman.errors import FrameError
from gtaskman.pool.launch import STANDARD_ERROR, clear_of_output
from gtaskman.wire import messages
from gtaskman.wire.channel import Channel
from gtaskman.wire.frames import Frame, head
from gtaskman.wire.slate import Slate
from gtaskman.wire.watcher import READ, Watcher

log = logging.getLogger(__name__)


class Process:
    """The parent's end of one child.

    ``on_forbidden(pid, signal)``, if it is set, sends a signal that this process may not send.
    ``on_frames(process, frames)`` gets what it says, of the ``kinds`` that it may; ``limit`` is
    the largest frame. ``on_gone(process, error)`` is told when its pipe has ended.
    """

    on_forbidden: Callable[[int, int], None] | None = None

    def __init__(
        self,
        number: int,
        loop: Any,
        limit: int,
        on_frames: Callable[[Self, list[Frame]], None],
        on_gone: Callable[[Self, FrameError | None], None],
        kinds: Collection[int] = messages.TO_MANAGER,
    ) -> None:
        self.number = number
        self.pid: int | None = None
        self.pidfd = -1
        self.started_at = time.monotonic()
        self.kill_reason: str | None = None
        self.exit: tuple[int | None, int] | None = None  # status and most bytes, once known
        self.ended = False  # it has, whether or not anybody knows how
        self._loop = loop
        self._slate, page = Slate.create()
        try:
            self._socket, theirs = _pipe()
        except BaseException:
            self._slate.close()
            posix.close(page)
            raise
        self._theirs: tuple[int, int] | None = (theirs, clear_of_output(page))
        self._watcher: Watcher | None = None
        self._due: list[int] = []  # signals for a process that is not known yet
        self.channel = Channel(
            self._socket.fileno(),
            loop,
            limit,
            kinds,
            functools.partial(on_frames, self),
            functools.partial(on_gone, self),
            ref=False,
        )
        self.channel.start()

    def take_descriptors(self) -> tuple[int, int]:
        """The child's end of the pipe and its page, once: whoever starts it closes them."""
        assert self._theirs is not None
        theirs, self._theirs = self._theirs, None
        return theirs

    def greet(self, first: bytes) -> None:
        """Put the first bytes on the pipe of a child that expects some."""
        if first:
            self.channel.put(first)
            self.channel.flush()

    def is_up(self, pid: int, pidfd: int, on_ended: Callable[[Self], None]) -> None:
        """The process lives; ``on_ended(self)`` is called when it does so no more."""
        self.pid, self.pidfd = pid, pidfd
        if self._watcher is None:  # else a signal handler has raised in here
            self._watcher = Watcher(self._loop, pidfd, READ, "the end of a child process")
        self._watcher.start(self._on_ended, on_ended)
        for number in self._due:
            self.signal(number)
        self._due.clear()

    def _on_ended(self, tell: Callable[[Self], None]) -> None:
        self.ended = True
        tell(self)
        if self._watcher is not None:
            self._watcher.stop()

    def signal(self, number: int) -> None:
        """Send it a signal; one that has ended gets none."""
        if self.pidfd < 0:
            # It may speak, and work, before the starter has told who it is.
            self._due.append(number)
            return
        try:
            signal.pidfd_send_signal(self.pidfd, number)
        except ProcessLookupError:
            pass  # it has ended, which is seen elsewhere
        except PermissionError:
            # This process has changed its user since it started the child.
            self._forbidden(number)

    def _forbidden(self, number: int) -> None:
        if self.on_forbidden is not None and self.pid is not None:
            self.on_forbidden(self.pid, number)
        else:
            log.error("process %s cannot be sent signal %s: no permission", self.pid, number)

    def ring(self) -> None:
        """Make the child read its pipe even if a task keeps its hub from running."""
        self.signal(signal.SIGURG)

    def end(self, reason: str) -> None:
        """End it at once; the first ``reason`` stands."""
        if self.kill_reason is None:
            self.kill_reason = reason
        self.signal(signal.SIGKILL)

    def rss(self) -> int:
        """Its resident bytes now; 0 if it is gone."""
        try:
            with open(f"/proc/{self.pid}/statm", "rb") as file:
                return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, IndexError):
            return 0

    def put(self, kind: int, number: int, body: bytes = b"") -> None:
        """Say something with the next flush."""
        self.channel.put(head(kind, 0, number, len(body)) + body)

    def close(self) -> None:
        """Let go of everything that belongs to it; may be called again."""
        self.channel.stop()
        if self._watcher is not None:
            self._watcher.close()
            self._watcher = None
        # No signal handler can raise between a number's removal and its closing.
        if self.pidfd >= 0:
            pidfd, self.pidfd = self.pidfd, -1
            posix.close(pidfd)
        if self._theirs is not None:
            theirs, self._theirs = self._theirs, None
            tuple(map(posix.close, theirs))
        self._socket.close()
        self._slate.close()


def _pipe() -> tuple[_socket.socket, int]:
    """Our end of a new pipe and the descriptor of the child's."""
    ours, theirs = _socket.socketpair()
    fd = clear_of_output(theirs.detach())
    if ours.fileno() > STANDARD_ERROR:
        return ours, fd
    try:
        return _socket.socket(fileno=clear_of_output(ours.detach())), fd
    except BaseException:
        posix.close(fd)
        raise
