"""``Generation``: one generation of the application's code, and the manager that it has.

::

    gunicorn's master --- makes it: a private directory, a lifeline
      its workers ------- each waits for the directory's lock; who gets it starts a manager
        the manager ----- holds the lock while it lives, and ends when the lifeline does

The *lifeline* is a pipe of which the master and the workers of this generation hold the writing
end, each by having been forked. When the last one has gone, however it went, the manager reads the
end of it. The *lock* is that of the directory (``flock``): the starter hands it on to the manager,
and when that dies, the system gives it to one of those who wait. Nobody has to watch anybody.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import posix
import random
import shutil
import signal
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
from gevent import monkey

from gtaskman.backoff import Backoff
from gtaskman.contrib.gunicorn import places
from gtaskman.errors import ConfigurationError, StartMethodError
from gtaskman.host.address import SocketAddress
from gtaskman.pool.launch import FIRST_FD, exec_python, import_path, patched_parts
from gtaskman.process import CHILD_OF

_STEADY = 10.0  # seconds that a manager must have lived for the next one to begin at once
_RESTARTS = Backoff(first=0.2, maximum=10.0)
_LOOK = 0.02  # seconds between two looks of a master that ends


class Settings(msgspec.Struct, frozen=True):
    """What the program of a manager is told."""

    directory: str
    queue: str
    tasks: tuple[str, ...]  # modules
    fields: dict[str, Any]  # of its Configuration
    loglevel: int
    born: float = 0.0  # on the monotonic clock
    streak: int = 0  # how many before it did not live for long

    @property
    def path(self) -> str:
        """Where its socket is."""
        return _socket_in(self.directory)


class Life(msgspec.Struct, frozen=True):
    """What is known of the manager that is, or was, there; kept in the directory."""

    pid: int  # 0 until it knows itself
    born: float
    streak: int

    @classmethod
    def read(cls, directory: str) -> Life | None:
        """That of the last one."""
        with contextlib.suppress(OSError, msgspec.DecodeError):
            return msgspec.json.decode(_life(directory).read_bytes(), type=cls)
        return None

    def write(self, directory: str) -> None:
        """Whoever holds the lock may."""
        new = _life(directory).with_suffix(".new")
        new.write_bytes(msgspec.json.encode(self))
        new.rename(_life(directory))


def _socket_in(directory: str) -> str:
    return os.path.join(directory, "gtaskman.sock")


def _life(directory: str) -> Path:
    return Path(directory, "manager")


class Generation:
    """A private directory in ``base``, of the user and group whom gunicorn's workers belong to.

    Raises :class:`ConfigurationError` if its socket could have no name there, and ``OSError``.
    """

    def __init__(self, base: str, uid: int, gid: int) -> None:
        places.sweep(base, uid)
        self.directory = places.make(base)
        try:
            path = SocketAddress.of(_socket_in(self.directory)).path
        except ConfigurationError as error:
            os.rmdir(self.directory)
            raise ConfigurationError(
                f"directory={base!r}: {error}; give a shorter one", "directory"
            ) from None
        self.url = f"unix://{quote(path)}"
        """Where the manager is reached."""
        if (uid, gid) != (os.geteuid(), os.getegid()):
            os.chown(self.directory, uid, gid)
        # None of these survives an exec; a fork keeps them.
        self._used = places.mark(self.directory)
        self._lifeline: tuple[int, int] | None = os.pipe()
        self._lock = -1  # while this process waits for a manager to end, or starts one

    # --- in gunicorn's workers

    def enter(self) -> None:
        """This process is a worker of the generation; processes that it forks are not."""
        _entered.add(self)

    def forget(self) -> None:
        """In a fork of a worker: close what keeps a manager alive, or the next one waiting.

        With ``posix.close``: gevent's ``os.close`` would wait for a hub that the fork may never
        run.
        """
        self.release()
        if self._used >= 0:
            posix.close(self._used)
            self._used = -1
        if self._lock >= 0:
            posix.close(self._lock)
            self._lock = -1

    def watch(self, settings: Settings, tell: Callable[[str], None]) -> None:
        """See, from now on, that there is a manager; ``tell`` is called if one cannot be started.

        A native thread does so, which waits without a hub.
        """
        start = monkey.get_original("_thread", "start_new_thread")
        start(self._watch, (settings, tell))

    def _watch(self, settings: Settings, tell: Callable[[str], None]) -> None:
        failures = 0
        while True:
            try:
                self._await_turn(settings)
            except FileNotFoundError:
                tell(f"no manager is started any more: {self.directory} was removed")
                return
            except (OSError, StartMethodError) as error:
                if not failures:
                    tell(f"a manager cannot be started, and is tried again: {error}")
                failures += 1
                monkey.get_original("time", "sleep")(_RESTARTS.delay(failures, random.random()))
            else:
                failures = 0

    def _await_turn(self, settings: Settings) -> None:
        """Wait while a manager lives, then start the next one."""
        # Noted before the wait: a fork that kept its copy would keep the lock as well.
        lock = self._lock = places.open_directory(self.directory)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._launch(settings, lock)
        finally:
            self._lock = -1
            posix.close(lock)

    def _launch(self, settings: Settings, lock: int) -> None:
        """Start a manager, which takes the lock over."""
        assert self._lifeline is not None
        before, streak = Life.read(self.directory), 0
        if before is not None and time.monotonic() - before.born < _STEADY:
            streak = before.streak + 1
            monkey.get_original("time", "sleep")(_RESTARTS.delay(streak, random.random()))
        born = time.monotonic()
        Life(0, born, streak).write(self.directory)
        settings = msgspec.structs.replace(settings, born=born, streak=streak)
        # Not as an argument, which every user could read: the queue's URL may have a password.
        told = os.memfd_create("gtaskman-settings", os.MFD_CLOEXEC)
        try:
            os.write(told, msgspec.json.encode(settings))
            os.lseek(told, 0, os.SEEK_SET)
            child = exec_python(_program(), [lock, self._lifeline[0], told])
        finally:
            posix.close(told)
        with contextlib.suppress(ChildProcessError):  # the application may have taken it
            posix.waitpid(child, 0)

    # --- in gunicorn's master

    def release(self) -> None:
        """Let it end with its workers, if not before."""
        if self._lifeline is not None:
            for fd in self._lifeline:
                posix.close(fd)
            self._lifeline = None

    def is_over(self) -> bool:
        """Whether there is no manager."""
        try:
            lock = places.open_directory(self.directory)
        except FileNotFoundError:
            return True
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            posix.close(lock)
        return True

    def wait_over(self, until: float) -> bool:
        """Wait until there is no manager, on the monotonic clock; False if there still is one.

        For a master that ends: it blocks.
        """
        while not self.is_over():
            if time.monotonic() > until:
                return False
            time.sleep(_LOOK)
        return True

    def signal(self, number: int) -> None:
        """Send the manager a signal, if there is one and it has got so far as to heed it."""
        life = Life.read(self.directory)
        if life is None or not life.pid:
            return
        with contextlib.suppress(ProcessLookupError):
            pidfd = os.pidfd_open(life.pid)
            try:
                if not self.is_over():  # then that pid is its, and stays so
                    signal.pidfd_send_signal(pidfd, number)
            finally:
                posix.close(pidfd)

    def remove(self) -> None:
        """Take the directory away."""
        shutil.rmtree(self.directory, ignore_errors=True)


_entered: weakref.WeakSet[Generation] = weakref.WeakSet()


def _after_fork() -> None:
    """A process that a worker forks may outlive it, and must keep nothing of the manager alive."""
    for each in list(_entered):
        each.forget()
    _entered.clear()


os.register_at_fork(after_in_child=_after_fork)


def _program() -> str:
    """The manager's first lines: be nobody's child, close what was inherited, be patched as we are.

    It must see our import path, and be patched, before it imports anything.
    """
    parts = patched_parts()
    patch = f"from gevent import monkey; monkey.patch_all(**{parts!r})" if parts else ""
    return "\n".join(
        [
            "import os, sys",
            f"os.environ.pop({CHILD_OF!r}, None)",
            "if os.fork(): os._exit(0)",  # a child that ends would be a zombie of gunicorn's
            f"sys.path[:] = {import_path()!r}",
            "for fd in map(int, os.listdir('/proc/self/fd')):",
            f"    if fd >= {FIRST_FD + 3}:",
            "        try: os.close(fd)",
            "        except OSError: pass",
            patch,
            "from gtaskman.contrib.gunicorn.serving import main",
            "main()",
        ]
    )
