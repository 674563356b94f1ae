"""One moment on a loop, at which something is called once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gtaskman.wire.resumed import Resumed


class Alarm:
    """A timer that is set, goes off once, and can be set again. It keeps no loop alive.

    A callback in which a signal handler raises is called again: it must accept that.
    """

    def __init__(self, loop: Any) -> None:
        self._loop = loop
        self._timer: Any = None
        self._resumed = Resumed(loop, self._go_off)
        self._due: tuple[Callable[..., None], tuple[Any, ...]] | None = None  # what to call
        self.armed = False  # whether it is yet to go off

    def set(self, seconds: float, callback: Callable[..., None], *args: Any) -> None:
        """Call ``callback(*args)`` in so many seconds, instead of what was set before."""
        self.cancel()
        self._timer = self._loop.timer(max(0.0, seconds), ref=False)
        self._due = callback, args
        # Counted from now: the loop may not have looked at the clock for a while.
        self._timer.start(self._resumed.call, update=True)
        self.armed = True

    def cancel(self) -> None:
        """Call nothing."""
        self._due = None
        self._stop()

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None
            self.armed = False

    def _go_off(self) -> None:
        self._stop()
        due = self._due
        if due is None:
            return  # cancelled after a signal handler had raised in the callback
        callback, args = due
        callback(*args)
        if self._due is due:
            self._due = None
