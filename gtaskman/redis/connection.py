"""``Connection``: one connection to one server, over TCP, TLS or a Unix socket.

It is cooperative whether or not anything is monkey-patched, and is used by one greenlet at a time.
It keeps no promise: whatever goes wrong raises :class:`ConnectionLost`, after which it is of no
use. Who sends again what got no reply is decided by ``Server``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posix
import socket
import time
from collections.abc import Callable
from typing import Any

import gevent.socket
import hiredis

from gtaskman.errors import GTaskmanError, ServerError
from gtaskman.redis.address import Login, Node, Tls

pack: Callable[[tuple[str | bytes | float, ...]], bytes]
pack = hiredis.pack_command  # type: ignore[assignment] # its stub speaks of a single word
"""The words of a command -> the bytes that the server reads."""

_CHUNK = 1 << 16
_PIECE = 1 << 18  # bytes that must be taken within the timeout: more may take longer
_LINGER = 100e-6  # seconds for which a reply is looked for before the hub is gone through
_KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}  # seconds, seconds, probes


class ConnectionLost(Exception):
    """A connection could not be had, or broke. ``reason`` completes "the server ...".

    * ``opened``: it had been there, so that what was sent over it may have been done.
    * ``silent``: nothing refused; there just was no answer.
    * ``for_all``: whoever asks it meets the same, so that it serves nobody else meanwhile.
    """

    def __init__(
        self, reason: str, *, opened: bool = True, silent: bool = False, for_all: bool = False
    ) -> None:
        super().__init__(reason)
        self.for_all = for_all
        self.reason = reason
        self.opened = opened
        self.silent = silent


class Connection:
    """Opened and logged in when made; ``timeout`` is the seconds that a reply may take.

    Raises :class:`ConnectionLost` when the server is away, and :class:`ServerError` when it is
    there and does not let us in.
    """

    def __init__(self, node: Node, login: Login, timeout: float) -> None:
        self.node = node
        self._timeout = timeout
        self._reader = hiredis.Reader()
        self._sock = _open(node, login.tls, timeout)
        # What is beneath gevent's socket: it never waits. TLS has to be asked itself.
        self._raw = None if login.tls else self._sock._sock
        self._brisk = False  # replies come at once
        try:
            self._introduce(login)
        except BaseException:
            self.close()
            raise

    def exchange(self, data: bytes, count: int) -> list[Any]:
        """Send packed commands and read their ``count`` replies.

        Errors of the server are among these, as ``hiredis.ReplyError``.
        """
        self.send(data)
        gets = self._reader.gets
        replies: list[Any] = []
        while True:
            if not (self._brisk and self._linger()):
                since = time.perf_counter()
                self._fill()
                self._brisk = self._raw is not None and time.perf_counter() - since < _LINGER
            try:
                while (reply := gets()) is not False:
                    replies.append(reply)
            except hiredis.ProtocolError:
                raise ConnectionLost("does not speak the Redis protocol") from None
            if len(replies) >= count:
                return replies

    def _linger(self) -> bool:
        """Look for the reply a moment longer before the hub is gone through; whether it came.

        A server close by answers before the hub has come round. Done only while it does.
        """
        assert self._raw is not None
        recv, end = self._raw.recv, time.perf_counter() + _LINGER
        while time.perf_counter() < end:
            try:
                data = recv(_CHUNK)
            except BlockingIOError:
                continue
            except OSError as error:
                raise _broken(error) from None
            self._feed(data)
            return True
        self._brisk = False
        return False

    def send(self, data: bytes) -> None:
        """Send packed commands."""
        try:
            if len(data) <= _PIECE:
                self._sock.sendall(data)
            else:
                view = memoryview(data)
                for at in range(0, len(data), _PIECE):
                    self._sock.sendall(view[at : at + _PIECE])
        except TimeoutError:
            raise self._no_answer() from None
        except OSError as error:
            raise _broken(error) from None

    def receive(self, seconds: float) -> Any:
        """The next reply, or False if none came within so many seconds."""
        try:
            while (reply := self._reader.gets()) is False:
                if not self._ready(seconds):
                    return False
        except hiredis.ProtocolError:
            raise ConnectionLost("does not speak the Redis protocol") from None
        return reply

    def _fill(self) -> None:
        try:
            data = self._sock.recv(_CHUNK)
        except TimeoutError:
            # The time may have been ours: where the hub was blocked, the reply is there by now.
            if not self._ready(0.0):
                raise self._no_answer() from None
            return
        except OSError as error:
            raise _broken(error) from None
        self._feed(data)

    def _ready(self, seconds: float) -> bool:
        """Read what comes within so many seconds; gives whether something did."""
        self._sock.settimeout(seconds)
        try:
            data = self._sock.recv(_CHUNK)
        except (TimeoutError, BlockingIOError):
            return False
        except OSError as error:
            if _wants_more(error):
                return False
            raise _broken(error) from None
        finally:
            self._sock.settimeout(self._timeout)
        self._feed(data)
        return True

    def _feed(self, data: bytes) -> None:
        if not data:
            raise ConnectionLost("closed the connection")
        self._reader.feed(data)

    def _no_answer(self) -> ConnectionLost:
        return ConnectionLost(f"did not answer within {self._timeout:g} s", silent=True)

    def _introduce(self, login: Login) -> None:
        words: list[tuple[str, ...]] = [("CLIENT", "SETNAME", f"gtaskman-{os.getpid()}")]
        username, password = _credentials(login)
        if password is not None:
            user = () if username is None else (username,)
            words.insert(0, ("AUTH", *user, password))
        if login.db:
            words.append(("SELECT", str(login.db)))
        self.send(b"".join(map(pack, words)))
        for command, *_ in words:
            reply = self.receive(self._timeout)
            if reply is False:
                raise self._no_answer()
            if isinstance(reply, hiredis.ReplyError):
                self._judge(command, str(reply))

    def _judge(self, command: str, text: str) -> None:
        """What an error means that answers one of our first words."""
        text = text.partition(", with args")[0]  # a server without AUTH repeats the password there
        code = text.split(" ", 1)[0]
        if "max number of clients" in text:
            raise ConnectionLost("has no room for another connection", opened=False)
        if code == "LOADING":
            return
        if code == "NOAUTH":
            text = "it wants a password: put it into the URL, redis://user:password@host"
        elif command == "AUTH":
            text = f"it refuses the user and password of the URL ({text})"
        elif command == "CLIENT" and code != "DENIED":
            return  # an account may be forbidden to give itself a name
        raise ServerError(f"the server {self.node} does not let us in: {text}", code)

    def close(self) -> None:
        """Let go of it; a greenlet that waits for it gets :class:`ConnectionLost`."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()

    def forget(self) -> None:
        """In a fork: close our copy of the descriptor, and leave the connection alone."""
        with contextlib.suppress(OSError):
            posix.close(self._sock.detach())


