"""The worker's end of progress: at once, but never so often that it would drown the parent."""

from __future__ import annotations

import time
from collections.abc import Callable

from gtaskman.report import Progress

_BURST = 100.0  # updates that go at once, however quickly they come
_RATE = 1000.0  # updates a second after that; in between, the latest wins


class Pen(Progress):
    """A :class:`Progress` that sends.

    ``send(body)`` writes an update now; ``later(flush)`` calls ``flush`` when the hub runs next.
    An update held back because the task writes thousands a second goes with the next one, when
    the hub runs, or at the task's end, whichever comes first. So does one that comes from a native
    thread of the task: ``is_here()`` says whether this is the thread that may send.
    """

    def __init__(
        self,
        send: Callable[[tuple[float, float, str]], None],
        later: Callable[[Callable[[], None]], None],
        is_here: Callable[[], bool],
    ) -> None:
        super().__init__(self._take)
        self._send = send
        self._later = later
        self._is_here = is_here
        self._credit = _BURST
        self._last = 0.0
        self._held = False
        self._closed = False

    def _take(self, completed: float, target: float, message: str) -> None:
        if self._closed:
            return
        if not self._is_here():
            self._hold()
            return
        now = time.monotonic()
        self._credit = min(_BURST, self._credit + (now - self._last) * _RATE)
        self._last = now
        if self._credit >= 1:
            self._credit -= 1
            self._held = False
            self._send((completed, target, message))
        else:
            self._hold()

    def _hold(self) -> None:
        if not self._held:
            self._held = True
            self._later(self.flush)

    def flush(self) -> None:
        """Send what was held back."""
        if self._held and not self._closed:
            self._held = False
            self._send((self.completed, self.target, self.message))

    def close(self) -> None:
        """The task is over: nothing that still holds the pen can write any more."""
        self.flush()
        self._closed = True
