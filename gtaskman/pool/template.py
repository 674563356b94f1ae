"""One zygote process, as its manager sees it."""

from __future__ import annotations

import _socket
import collections
import contextlib
import errno
import logging
import os
import posix
import signal
import time
from collections.abc import Sequence
from typing import Any, Protocol

from gtaskman.latch import Latch
from gtaskman.pool.alarm import Alarm
from gtaskman.pool.launch import abandon, close_all, exec_python, program, reap
from gtaskman.wire import control
from gtaskman.wire.settings import Settings
from gtaskman.wire.watcher import READ, WRITE, Watcher

log = logging.getLogger(__name__)

# Of memory, or of descriptors on their way.
_SHORT = (errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS)
_GONE = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN)
_PAUSE = 0.05  # seconds until a message is sent again


class TemplateListener(Protocol):
    """Who is told what a template says."""

    def on_message(self, template: Template, message: Any, fds: list[int]) -> None:
        """It said something."""

    def on_lost(self, template: Template) -> None:
        """It is gone, and its workers with it."""


class Template:
    """The process that workers are forked from. All calls return at once."""

    def __init__(self, loop: Any, settings: Settings, listener: TemplateListener) -> None:
        self._listener = listener
        self._outbox: collections.deque[tuple[Any, Sequence[int]]] = collections.deque()
        self._socket, self.pid, self.pidfd = _launch(settings)
        self._sent: list[int] = []  # whether the first one of the outbox was sent
        self._packets: list[control.Packet] = []  # the one that came last, until it is handled
        self._again = Alarm(loop)
        self.ready = False
        self.heard_at = time.monotonic()  # when it last said something
        self.importing: str | None = None
        self.lost = False
        self._told = False  # the listener knows that it is lost
        self.why = "the template that it was forked from has died"
        self.ended = Latch()
        fd = self._socket.fileno()
        self._readable = Watcher(loop, fd, READ, "reading the socket of a template")
        self._writable = Watcher(loop, fd, WRITE, "writing the socket of a template")
        self._ended = Watcher(loop, self.pidfd, READ, "the end of a template")
        self._readable.start(self.read)
        self._ended.start(self._reap)

    def send(self, message: Any, fds: Sequence[int] = ()) -> None:
        """Send a message; ``fds`` are closed here once they are on their way."""
        self._outbox.append((message, fds))
        self._write()

    def _write(self) -> None:
        while self._outbox:
            message, fds = self._outbox[0]
            try:
                if not self._sent:
                    control.send(self._socket, message, fds, self._sent)
            except BlockingIOError:
                self._writable.start(self._write)
                return
            except OSError as error:
                if error.errno in _SHORT:
                    self._writable.stop()
                    self._again.set(_PAUSE, self._write)
                    return
                if error.errno not in _GONE:  # else the reading side tells
                    log.error("a template cannot be sent %s: %s", message, error)
            closing = map(posix.close, fds)
            # No signal handler can raise from here on until they are closed.
            del self._outbox[0]
            del self._sent[:]
            tuple(closing)
        self._writable.stop()

    def read(self) -> None:
        """Take note of what it has said."""
        while not self.lost:
            if not self._packets:
                try:
                    control.receive_into(self._socket, self._packets)
                except BlockingIOError:
                    return
            try:
                self._handle(*control.take(self._packets[0]))
            except Exception:
                del self._packets[:]
                raise
            del self._packets[:]

    def _handle(self, message: Any, fds: list[int]) -> None:
        if message is None:
            self._lose()
        else:
            self.heard_at = time.monotonic()
            self._listener.on_message(self, message, fds)

    def _lose(self) -> None:
        self._close()
        if not self._told:
            # A template that closes its socket and stays is of no use to anybody.
            self.kill()
            self._listener.on_lost(self)
            self._told = True

    def kill(self) -> None:
        """End it and, since they die with it, its workers."""
        if self.pidfd >= 0:
            try:
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
            except ProcessLookupError:
                pass
            except PermissionError:
                # This process has changed its user. A template whose socket ends kills its workers
                # and itself, unless it is importing something.
                if not self.lost:
                    with contextlib.suppress(OSError):
                        self._socket.shutdown(_socket.SHUT_WR)

    def _reap(self) -> None:
        if not self.lost:
            self.read()  # what it said before it ended
        self._lose()
        self._ended.close()
        if self.pidfd >= 0:
            reap(self.pid)
            posix.close(self.pidfd)
            self.pidfd = -1
        self.ended.open()

    def close(self) -> None:
        """Close the socket without a word to the listener: the process ends by itself."""
        self._told = True
        self._close()

    def _close(self) -> None:
        if self.lost:
            return
        self.lost = True
        self._readable.close()
        self._writable.close()
        self._again.cancel()
        self._socket.close()
        for _, fds in self._outbox:
            close_all(fds)
        self._outbox.clear()

    def forget(self) -> None:
        """In a fork of the application: close our copies, touch nothing else."""
        self.close()
        if self.pidfd >= 0:
            self._ended.close()
            posix.close(self.pidfd)
            self.pidfd = -1


def _launch(settings: Settings) -> tuple[_socket.socket, int, int]:
    """Start the process: our end of its socket, its pid and its pidfd.

    Raises OSError or :class:`StartMethodError`, and leaves nothing behind then.
    """
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    try:
        ours.setblocking(False)
        file = control.file_settings(settings)
        try:
            pid = exec_python(program("gtaskman.child.zygote", 2), [theirs.fileno(), file])
        finally:
            posix.close(file)
        try:
            return ours, pid, os.pidfd_open(pid)
        except BaseException:
            abandon(pid)
            raise
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
