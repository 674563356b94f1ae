"""What a new process does before its first task, and what it does at its end.

Each line that looks odd has its reason beside it.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import sys
from typing import NoReturn

import setproctitle

PR_SET_PDEATHSIG = 1
# Python ignores these two on purpose: a write to a closed pipe shall raise, not kill.
_KEPT_SIGNALS = {signal.SIGPIPE, getattr(signal, "SIGXFSZ", signal.SIGPIPE)}
ORPHAN = 70  # exit code: the parent was gone before we were up


def die_with(parent: int) -> None:
    """End when the parent does, even in the middle of an endless loop."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        # It died between the fork and the line above.
        os._exit(ORPHAN)


def forget_signals() -> None:
    """Handlers belong to the process that set them. SIGINT is for the parent to act on."""
    # A parent's handler writes to its own wake-up pipe, which a fork would share.
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - _KEPT_SIGNALS:
        if signal.getsignal(number) not in (signal.SIG_DFL, None):
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def forget_parent() -> None:
    """Drop what Python would do at the end on behalf of the parent, and its random state."""
    atexit._clear()
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        # The random module reseeds itself in a fork; numpy's global generator does not.
        numpy.random.seed()


def name_process(title: str) -> None:
    """What ``ps`` shows."""
    setproctitle.setproctitle(title)


def has_output(fd: int) -> bool:
    """Whether standard output or error is there, and not something else in its place.

    Where it was closed, the next descriptor that Python opened has its number, and is closed by an
    exec.
    """
    try:
        return os.get_inheritable(fd)
    except OSError:
        return False


def replace_output() -> None:
    """Have what is printed go nowhere if there is no standard output or error."""
    for fd in (1, 2):
        if not has_output(fd):
            null = os.open(os.devnull, os.O_WRONLY)
            if null != fd:
                os.dup2(null, fd)
                os.close(null)
            os.set_inheritable(fd, True)


def flush_output() -> None:
    """Write out what tasks have printed."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            pass  # closed or replaced by a task, or interrupted in the middle of a write


def leave_fork(error: BaseException | None) -> NoReturn:
    """End this process, a task's fork or a worker, as a script ends that ``error`` leaves."""
    code = 0
    if isinstance(error, SystemExit):
        if isinstance(error.code, int):
            code = error.code
        elif error.code is not None:
            print(error.code, file=sys.stderr)
            code = 1
    elif error is not None:
        sys.excepthook(type(error), error, error.__traceback__)
        code = 1
    flush_output()
    os._exit(code & 0xFF)


def leave(code: int = 0) -> NoReturn:
    """End without returning into whatever forked us."""
    atexit._run_exitfuncs()
    flush_output()
    os._exit(code)
