"""``Summons``: since when this process of gunicorn is to end, and whether at once.

No hook of gunicorn tells when its time to end has begun, and what is left of it must be known to
those who end last.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import Any

_AT_ONCE = (signal.SIGINT, signal.SIGQUIT)


class Summons:
    """What signals have said to this process."""

    def __init__(self) -> None:
        self.since: float | None = None
        """When the first one came, on the monotonic clock; None before."""
        self.at_once = False
        """Whether nobody waits for anything any more."""

    def heed(self) -> None:
        """Note what TERM, INT and QUIT say, and leave them to gunicorn. For the main thread."""
        for number in (signal.SIGTERM, *_AT_ONCE):
            before = signal.getsignal(number)
            if callable(before):
                signal.signal(number, self._noting(before))
                # As gunicorn has it: such a signal interrupts no call of the system.
                signal.siginterrupt(number, False)

    def _noting(self, before: Callable[[int, Any], Any]) -> Callable[[int, Any], Any]:
        def note(number: int, frame: Any) -> None:
            if self.since is None:
                self.since = time.monotonic()
            self.at_once = self.at_once or number in _AT_ONCE
            before(number, frame)

        return note
