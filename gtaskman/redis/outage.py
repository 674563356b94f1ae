"""``Outage``: a time in which nobody serves some keys.

One greenlet looks for somebody who does; all others wait for it, each as long as it likes.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import gevent
from gevent.event import Event

from gtaskman.errors import ForkedManagerError, ServerUnavailable
from gtaskman.redis.connection import ConnectionLost

if TYPE_CHECKING:
    from gtaskman.redis.server import Server

_FIRST_PAUSE = 0.05  # seconds; doubled up to
LONGEST_PAUSE = 1.0  # seconds


class Outage:
    """Begins when made; ``reason`` completes "the server ..."."""

    def __init__(self, server: Server, base: str, lost: ConnectionLost, pause: Pause) -> None:
        self.reason = lost.reason
        self.silent = lost.silent
        self.for_all = lost.for_all
        self.since = time.monotonic()
        self.forgotten = False
        self._server = server
        self._base = base
        self._pause = pause
        self._over = Event()
        self._closed = False
        pause.resume()
        self._greenlet = gevent.spawn(self._look)

    def wait(self, seconds: float | None) -> bool:
        """Until it is over, or so many seconds; gives whether it is."""
        over = self._over.wait(seconds)
        if self._closed:
            raise ServerUnavailable(f"the way to the Redis server {self._server.address} is closed")
        return bool(over)

    def _look(self) -> None:
        try:
            while not self._found():
                pass
        finally:
            if not self.forgotten:
                self._pause.ended()
                self._server.ended(self._base, self)
                self._over.set()

    def _found(self) -> bool:
        gevent.sleep(self._pause.next())
        if self.forgotten:
            return True
        try:
            self._server.look(self._base)
        except ConnectionLost as lost:
            self.reason, self.silent, self.for_all = lost.reason, lost.silent, lost.for_all
            return False
        except ForkedManagerError:
            pass
        return True

    def close(self) -> None:
        """Nobody is interested any more."""
        self._closed = True
        self._greenlet.kill(block=False)
        self._over.set()


class Pause:
    """How long to wait before the next try: longer and longer, and never as long as others do."""

    def __init__(self, longest: float = LONGEST_PAUSE) -> None:
        self._longest = longest
        self._seconds = min(_FIRST_PAUSE, longest)
        self._ended = 0.0

    def next(self) -> float:
        """Seconds."""
        seconds = self._seconds
        self._seconds = min(2 * seconds, self._longest)
        return seconds * random.uniform(0.5, 1.0)

    def ended(self) -> None:
        """What was tried has worked."""
        self._ended = time.monotonic()

    def resume(self) -> None:
        """Begin again, unless the last time has hardly ended: then it goes on."""
        if time.monotonic() - self._ended > 5 * self._longest:
            self._seconds = min(_FIRST_PAUSE, self._longest)
