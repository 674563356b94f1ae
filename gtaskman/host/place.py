"""``Place``: the path where a manager listens, and what keeps it to one manager at a time.

::

    /run/app/                    0700, or the owner's and nobody else may write
    /run/app/gtaskman.sock       0600: the socket
    /run/app/gtaskman.sock.lock  held, by flock, for as long as the manager lives; says who it is

What a dead manager left behind is removed, but only by who holds the lock. A program that begins
again with new code hands its lock over, and the new socket takes the path in one step.
"""

from __future__ import annotations

import _socket
import contextlib
import fcntl
import grp
import logging
import os
import posix
import stat

from gtaskman.errors import BindError
from gtaskman.host.address import SocketAddress

log = logging.getLogger(__name__)

_BACKLOG = 1024  # processes that may connect at one moment
_OTHERS = stat.S_IWGRP | stat.S_IWOTH
HANDED_OVER = "GTASKMAN_PLACE"  # in a next program: the descriptor of its lock


class Place:
    """One path. ``mode`` is that of the socket, ``group`` (a name or a number) its group."""

    def __init__(
        self, address: SocketAddress, mode: int = 0o600, group: str | int | None = None
    ) -> None:
        self.address = address
        self._mode = mode
        self._group = None if group is None else _group(group)
        self._lock = -1
        self._handed = -1  # a copy of the lock's descriptor, for a next program
        self._inode: tuple[int, int] | None = None  # of our socket, by which we know it

    def occupy(self) -> None:
        """Take the place. Raises :class:`BindError` if it is taken, or open to others."""
        self._prepare_directory()
        path = self.address.path + ".lock"
        handed = os.environ.pop(HANDED_OVER, None)
        self._lock = _take_over(handed, path) if handed else -1
        if self._lock < 0:
            self._lock = self._acquire(path)
        self._say_who()

    def _prepare_directory(self) -> None:
        directory = os.path.dirname(self.address.path)
        try:
            os.makedirs(directory, 0o700, exist_ok=True)
            found = os.stat(directory)
        except OSError as error:
            raise BindError(
                f"the directory {directory} cannot be had: {error.strerror or error}"
            ) from None
        if found.st_uid not in (os.geteuid(), 0):
            raise BindError(
                f"the directory {directory} belongs to user {found.st_uid}, who could put another"
                f" socket in place of ours: use one of your own, such as {directory}/gtaskman"
            )
        if found.st_mode & _OTHERS:
            raise BindError(
                f"others may write to the directory {directory}, and could put another socket in"
                f" place of ours: use one of your own, such as {directory}/gtaskman, or take that"
                f" away from them (chmod go-w {directory})"
            )

    def _acquire(self, path: str) -> int:
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise BindError(f"{path} cannot be opened: {error.strerror or error}") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            who = os.pread(lock, 1024, 0).decode(errors="replace").strip()
            posix.close(lock)
            raise BindError(
                f"{self.address} is taken by {who or 'another manager'}: stop that one first, or"
                " bind this one to another path"
            ) from None
        return lock

    def _say_who(self) -> None:
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"process {os.getpid()}\n".encode(), 0)

    def listen(self) -> _socket.socket:
        """A socket that listens here; whatever had the path before has it no more.

        Raises :class:`BindError`.
        """
        path = self.address.path
        new = path + "~"
        listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK)
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(new)
            listener.bind(new)
            if self._group is not None:
                os.chown(new, -1, self._group)
            os.chmod(new, self._mode)
            listener.listen(_BACKLOG)
            # In one step: whoever connects finds the old socket or the new one.
            os.rename(new, path)
        except OSError as error:
            listener.close()
            raise BindError(
                f"{self.address} cannot be listened at: {error.strerror or error}"
            ) from None
        found = os.stat(path)
        self._inode = found.st_dev, found.st_ino
        return listener

    def hand_over(self) -> None:
        """Let the next program that this process starts, or becomes, have the place as well."""
        if self._handed < 0:
            self._handed = os.dup(self._lock)
            os.set_inheritable(self._handed, True)
            os.environ[HANDED_OVER] = str(self._handed)

    def keep(self) -> None:
        """Take a :meth:`hand_over` back: programs that are started now have no part in it."""
        if self._handed >= 0:
            posix.close(self._handed)
            self._handed = -1
            os.environ.pop(HANDED_OVER, None)

    def leave(self) -> None:
        """Give the place up, but for what was handed over; a second time does nothing."""
        if self._lock < 0:
            return
        with contextlib.suppress(OSError):
            found = os.lstat(self.address.path)
            if (found.st_dev, found.st_ino) == self._inode:
                os.unlink(self.address.path)
        self.forget()

    def forget(self) -> None:
        """In a fork: close our copy of the lock's descriptor."""
        if self._lock >= 0:
            posix.close(self._lock)
            self._lock = -1


def _take_over(handed: str, path: str) -> int:
    """The lock that was handed over to us, if it is the one of this path; else -1."""
    lock = int(handed)
    try:
        ours, theirs = os.fstat(lock), os.stat(path)
    except OSError:
        return -1
    if (ours.st_dev, ours.st_ino) != (theirs.st_dev, theirs.st_ino):
        return -1
    os.set_inheritable(lock, False)
    return lock


def _group(group: str | int) -> int:
    if isinstance(group, int):
        return group
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise BindError(f"there is no group {group!r} on this system") from None
