"""From a fresh process to a worker: the steps that every start method shares."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from gtaskman.child import boot, signals
from gtaskman.child.worker import Worker
from gtaskman.wire.settings import Settings
from gtaskman.wire.slate import Slate


def adopt(settings: Settings) -> None:
    """See the application's files and arguments as it sees them, before any of it is imported."""
    signals.watch()
    sys.path[:] = settings.path
    sys.argv[:] = settings.argv
    if settings.authkey is not None:
        # Proxies of a multiprocessing.Manager of the application's are let in by this.
        process = importlib.import_module("multiprocessing.process")
        process.current_process().authkey = settings.authkey
    if settings.directory is not None:
        # What can be imported without it still can, should it be removed meanwhile.
        with contextlib.suppress(OSError):
            os.chdir(settings.directory)


def start_worker(
    number: int, pipe: int, page: int, settings: Settings, more: Sequence[int] = ()
) -> NoReturn:
    """Turn this fresh process into a worker; signals are blocked until it is one.

    ``more`` are descriptors that whatever runs in it may use.
    """
    boot.forget_signals()
    boot.forget_parent()
    boot.name_process(f"gtaskman: worker {number} of {settings.title}")
    if settings.nice:
        os.nice(settings.nice)
    for fd in (pipe, *more):
        os.set_inheritable(fd, False)
    slate = Slate(page)
    os.close(page)
    worker = Worker(pipe, slate, settings, more)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    worker.serve()
