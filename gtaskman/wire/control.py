"""What a manager and its zygote say to each other, and how.

::

    manager -> zygote: Import  Fork (+ pipe, page)  Retire  Signal
    zygote -> manager: Importing  Imported  Hello  Up (+ pidfd)  Refused  Exit

One message is one packet of a SOCK_SEQPACKET socket; descriptors travel beside it. The settings of
the application may be larger than a packet, and are in a file that the zygote is started with.
"""

from __future__ import annotations

import _socket
import array
import os
import pickle
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

from gtaskman.wire.settings import Settings

_LARGEST = 200 * 1024  # bytes of one packet: what a socket's buffer holds by default
_MOST_FDS = 253  # the kernel's limit: SCM_MAX_FD
_LENGTH = struct.Struct("<I")
_CLOEXEC = _socket.MSG_CMSG_CLOEXEC
_receive = _socket.socket.recvmsg

Packet = tuple[bytes, list[tuple[int, int, bytes]], int, Any]  # what recvmsg gives


class Import(NamedTuple):
    """Import this module too, so that later workers have it."""

    module: str


class Fork(NamedTuple):
    """Fork a worker; its pipe and its slate come along, and whatever else it is to have.

    It imports by itself what the template was to have, and cannot.
    """

    worker: int
    descriptors: int  # how many come along
    imports: tuple[str, ...] = ()


class Retire(NamedTuple):
    """Fork no more, and end with the last worker: another template has taken over."""


class Signal(NamedTuple):
    """Send a worker a signal: the manager may not, since it has changed its user."""

    pid: int
    number: int


class Importing(NamedTuple):
    """The template is about to import this module: whoever waits too long knows for what."""

    module: str


class Imported(NamedTuple):
    """It did, or ``error`` is the traceback; ``unfit`` says why it cannot be a template now."""

    module: str
    error: str | None
    unfit: str | None


class Hello(NamedTuple):
    """The template is ready."""


class Up(NamedTuple):
    """A worker lives; its pidfd comes along."""

    worker: int
    pid: int


class Refused(NamedTuple):
    """A worker could not be forked."""

    worker: int
    error: str


class Exit(NamedTuple):
    """A worker has ended: its wait status and the most memory it had, in bytes."""

    pid: int
    status: int
    maxrss: int


def send(
    socket: _socket.socket, message: Any, fds: Sequence[int] = (), sent: list[int] | None = None
) -> None:
    """Send one message with ``fds`` beside it. Raises OSError; a peer that is gone is one.

    Once that is done, ``sent`` has an element more, whatever a signal handler raises.
    """
    data = pickle.dumps(message, 5)
    beside = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    sent = [] if sent is None else sent
    sent.extend(map(socket.sendmsg, ([data],), (beside,), (_socket.MSG_NOSIGNAL,)))


def receive(socket: _socket.socket) -> tuple[Any, list[int]]:
    """One message and its descriptors; (None, []) when the other end is gone."""
    packets: list[Packet] = []
    receive_into(socket, packets)
    return take(packets[0])


def receive_into(socket: _socket.socket, packets: list[Packet]) -> None:
    """Add one packet to ``packets``, as it comes; one without data if the other end is gone.

    A signal handler that raises loses none.
    """
    room = _socket.CMSG_SPACE(_MOST_FDS * 4)
    for _ in range(2):
        try:
            # Noted without an instruction in between, after which a handler could raise.
            packets.extend(map(_receive, (socket,), (_LARGEST,), (room,), (_CLOEXEC,)))
        except ConnectionResetError:
            # It has gone with something unread. A socket of packets says that once, and first:
            # what it had said before is still there.
            continue
        return
    packets.append((b"", [], 0, None))


def take(packet: Packet) -> tuple[Any, list[int]]:
    """What a packet and its ancillary data hold."""
    data, beside, _, _ = packet
    fds = array.array("i")
    for level, kind, value in beside:
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
            fds.frombytes(value[: len(value) - len(value) % fds.itemsize])
    return (pickle.loads(data) if data else None), list(fds)


def pack_settings(settings: Settings) -> bytes:
    """The settings as the first bytes on the pipe of a worker that has no zygote."""
    data = pickle.dumps(settings, 5)
    return _LENGTH.pack(len(data)) + data


def file_settings(settings: Settings) -> int:
    """The settings as a file in memory, for :func:`read_settings`. Raises OSError."""
    fd = os.memfd_create("gtaskman-settings", os.MFD_CLOEXEC)
    try:
        data = memoryview(pickle.dumps(settings, 5))
        while data:
            data = data[os.write(fd, data) :]
        os.lseek(fd, 0, os.SEEK_SET)
    except BaseException:
        os.close(fd)
        raise
    return fd


def read_settings(fd: int) -> Settings:
    """Read what :func:`file_settings` wrote, and close it."""
    with open(fd, "rb") as file:
        settings = pickle.load(file)
    assert isinstance(settings, Settings)
    return settings


def receive_settings(pipe: _socket.socket) -> Settings:
    """Read what :func:`pack_settings` packed, and not a byte more."""
    (size,) = _LENGTH.unpack(_read_exactly(pipe, _LENGTH.size))
    settings = pickle.loads(_read_exactly(pipe, size))
    assert isinstance(settings, Settings)
    return settings


def _read_exactly(pipe: _socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = pipe.recv(size - len(data))
        if not more:
            raise EOFError("the manager is gone")
        data += more
    return data
