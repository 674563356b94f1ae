"""``Questions``: what one process has asked and was not answered yet.

A few are answered at a time, and none while the process has much to read: what is kept for it
stays bounded, whatever it asks.
"""

from __future__ import annotations

import collections
from collections.abc import Callable

import gevent

from gtaskman.host.messages import Question

_AT_ONCE = 4  # questions that are answered concurrently: some wait for a server
_MOST = 256  # questions that may wait before no more is read
_MOST_BYTES = 1024 * 1024  # bytes of these


class Questions:
    """Waiting questions. ``answer(number, question)`` answers one, in a greenlet.

    ``may_answer()`` waits until an answer may be made, and is False once none is needed any more.
    ``on_room()`` is called when the queue is no longer :attr:`full`.
    """

    def __init__(
        self,
        answer: Callable[[int, Question], None],
        may_answer: Callable[[], bool],
        on_room: Callable[[], None],
    ) -> None:
        self._answer = answer
        self._may_answer = may_answer
        self._on_room = on_room
        self._waiting: collections.deque[tuple[int, Question, int]] = collections.deque()
        self._bytes = 0
        self._running = 0

    @property
    def full(self) -> bool:
        """Whether no more should be read before some are answered."""
        return len(self._waiting) >= _MOST or self._bytes >= _MOST_BYTES

    def add(self, number: int, question: Question, size: int) -> None:
        """Have one of ``size`` bytes answered; returns at once."""
        self._waiting.append((number, question, size))
        self._bytes += size
        if self._running < _AT_ONCE:
            self._running += 1
            gevent.spawn(self._run)

    def clear(self) -> None:
        """Forget those that wait."""
        self._waiting.clear()
        self._bytes = 0

    def _run(self) -> None:
        try:
            while self._waiting and self._may_answer() and self._waiting:
                number, question, size = self._waiting.popleft()
                self._bytes -= size
                if not self.full:
                    self._on_room()
                self._answer(number, question)
        finally:
            self._running -= 1
