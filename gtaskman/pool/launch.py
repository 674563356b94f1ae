"""Starting a fresh interpreter as one of our children, the same way for zygote and spawn.

The original ``posix_spawn`` is used, never gevent's: that one adds a child watcher, and a child
watcher makes the application's own ``waitpid`` calls lose their results.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import posix
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence

from gevent.monkey import is_module_patched

from gtaskman.child.boot import ORPHAN, PR_SET_PDEATHSIG, has_output
from gtaskman.errors import StartMethodError
from gtaskman.process import CHILD_OF

STANDARD_ERROR = 2
FIRST_FD = 3  # where the child finds the descriptors that it is given
PYTHON = "GTASKMAN_PYTHON"  # the environment variable that names another interpreter
_FAR = 64  # above every number that they are moved to

# What gevent's patch_all calls a part -> the module by which one can tell that it was patched.
_PARTS = {
    "socket": "socket",
    "dns": "socket",
    "time": "time",
    "select": "select",
    "thread": "threading",
    "os": "os",
    "ssl": "ssl",
    "subprocess": "subprocess",
    "signal": "signal",
    "queue": "queue",
    "sys": "sys",
}


def patched_parts() -> dict[str, bool]:
    """Which parts of the standard library gevent has patched here; {} if none."""
    parts = {part: bool(is_module_patched(module)) for part, module in _PARTS.items()}
    return parts if any(parts.values()) else {}


def program(module: str, fds: int, *arguments: int) -> str:
    """The child's first lines: close what was inherited, patch as we are patched, begin.

    It must see our import path, and be patched, before it imports anything.
    """
    parts = patched_parts()
    patch = f"from gevent import monkey; monkey.patch_all(**{parts!r})" if parts else ""
    return "\n".join(
        [
            # First of all: imports take a while, and nobody may outlive us for so long.
            "import ctypes, os, sys",
            f"os.environ.pop({CHILD_OF!r}, None)",
            f"ctypes.CDLL(None).prctl({PR_SET_PDEATHSIG}, {int(signal.SIGKILL)}, 0, 0, 0)",
            f"if os.getppid() != {os.getpid()}: os._exit({ORPHAN})",
            f"sys.path[:] = {import_path()!r}",
            # Servers make their listening sockets inheritable: none may stay open in here.
            "for fd in map(int, os.listdir('/proc/self/fd')):",
            f"    if fd >= {FIRST_FD + fds}:",
            "        try: os.close(fd)",
            "        except OSError: pass",
            patch,
            f"from {module} import main",
            f"main({', '.join(map(repr, arguments))})",
        ]
    )


def import_path() -> list[str]:
    """The import path, without what Python passes over, such as ``pathlib.Path``."""
    return [each for each in sys.path if isinstance(each, str)]


def interpreter() -> str:
    """The Python that children run. Raises :class:`StartMethodError` if there is none.

    The executable of a frozen or embedding application is the application: started as a child, it
    would start one more of itself, and so on.
    """
    named = os.environ.get(PYTHON)
    if named:
        return named
    name = os.path.basename(sys.executable or "").lower()
    if getattr(sys, "frozen", False) or not any(each in name for each in ("python", "pypy")):
        raise StartMethodError(
            f"workers cannot be started with {sys.executable!r}: this is no Python interpreter but"
            f" an application that contains one. Set the environment variable {PYTHON} to the path"
            " of an interpreter that can import the application's modules, or use"
            " start_method='fork'"
        )
    return sys.executable


def clear_of_output(fd: int) -> int:
    """Move a descriptor that stands where standard output or error belongs, and gives the new one.

    Where an application has closed those, a new descriptor gets such a number, and whatever prints
    would write to it.
    """
    if fd > STANDARD_ERROR:
        return fd
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, FIRST_FD)
    finally:
        posix.close(fd)


def duplicate(fds: Iterable[int]) -> list[int]:
    """Copies of descriptors, all or none. Raises OSError."""
    copies: list[int] = []
    try:
        for fd in fds:
            copies.append(os.dup(fd))
    except BaseException:
        close_all(copies)
        raise
    return copies


def exec_python(code: str, fds: Sequence[int]) -> int:
    """Start this interpreter on ``code`` with ``fds`` as 3, 4, ...; gives its pid.

    Its input is empty, its output ours, and it leads a process group, so that a Ctrl-C in a
    terminal reaches the application alone. Raises :class:`StartMethodError`.
    """
    # What multiprocessing uses for the same end; typeshed does not know it.
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined] # as above
    python = interpreter()
    argv = [python, *flags, "-c", code]
    # Moved out of the way first: 4 -> 3 must not overwrite a 3 that is still to go to 4.
    far: list[int] = []
    try:
        for fd in fds:
            far.append(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FAR))
        return _spawn(python, argv, far)
    except OSError as error:
        raise StartMethodError(f"{python!r} cannot be started: {error}") from error
    finally:
        close_all(far)


def _spawn(python: str, argv: list[str], far: list[int]) -> int:
    actions: list[tuple[object, ...]] = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        *(
            (os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_WRONLY, 0)
            for fd in (1, STANDARD_ERROR)
            if not has_output(fd)
        ),
        *((os.POSIX_SPAWN_DUP2, fd, FIRST_FD + at) for at, fd in enumerate(far)),
    ]
    return posix.posix_spawn(
        python,
        argv,
        {**os.environ, CHILD_OF: str(os.getpid())},
        file_actions=actions,
        setpgroup=0,
        setsigmask=[],
        setsigdef=signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE},
    )


def abandon(pid: int) -> None:
    """End a child that was just started and cannot be watched, and wait for that."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):  # the application may have taken its status
        posix.waitpid(pid, 0)


def reap(pid: int) -> tuple[int, int] | None:
    """The wait status and most memory (bytes) of an ended child of ours, if nobody took them.

    None where the application's own ``waitpid(-1)`` was faster.
    """
    try:
        _, status, usage = os.wait4(pid, os.WNOHANG)
    except ChildProcessError:
        return None
    return status, usage.ru_maxrss * 1024


def close_all(fds: Iterable[int]) -> None:
    """Close our copies of descriptors that are on their way to a child."""
    tuple(map(posix.close, fds))  # a signal handler can raise before or after, not in between
