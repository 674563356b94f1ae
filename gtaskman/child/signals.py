"""What a task does to the signals of its worker, and what is undone when it has ended.

A real-time timer (``signal.alarm``, ``signal.setitimer``) that is left running would raise into
the next task, or kill its worker. Asking the kernel after every task costs too much: so the calls
are noted. Handlers stay, since modules install theirs once, and so do timers of processor time,
which profilers run on.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import signal
from collections.abc import Callable
from typing import Any

log = logging.getLogger(__name__)

changed = False
"""Whether a task may have set a timer or a handler."""


def watch() -> None:
    """From now on, note what sets a timer or a handler."""
    for name in ("alarm", "setitimer", "signal"):
        setattr(signal, name, _noted(getattr(signal, name)))


def _noted(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def note(*args: Any, **kwargs: Any) -> Any:
        global changed
        changed = True
        return function(*args, **kwargs)

    return note


def stop_timer(culprit: str) -> None:
    """Stop the real-time timer that ``culprit`` has left running, if it has."""
    left: float | None = None
    while left is None:
        with contextlib.suppress(BaseException):  # its handler may raise in here, now and once more
            left, _ = signal.setitimer(signal.ITIMER_REAL, 0)
            _nothing()  # a handler runs after a call at the latest
    if left:
        log.warning("%s left a timer of signal.setitimer running: it was stopped", culprit)


def _nothing() -> None:
    """Give a handler that is due the chance to run."""
