"""One moment on a loop, at which something is called once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Alarm:
    """A timer that is set, goes off once, and can be set again. It keeps no loop alive."""

    def __init__(self, loop: Any) -> None:
        self._loop = loop
        self._timer: Any = None
        self.armed = False  # whether it is yet to go off

    def set(self, seconds: float, callback: Callable[..., None], *args: Any) -> None:
        """Call ``callback(*args)`` in so many seconds, instead of what was set before."""
        self.cancel()
        self._timer = self._loop.timer(max(0.0, seconds), ref=False)
        self.armed = True
        # Counted from now: the loop may not have looked at the clock for a while.
        self._timer.start(self._go_off, callback, args, update=True)

    def cancel(self) -> None:
        """Call nothing."""
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None
            self.armed = False

    def _go_off(self, callback: Callable[..., None], args: tuple[Any, ...]) -> None:
        self.cancel()
        callback(*args)
