"""A worker as a direct fork of the application: the start method ``fork``.

A fork of a busy gevent process inherits its hub, its greenlets, its sockets and its handlers. What
can be neutralised is neutralised here; what cannot (a lock that another native thread held) is
why this start method is opt-in.
"""

from __future__ import annotations

import gc
import os
import posix
import signal
import stat
import sys
from collections.abc import Sequence
from typing import Any

import greenlet
from gevent._hub_local import get_hub_if_exists, set_hub, set_loop

from gtaskman.child import boot, signals
from gtaskman.child.start import start_worker
from gtaskman.wire.settings import Settings

_kept: list[Any] = []


def fork_worker(number: int, pipe: int, page: int, more: Sequence[int], settings: Settings) -> int:
    """Fork a worker on ``pipe``; gives its pid, in the parent only."""
    parent = os.getpid()
    boot.flush_output()  # what is buffered would be written twice
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = posix.fork()
        if pid == 0:
            _become_worker(parent, number, pipe, page, more, settings)
        return pid
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _become_worker(
    parent: int, number: int, pipe: int, page: int, more: Sequence[int], settings: Settings
) -> None:
    code = 1
    try:
        # Before any descriptor goes: a handler of the parent's would write to one of them.
        boot.forget_signals()
        _keep_greenlets()
        _abandon_hub()
        boot.replace_output()
        _neutralise({pipe, page, *more})
        boot.die_with(parent)
        _forget_multiprocessing()
        signals.watch()
        gc.freeze()
        gc.enable()
        start_worker(number, pipe, page, settings, more)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        boot.flush_output()
        os._exit(code)


def _keep_greenlets() -> None:
    """A greenlet that is collected runs its ``finally`` blocks: keep all of the parent's alive."""
    gc.disable()
    # By their exact types: isinstance() asks an object for its class, and lazy ones wake for that.
    _kept.append([each for each in gc.get_objects() if issubclass(type(each), greenlet.greenlet)])


def _abandon_hub() -> None:
    """Make way for a hub of our own, without running a step of the parent's."""
    hub = get_hub_if_exists()
    if hub is None:
        return
    _kept.append((hub, hub.loop))
    hub.loop.reinit()
    set_hub(None)
    set_loop(None)
    # Never hub.destroy(): it would destroy the default loop's watchers by running them down.
    hub.loop.destroy()


def _neutralise(keep: set[int]) -> None:
    """Point inherited sockets, pipes and event descriptors at nothing.

    They are not closed: the number stays taken, and an object of the parent's that closes it later
    hits nobody. Files and terminals stay: logs go on.
    """
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        if fd > 2 and fd != null and fd not in keep and _is_shared(fd):
            try:
                os.dup2(null, fd, inheritable=False)
            except OSError:
                os.close(fd)  # its number is above RLIMIT_NOFILE, and is not given again
    os.close(null)


def _is_shared(fd: int) -> bool:
    try:
        mode = os.fstat(fd).st_mode
    except OSError:
        return False  # the listing's own descriptor
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISCHR(mode))


def _forget_multiprocessing() -> None:
    """The parent's children are not ours to join."""
    process = sys.modules.get("multiprocessing.process")
    if process is not None:
        process._children.clear()
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        util._finalizer_registry.clear()
