"""``Rendezvous``: the path of a private Unix socket, where one process waits for others.

Its directory, and the socket therein, are for their owner alone. Whoever listens holds a lock
beside the socket: two never fight for one path, and what a killed one has left is removed by
nobody but whoever has the lock. What is said over the socket is not known here.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import posix
import pwd
import stat
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import gevent.socket
from gevent.socket import AF_UNIX, SO_PEERCRED, SOCK_STREAM, SOL_SOCKET

from gtaskman.errors import ConfigurationError, GTaskmanError, ServerUnavailable

SUFFIX = ".sock"
_LOCK = ".lock"  # behind the name of the socket
_LONGEST = 64  # bytes of a socket's name: a path has room for 107
_BACKLOG = 128
_CREDENTIALS = struct.Struct("iII")


class RendezvousTaken(GTaskmanError):
    """Raised when somebody else listens at this path; the text says who."""


class Nobody(ServerUnavailable):
    """Raised when nobody listens at this path."""


class Peer(NamedTuple):
    """Who is at the other end of a connection."""

    pid: int
    uid: int

    @property
    def name(self) -> str:
        """The user, in words."""
        return user_name(self.uid)


def user_name(uid: int) -> str:
    """A user's name, or the number where there is none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def peer_of(connection: gevent.socket.socket) -> Peer:
    """Who is at the other end, as the system knows it."""
    found = connection.getsockopt(SOL_SOCKET, SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(found)
    return Peer(pid, uid)


def usual_directory() -> Path:
    """Where sockets are unless somebody says otherwise: of this user, and of this boot."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime:
        return Path(runtime) / "gtaskman"
    return Path(tempfile.gettempdir()) / f"gtaskman-{os.geteuid()}"


class Rendezvous:
    """A path where one process listens, and others come to."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(os.path.abspath(path))
        self._lock: int | None = None  # a descriptor, while we listen
        self._pid = 0
        if len(os.fsencode(self.path.name)) > _LONGEST:
            raise ConfigurationError(
                f"the name of the socket {self.path} is too long: it may have {_LONGEST} bytes",
                "socket",
            )

    # --- listening

    def listen(self, who: str) -> gevent.socket.socket:
        """A socket that listens here; ``who`` is told to others who would like to.

        Makes the directory if there is none. Raises :class:`ConfigurationError` for a directory
        that is not private, and :class:`RendezvousTaken`.
        """
        directory = self.path.parent
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise _will_not_do(directory, error.strerror or str(error)) from None
        with self._inside() as folder:
            try:
                self._take(folder, who)
                return self._bind(folder)
            except OSError as error:
                self.leave()
                raise _will_not_do(directory, error.strerror or str(error)) from None
            except BaseException:
                self.leave()
                raise

    def _take(self, folder: int, who: str) -> None:
        name = self.path.name + _LOCK
        while True:
            lock = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600, dir_fd=folder)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                with open(lock, "rb") as file:
                    holder = file.read(4096).decode(errors="replace") or "another process"
                raise RendezvousTaken(
                    f"{self.path} is taken by {holder}: end it, or name another socket"
                ) from None
            if _is_there(lock, name, folder):
                break
            posix.close(lock)  # whoever had it has just removed it
        self._lock, self._pid = lock, os.getpid()
        os.ftruncate(lock, 0)
        os.write(lock, f"process {os.getpid()}, {who}".encode()[:4096])

    def _bind(self, folder: int) -> gevent.socket.socket:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path.name, dir_fd=folder)  # left behind by one that was killed
        listener = gevent.socket.socket(AF_UNIX, SOCK_STREAM)
        try:
            path = f"/proc/self/fd/{folder}/{self.path.name}"
            listener.bind(path)
            os.chmod(path, 0o600)
            listener.listen(_BACKLOG)
        except BaseException:
            listener.close()
            raise
        return listener

    def leave(self) -> None:
        """Listen no more. In a fork this lets go of our copy only: the original stays."""
        lock, self._lock = self._lock, None
        if lock is None:
            return
        if self._pid == os.getpid():
            for path in (self.path, Path(f"{self.path}{_LOCK}")):
                with contextlib.suppress(OSError):
                    path.unlink()
        posix.close(lock)

    # --- coming

    def connect(self) -> gevent.socket.socket:
        """A connection to whoever listens here.

        Raises :class:`Nobody`, :class:`ServerUnavailable` if too many are waiting there already,
        and :class:`ConfigurationError` if it is not ours to go to.
        """
        try:
            with self._inside() as folder:
                return self._connect(folder)
        except (FileNotFoundError, ConnectionRefusedError):
            raise Nobody(f"nobody listens at {self.path}") from None

    def _connect(self, folder: int) -> gevent.socket.socket:
        connection = gevent.socket.socket(AF_UNIX, SOCK_STREAM)
        try:
            # At once or never: while too many wait there, the system has nothing to wait for.
            connection.settimeout(0.0)
            connection.connect(f"/proc/self/fd/{folder}/{self.path.name}")
            connection.settimeout(None)
        except BlockingIOError:
            connection.close()
            raise ServerUnavailable(
                f"whoever listens at {self.path} is too busy to answer, or stopped"
            ) from None
        except PermissionError:
            connection.close()
            raise _will_not_do(self.path, "this user may not use it") from None
        except BaseException:
            connection.close()
            raise
        return connection

    @contextlib.contextmanager
    def _inside(self) -> Iterator[int]:
        """A descriptor of the directory, which is private.

        By way of that the path of the socket is short enough, whatever the directory's name is.
        """
        try:
            folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        except (PermissionError, NotADirectoryError) as error:
            raise _will_not_do(self.path.parent, str(error.strerror)) from None
        try:
            _check(self.path.parent, os.fstat(folder))
            yield folder
        finally:
            posix.close(folder)


def found_in(directory: Path, prefix: str) -> list[Rendezvous]:
    """Where somebody listens in this directory, of the sockets whose names begin so."""
    found = [Rendezvous(path) for path in sorted(directory.glob(f"{prefix}*{SUFFIX}"))]
    return [each for each in found if _listens(each)]


def _listens(rendezvous: Rendezvous) -> bool:
    try:
        rendezvous.connect().close()
    except Nobody:
        return False
    except ServerUnavailable:
        pass  # it is busy
    return True


def _is_there(descriptor: int, name: str, folder: int) -> bool:
    """Whether the file that is open is the one of that name."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(name, dir_fd=folder))
    except FileNotFoundError:
        return False


def _check(directory: Path, facts: os.stat_result) -> None:
    if facts.st_uid != os.geteuid():
        raise _will_not_do(directory, f"it belongs to {user_name(facts.st_uid)}")
    if stat.S_IMODE(facts.st_mode) & 0o022:
        raise _will_not_do(directory, "others may write in it")


def _will_not_do(path: Path, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"{path} will not do for a private socket ({why}): name a socket in a directory that is"
        " this user's alone, or that is yet to be made",
        "socket",
    )
