"""Private directories, one for each generation, and what marks those that are still used.

In each of them is a file that gunicorn's master and the workers of the generation hold a shared
lock of, each by having been forked. A directory whose file nobody holds, and in which no manager
is, was left behind by a master that was killed before there was a manager to remove it: the next
server that starts does so.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import posix
import shutil
import tempfile
from collections.abc import Iterator

PREFIX = "gtaskman-"
_MARK = "used"


def make(base: str) -> str:
    """A new private directory (mode 0700) in ``base``. Raises ``OSError``."""
    return tempfile.mkdtemp(prefix=PREFIX, dir=base)


def mark(directory: str) -> int:
    """Mark it as used for as long as a copy of the descriptor that is given is open."""
    path = os.path.join(directory, _MARK)
    new = os.open(f"{path}.new", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    fcntl.flock(new, fcntl.LOCK_SH)
    os.rename(f"{path}.new", path)  # in one step: it is there when it is locked
    return new


def open_directory(directory: str) -> int:
    """A descriptor of it, whose lock is that of the manager. Raises ``OSError``."""
    return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def sweep(base: str, uid: int) -> None:
    """Remove the directories of this user in ``base`` that nobody uses any more."""
    with contextlib.suppress(OSError), os.scandir(base) as entries:
        for entry in entries:
            if entry.name.startswith(PREFIX) and entry.is_dir(follow_symlinks=False):
                _remove_if_unused(entry.path, uid)


def _remove_if_unused(directory: str, uid: int) -> None:
    with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
        if os.lstat(directory).st_uid != uid:
            return
        used = os.open(os.path.join(directory, _MARK), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        for fd in (used, open_directory(directory)):
            stack.enter_context(_locked(fd))
        shutil.rmtree(directory)


@contextlib.contextmanager
def _locked(fd: int) -> Iterator[None]:
    """Raises ``BlockingIOError`` if somebody else has a lock of it; closes it in the end."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        posix.close(fd)  # gevent's os.close would keep the lock until the hub runs
