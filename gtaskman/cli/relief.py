"""``Relief``: a second process that serves while this one begins again with new code.

::

    this process     serves ------ drains -- exec ---- serves, the new code, under the same pid
    its relief             starts, serves ------------------ drains, ends

Somebody serves at every moment, and code that does not come up changes nothing: the relief fails,
and this process has not stopped. Should this process die, its relief drains and ends as well.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import posix
import signal
import sys
from collections.abc import Iterator
from typing import NoReturn

from gevent.socket import wait_read

from gtaskman.child.boot import PR_SET_PDEATHSIG, flush_output
from gtaskman.cli.signals import put_off

_FOR = "GTASKMAN_RELIEF_FOR"  # in a relief: the pid of whom it relieves, and where to say READY
_PID = "GTASKMAN_RELIEF"  # in whoever began again: the pid of its relief
_READY = b"ready"
# What may come in the moment between two programs, and is heeded by the second one.
_KEPT = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGTSTP,
    signal.SIGCONT,
    signal.SIGTTIN,
)


class Relief:
    """A process, a child of this one, that was started with the same command line."""

    def __init__(self, pid: int, pipe: int | None = None) -> None:
        self.pid = pid
        self._pipe = pipe
        self._pidfd = os.pidfd_open(pid)
        self._ended = False

    @classmethod
    def start(cls, directory: str) -> Relief:
        """Start one, in ``directory``. Raises ``OSError``."""
        pipe, its_end = os.pipe()
        os.set_inheritable(its_end, True)
        try:
            with _inside(directory):
                pid = posix.posix_spawn(
                    sys.executable,
                    _command(),
                    {**os.environ, _FOR: f"{os.getpid()}:{its_end}"},
                    setpgroup=0,  # a Ctrl-C is for us: we pass it on
                    setsigmask=[],
                )
        except OSError:
            os.close(pipe)
            raise
        finally:
            os.close(its_end)
        return cls(pid, pipe)

    def wait_ready(self, timeout: float) -> bool:
        """Wait at most so many seconds until it serves; False if it does not, or has ended."""
        assert self._pipe is not None
        try:
            wait_read(self._pipe, timeout)
            return os.read(self._pipe, len(_READY)) == _READY
        except TimeoutError:
            return False
        finally:
            os.close(self._pipe)
            self._pipe = None

    def signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if not self._ended:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def wait(self) -> None:
        """Wait until it has ended."""
        if not self._ended:
            wait_read(self._pidfd)
        if self._ended:
            return  # somebody else has waited as well
        self._ended = True
        with contextlib.suppress(ChildProcessError):
            posix.waitpid(self.pid, 0)
        os.close(self._pidfd)


def begin_again(relief: Relief, directory: str) -> NoReturn:
    """Become the same program once more, in ``directory``, under the same pid."""
    atexit._run_exitfuncs()  # an exec runs none of them
    flush_output()
    put_off(_KEPT)
    os.environ[_PID] = str(relief.pid)
    os.chdir(directory)
    os.execv(sys.executable, _command())


def _command() -> list[str]:
    return [sys.executable, *sys.orig_argv[1:]]


@contextlib.contextmanager
def _inside(directory: str) -> Iterator[None]:
    """While this lasts, ``directory`` is the working directory."""
    here = os.open(".", os.O_RDONLY)  # by descriptor: its path may be gone by now
    try:
        os.chdir(directory)
        yield
    finally:
        os.fchdir(here)
        os.close(here)


# --- in the new program --------------------------------------------------------------------------


def relief_of_ours() -> Relief | None:
    """Who has served meanwhile, if we have begun again."""
    pid = os.environ.pop(_PID, None)
    return Relief(int(pid)) if pid is not None else None


class Duty:
    """What a relief owes to whom it relieves; nothing, in a process that is none."""

    def __init__(self) -> None:
        found = os.environ.pop(_FOR, None)
        self._pipe: int | None = None
        if found is None:
            return
        pid, pipe = map(int, found.split(":"))
        self._pipe = pipe
        os.set_inheritable(pipe, False)
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
        if os.getppid() != pid:
            sys.exit(0)  # it died before the line above: nobody would ever end us

    def ready(self) -> None:
        """Say that we serve."""
        if self._pipe is not None:
            pipe, self._pipe = self._pipe, None
            with contextlib.suppress(BrokenPipeError):
                os.write(pipe, _READY)
            os.close(pipe)
