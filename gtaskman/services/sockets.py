"""Listening sockets that the parent opens once, and that every process of a service shares.

They outlive each of these processes: while one goes and another comes, the system lets
connections wait in them.
"""

from __future__ import annotations

import _socket
import contextlib
import os
import stat
from collections.abc import Mapping
from typing import Any

from gtaskman.errors import ServiceFailed
from gtaskman.pool.launch import close_all
from gtaskman.services.options import Place


class Listeners:
    """The listening sockets of one service, by name. All calls return at once.

    They are plain sockets that are never read here: a gevent one would belong to a hub.
    """

    def __init__(self, service: str, places: Mapping[str, Place], backlog: int) -> None:
        self._service = service
        self._places = places
        self._backlog = backlog
        self._sockets: dict[str, _socket.socket] = {}
        self._addresses: dict[str, Any] = {}  # replaced, never changed: other threads read it
        self._pid = os.getpid()

    @property
    def names(self) -> tuple[str, ...]:
        """Their names, in the order of :meth:`descriptors`."""
        return tuple(self._places)

    def open(self) -> None:
        """Listen, on all of them or on none; those that are open stay so.

        Raises :class:`ServiceFailed` where an address is not to be had.
        """
        try:
            for name, place in self._places.items():
                if name not in self._sockets:
                    self._sockets[name] = self._listen(name, place)
        except BaseException:
            self.close()
            raise
        if not self._addresses:
            self._addresses = {name: each.getsockname() for name, each in self._sockets.items()}

    def _listen(self, name: str, place: Place) -> _socket.socket:
        try:
            return _listen_at(place, self._backlog)
        except OSError as error:
            raise ServiceFailed(
                f"service {self._service!r} cannot listen on its socket {name!r} at {place!r}:"
                f" {error.strerror or error}",
                self._service,
            ) from error

    def descriptors(self) -> list[int]:
        """A copy of each, for a process to be; whoever starts that closes them. Raises OSError."""
        copies: list[int] = []
        try:
            for name in self._places:
                copies.append(os.dup(self._sockets[name].fileno()))
        except OSError:
            close_all(copies)
            raise
        return copies

    def addresses(self) -> dict[str, Any]:
        """Where those that are open listen: the port that was found, where 0 was asked for."""
        return dict(self._addresses)

    def close(self) -> None:
        """Listen no more; the file of a Unix socket goes too, unless this is a fork."""
        self._addresses = {}
        for name, each in self._sockets.items():
            each.close()
            place = self._places[name]
            if isinstance(place, str) and os.getpid() == self._pid:
                with contextlib.suppress(OSError):
                    os.unlink(place)
        self._sockets.clear()


def _listen_at(place: Place, backlog: int) -> _socket.socket:
    listener = _unix(place) if isinstance(place, str) else _internet(*place)
    try:
        listener.listen(backlog)
    except BaseException:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def _internet(host: str, port: int) -> _socket.socket:
    flags = _socket.AI_PASSIVE
    found = _socket.getaddrinfo(host or None, port, 0, _socket.SOCK_STREAM, 0, flags)
    family, kind, protocol, _, address = found[0]
    listener = _socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except BaseException:
        listener.close()
        raise
    return listener


def _unix(path: str) -> _socket.socket:
    _remove_stale(path)
    listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        listener.bind(path)
    except BaseException:
        listener.close()
        raise
    return listener


def _remove_stale(path: str) -> None:
    """A socket's file that nobody listens on any more would be in our way."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return
    with contextlib.closing(_socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except OSError:
            pass  # it is not there, or full: bind says which