def _credentials(login: Login) -> tuple[str | None, str | None]:
    """Asked at each connect: tokens expire. Where they come from may be away for a while."""
    try:
        return login.ask()
    except GTaskmanError:
        raise
    except Exception as error:
        raise ConnectionLost(
            f"has no credentials for us ({type(error).__name__}: {error})", opened=False
        ) from error


# --- opening -------------------------------------------------------------------------------------


def _open(node: Node, tls: Tls | None, timeout: float) -> Any:
    context = tls.context if tls else None
    try:
        sock = _socket(node, timeout)
        if context is None:
            return sock
        try:
            return context.wrap_socket(sock, server_hostname=node.host)
        except BaseException:
            sock.close()
            raise
    except TimeoutError:
        raise ConnectionLost(
            f"did not answer within {timeout:g} s", opened=False, silent=True
        ) from None
    except OSError as error:
        _judge_certificate(node, error)
        raise _broken(error, opened=False) from None


def _socket(node: Node, timeout: float) -> Any:
    if not node.port:
        return _connected(socket.AF_UNIX, node.host, timeout)
    family = _numeric(node.host)
    if family is not None:  # no thread of a resolver is needed, which a fork would not have
        sock = _connected(family, node, timeout)
    else:
        sock = gevent.socket.create_connection(node, timeout)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return sock


def _connected(family: int, where: Any, timeout: float) -> Any:
    sock = gevent.socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout)
        sock.connect(where)
    except BaseException:
        sock.close()
        raise
    return sock


def _numeric(host: str) -> int | None:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except OSError:
            continue
        return family
    return None


# --- what errors mean ----------------------------------------------------------------------------


def _broken(error: OSError, opened: bool = True) -> ConnectionLost:
    if isinstance(error, socket.gaierror):
        return ConnectionLost("cannot be found by its name", opened=False)
    text = (error.strerror or str(error)).lower()
    silent = "timed out" in text or "unreachable" in text
    for_all = error.errno in (errno.ECONNREFUSED, errno.ENOENT)
    return ConnectionLost(
        f"cannot be reached ({text})", opened=opened, silent=silent, for_all=for_all
    )


def _wants_more(error: OSError) -> bool:
    """Whether TLS has nothing for us yet, which it says in its own way."""
    return type(error).__name__ in ("SSLWantReadError", "SSLWantWriteError")


def _judge_certificate(node: Node, error: OSError) -> None:
    if type(error).__name__ == "SSLCertVerificationError":
        why = getattr(error, "verify_message", "") or str(error)
        raise ServerError(
            f"the certificate of {node} is not trusted ({why}): give the file of its authority,"
            " ?ssl_ca_certs=PATH",
            "TLS",
        ) from None
