"""Starting a fresh interpreter as one of our children, the same way for zygote and spawn.

The original ``posix_spawn`` is used, never gevent's: that one adds a child watcher, and a child
watcher makes the application's own ``waitpid`` calls lose their results.
"""

from __future__ import annotations

import fcntl
import os
import posix
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence

from gevent.monkey import is_module_patched

from gtaskman.child.boot import ORPHAN, PR_SET_PDEATHSIG
from gtaskman.errors import StartMethodError

FIRST_FD = 3  # where the child finds the descriptors that it is given
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
            f"ctypes.CDLL(None).prctl({PR_SET_PDEATHSIG}, {int(signal.SIGKILL)}, 0, 0, 0)",
            f"if os.getppid() != {os.getpid()}: os._exit({ORPHAN})",
            f"sys.path[:] = {sys.path!r}",
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


def exec_python(code: str, fds: Sequence[int]) -> int:
    """Start this interpreter on ``code`` with ``fds`` as 3, 4, ...; gives its pid.

    Its input is empty, its output ours, and it leads a process group, so that a Ctrl-C in a
    terminal reaches the application alone. Raises :class:`StartMethodError`.
    """
    # What multiprocessing uses for the same end; typeshed does not know it.
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined] # as above
    argv = [sys.executable, *flags, "-c", code]
    # Moved out of the way first: 4 -> 3 must not overwrite a 3 that is still to go to 4.
    far = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FAR) for fd in fds]
    actions: list[tuple[object, ...]] = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        *((os.POSIX_SPAWN_DUP2, fd, FIRST_FD + at) for at, fd in enumerate(far)),
    ]
    try:
        return posix.posix_spawn(
            sys.executable,
            argv,
            os.environ,
            file_actions=actions,
            setpgroup=0,
            setsigmask=[],
            setsigdef=signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE},
        )
    except OSError as error:
        raise StartMethodError(f"{sys.executable!r} cannot be started: {error}") from error
    finally:
        for fd in far:
            os.close(fd)


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
    for fd in fds:
        os.close(fd)
