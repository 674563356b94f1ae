"""Who is at the other end of a socket, as the kernel says."""

from __future__ import annotations

import _socket
import os
import pwd
import struct
from collections.abc import Collection
from typing import NamedTuple

from gtaskman.errors import AccessRefused, ConfigurationError

_CREDENTIALS = struct.Struct("3i")


class Peer(NamedTuple):
    """A process: its number, and the user and group that it runs as."""

    pid: int
    uid: int
    gid: int

    @classmethod
    def of(cls, socket: _socket.socket) -> Peer:
        """Who has connected, or listens, at the other end. Raises ``OSError``."""
        raw = socket.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, _CREDENTIALS.size)
        return cls(*_CREDENTIALS.unpack(raw))

    @property
    def is_us(self) -> bool:
        """Whether it runs as the user that this process runs as: pickles are taken from nobody
        else.

        The kernel shows the users of other user namespaces as the overflow user. Whoever runs as
        that one trusts processes of its own namespace only.
        """
        if self.uid != os.geteuid():
            return False
        return self.uid != _overflow_uid() or _same_namespace(self.pid)


def _overflow_uid() -> int:
    try:
        with open("/proc/sys/kernel/overflowuid") as file:
            return int(file.read())
    except (OSError, ValueError):
        return 65534


def _same_namespace(pid: int) -> bool:
    """Whether a process is in the user namespace of this one."""
    try:
        return os.readlink(f"/proc/{pid}/ns/user") == os.readlink("/proc/self/ns/user")
    except OSError:
        return False  # its number is of another namespace, or it has ended


def admit(peer: Peer, allowed: Collection[int]) -> None:
    """Raise :class:`AccessRefused` unless the peer is of our user, or one of the allowed."""
    if not peer.is_us and peer.uid not in allowed:
        raise AccessRefused(
            f"process {peer.pid} runs as user {peer.uid}, and this manager serves user"
            f" {os.geteuid()}" + "".join(f", {uid}" for uid in sorted(allowed)) + " only: run it"
            " as one of these, or start the manager with --allow"
        )


def uid_of(user: str | int) -> int:
    """The number of a user. Raises :class:`ConfigurationError` for one that there is not."""
    if isinstance(user, int):
        return user
    if user.isdigit():
        return int(user)
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        raise ConfigurationError(f"there is no user {user!r} on this system", "allow") from None
