"""``HostServer``: lets the other processes of a host use a manager, over a Unix socket.

::

    socket -> accept: who is it? -> Guest -> Desk -> manager

It lives on its manager's hub, and stops in this order: nothing new is taken; the manager is
stopped, and guests hear how their tasks end; what they have not read is sent; the place is left.
"""

from __future__ import annotations

import _socket
import contextlib
import errno
import logging
import os
import resource
import sys
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

import gevent

from gtaskman.errors import (
    AccessRefused,
    ConfigurationError,
    GTaskmanError,
    ServerUnavailable,
)
from gtaskman.host import messages
from gtaskman.host.address import SocketAddress
from gtaskman.host.desk import Counter, Desk
from gtaskman.host.guest import Guest, Limits
from gtaskman.host.messages import Fault
from gtaskman.host.peers import Peer, admit, uid_of
from gtaskman.host.place import Place
from gtaskman.host.relay import Relay
from gtaskman.host.vigil import Vigil
from gtaskman.shared import SharedManager
from gtaskman.taskmanager import TaskManager
from gtaskman.wire.frames import head
from gtaskman.wire.watcher import READ, Watcher

log = logging.getLogger(__name__)

MIB = 1024 * 1024
_MOST_CONNECTIONS = 1 << 16  # of one user, where the system sets no limit
_AT_ONCE = 64  # processes that are let in in one turn of the loop
_NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_LOOK = 0.005  # seconds between two looks whether guests have read their last words
_PAUSE = 0.1  # seconds after which one looks for a descriptor again
_LAST_WORDS = 5.0  # seconds that guests have to read what they are told at the end


