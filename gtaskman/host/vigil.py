"""``Vigil``: keeps a loop awake for a moment while something is expected at once.

Falling asleep and being woken takes a process longer than a tiny task does. A loop that keeps
vigil serves everybody as it always does; it just does not sleep.
"""

from __future__ import annotations

import os
import time
from typing import Any

LINGER = 100e-6  # seconds


class Vigil:
    """For one loop, which waits for workers. Kept only while their answers have come at once."""

    def __init__(self, loop: Any) -> None:
        self._idle = loop.idle(ref=False)
        self._since = 0.0
        self._brisk = False  # the last answer has come at once

    def begin(self) -> None:
        """An answer is expected from now on."""
        self._since = time.monotonic()
        if self._brisk and not self._idle.active:
            self._idle.start(self._look)

    def end(self) -> None:
        """It has come. Whoever waits for it needs a core: it is not ours."""
        self._brisk = time.monotonic() - self._since < LINGER
        if self._idle.active:
            self._idle.stop()

    def _look(self) -> None:
        os.sched_yield()  # the worker that is expected to answer may have no other core
        if time.monotonic() - self._since > LINGER:
            self._brisk = False
            self._idle.stop()

    def close(self) -> None:
        """Keep it no more."""
        self._idle.stop()
        self._idle.close()
