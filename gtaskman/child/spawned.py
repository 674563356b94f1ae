"""A worker that was started by an exec of its own: the start method ``spawn``."""

from __future__ import annotations

import _socket
import logging
import os
import signal
from typing import NoReturn

from gtaskman.child import preload
from gtaskman.child.start import adopt, start_worker
from gtaskman.process import failed_preload
from gtaskman.wire import control

log = logging.getLogger(__name__)

PIPE_FD, PAGE_FD = 3, 4


def main(number: int, more: int) -> NoReturn:
    """Import the application, then work on the pipe that we were started with.

    ``more`` is how many descriptors came beside the pipe and the page.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pipe = _socket.socket(fileno=PIPE_FD)
    settings = control.receive_settings(pipe)
    pipe.detach()
    adopt(settings)
    for module in settings.preload:
        # What fails here fails again when a task needs it.
        trace = preload.load(module, settings.main)
        if trace is not None:
            log.warning(failed_preload(module, trace))
    os.set_inheritable(PAGE_FD, False)
    start_worker(number, PIPE_FD, PAGE_FD, settings, range(PAGE_FD + 1, PAGE_FD + 1 + more))