class HostServer:
    """Serves ``manager`` at ``path``, to processes of our own user and to those of ``allow``.

    ``allow`` are users, by name or number; the socket must then be open to them: give ``group``,
    whose members may connect (mode 0660), or a ``mode`` of your own. ``cancel_orphans`` cancels
    the tasks of a process that goes away; else they run on. A process may have ``max_tasks`` and
    ``max_bytes`` on their way, and is cut off if it leaves ``max_unread`` bytes unread for
    ``grace`` seconds. Of the processes of one user ``max_connections`` may be connected at once; by
    default half as many as this process may have descriptors.

    As a context manager it starts on the way in, and stops on the way out, together with its
    manager.

    Raises :class:`ConfigurationError`; :meth:`start` raises :class:`BindError`.
    """

    def __init__(
        self,
        manager: TaskManager,
        path: str | os.PathLike[str],
        *,
        allow: Iterable[str | int] = (),
        group: str | int | None = None,
        mode: int | None = None,
        cancel_orphans: bool = False,
        max_tasks: int = 10_000,
        max_bytes: int = 256 * MIB,
        max_unread: int = 64 * MIB,
        grace: float = 10.0,
        max_connections: int | None = None,
        title: str = "",
    ) -> None:
        self.manager = manager
        self.address = SocketAddress.of(path)
        self.limits = Limits(max_tasks, max_bytes, max_unread, grace)
        self.instance = os.urandom(12).hex()
        self.title = title or os.path.basename(sys.argv[0] if sys.argv else "") or "python"
        self.stopping = False
        self.has_successor = False
        """Whether another manager is started when this one stops: clients are to wait for it."""
        self._allowed = frozenset(map(uid_of, allow))
        if self._allowed and group is None and mode is None:
            raise ConfigurationError(
                "allow= names users who could not reach a socket that is for us alone: give"
                " group=, of which they are members, or mode=0o666",
                "allow",
            )
        self._place = Place(self.address, mode or (0o600 if group is None else 0o660), group)
        self._occupied = False
        self._cancel_orphans = cancel_orphans
        self.desk: Counter = _desk_of(manager)
        self.queue = manager.queue.name
        self._listener: _socket.socket | None = None
        self._watcher: Any = None
        self._guests: set[Guest] = set()
        self._max_connections = max_connections or _half_of_all_descriptors()
        self._crowds: set[int] = set()  # users who have as many as they may, which was logged
        self._exhausted = False  # there was no descriptor for a process, which was logged

    @property
    def url(self) -> str:
        """What other processes give as the URL."""
        return str(self.address)

    # --- life

    def start(self) -> Self:
        """Start the manager, and listen; a second start does nothing. Raises :class:`BindError`."""
        self.occupy()
        try:
            self.listen()
        except BaseException:
            self.stop(0)
            raise
        return self

    def occupy(self) -> None:
        """Take the place, and start the manager. Raises :class:`BindError`."""
        if self._occupied:
            return
        self._place.occupy()
        try:
            self.manager.start()
        except BaseException:
            self._place.leave()
            raise
        self._occupied = True
        self.manager.accompany(self)

    def listen(self) -> None:
        """Let processes in. Raises :class:`BindError`."""
        if self._listener is None:
            self.manager.at_home(self._listen)

    def _listen(self) -> None:
        loop = self.manager.hub.loop
        self._listener = self._place.listen()
        # It keeps the loop alive, as the watcher does that it stands in for.
        self._pause = loop.timer(_PAUSE)
        self.vigil = Vigil(loop)
        # As long as we listen, somebody may come: the loop must not end.
        self._watcher = Watcher(
            loop, self._listener.fileno(), READ, "the socket of the host", ref=True
        )
        self._watcher.start(self._accept)

    def stop(self, timeout: float | None = None) -> None:
        """Stop the manager, and leave the place; see :meth:`TaskManager.stop`."""
        self.manager.stop(timeout)

    def hand_over(self) -> None:
        """Let the next program that this process starts, or becomes, take over the place."""
        self._place.hand_over()

    def keep(self) -> None:
        """Take a :meth:`hand_over` back."""
        self._place.keep()

    def on_stopping(self) -> None:
        """Nothing new is taken: whoever has more to do is to look for the next manager."""
        self.stopping = True
        for guest in list(self._guests):
            guest.closing()

    def on_stopped(self) -> None:
        """Every task has ended, and its process was told: wait until it has read that."""
        self._stop_listening()
        end = time.monotonic() + _LAST_WORDS
        while any(guest.unread for guest in self._guests) and time.monotonic() < end:
            gevent.sleep(_LOOK)
        for guest in list(self._guests):
            guest.close()
        self._place.leave()

    def _stop_listening(self) -> None:
        if self._listener is None:
            return
        self._accept()  # whoever has knocked must hear that it came too late
        self._watcher.close()
        self._pause.stop()
        self._pause.close()
        self._listener.close()

    def forget(self) -> None:
        """In a fork of the process: close our copies, and disturb the original in nothing."""
        if self._listener is not None:
            self._watcher.close()
            self._pause.stop()
            self._listener.close()
        self._place.forget()
        for guest in self._guests:
            guest.forget()
        self._guests.clear()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop(0 if exc_type is not None else None)

    # --- guests

    def _accept(self) -> None:
        """Let in who has knocked."""
        assert self._listener is not None
        for _ in range(_AT_ONCE):
            try:
                fd, _ = self._listener._accept()  # type: ignore[attr-defined] # as socket.py does
            except BlockingIOError:
                self._exhausted = False
                return
            except (ConnectionAbortedError, InterruptedError):
                return
            except OSError as error:
                if error.errno not in _NO_DESCRIPTORS:
                    raise
                if not self._exhausted:
                    self._exhausted = True
                    log.error("processes cannot be let in for now: %s", error.strerror)
                self._watcher.stop()
                self._pause.start(self._accept_again, update=True)
                return
            self._receive(_socket.socket(fileno=fd))

    def _accept_again(self) -> None:
        self._watcher.start(self._accept)

    def _receive(self, socket: _socket.socket) -> None:
        try:
            peer = Peer.of(socket)
            admit(peer, self._allowed)
            self._check_crowd(peer)
        except AccessRefused as error:
            log.warning("%s", error)
            _turn_away(socket, error)
        except ServerUnavailable as error:
            _turn_away(socket, error)
        except OSError:
            socket.close()  # it has gone
        else:
            self._guests.add(Guest(socket, peer, self, self.manager.hub.loop))

    def _check_crowd(self, peer: Peer) -> None:
        """Raise :class:`ServerUnavailable` if its user has as many connections as one may."""
        count = sum(guest.peer.uid == peer.uid for guest in self._guests)
        if count < self._max_connections:
            self._crowds.discard(peer.uid)
            return
        why = f"user {peer.uid} has {count} connections to this manager, which is the limit"
        if peer.uid not in self._crowds:
            self._crowds.add(peer.uid)
            log.warning("%s: further ones are refused until there are fewer", why)
        raise ServerUnavailable(why)

    def on_gone(self, guest: Guest, sent: dict[int, str], watched: dict[int, str]) -> None:
        """A process has gone: these are the tasks that it had sent, and that it watched only."""
        self._guests.discard(guest)
        self.desk.leave(guest, sent, self._cancel_orphans and not self.stopping)
        self.desk.leave(guest, watched, False)

    def __repr__(self) -> str:
        return f"<HostServer {self.address} guests={len(self._guests)}>"


def _half_of_all_descriptors() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST_CONNECTIONS if soft == resource.RLIM_INFINITY else max(16, soft // 2)


def _turn_away(socket: _socket.socket, error: GTaskmanError) -> None:
    body = messages.pack(Fault.of(error))
    with contextlib.suppress(OSError):
        # It is small, and the first that is sent: there is room for it.
        socket.setblocking(False)
        socket.send(head(messages.REFUSED, 0, 0, len(body)) + body)
    socket.close()


def _desk_of(manager: TaskManager) -> Counter:
    return Relay(manager) if isinstance(manager, SharedManager) else Desk(manager)
