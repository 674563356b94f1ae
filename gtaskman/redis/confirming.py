"""``Confirming``: asks a server how many replicas have what was written, for many callers at once.

``WAIT`` keeps a connection busy for as long as it lasts. So it has a connection of its own, and
those who call while one lasts share the next one.
"""

from __future__ import annotations

from collections.abc import Callable

import gevent
from gevent.event import AsyncResult

from gtaskman.redis.connection import pack

Ask = Callable[[bytes, int], int]


class Confirming:
    """``ask(commands, count)`` sends packed commands and gives the last of their replies."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._next: _Round | None = None
        self._greenlet: gevent.Greenlet[..., None] | None = None

    def found(self, command: bytes, replicas: int, seconds: float) -> int:
        """How many replicas have what ``command`` writes, after ``seconds`` at most.

        The command is run once more: it must not change anything then. Raises as ``ask``.
        """
        mine = self._next
        if mine is None:
            mine = self._next = _Round()
        mine.add(command, replicas, seconds)
        if not self._greenlet:
            self._greenlet = gevent.spawn(self._run)
        return int(mine.found.get())

    def _run(self) -> None:
        while self._next is not None:
            current, self._next = self._next, None
            try:
                current.found.set(self._ask(current.request(), len(current.commands) + 1))
            except Exception as error:
                current.found.set_exception(error)


class _Round:
    """The callers that share one question."""

    def __init__(self) -> None:
        self.commands: list[bytes] = []
        self.found = AsyncResult()
        self._replicas = 0
        self._seconds = 0.0

    def add(self, command: bytes, replicas: int, seconds: float) -> None:
        """One more caller. The question ends early only when all have what they want."""
        self.commands.append(command)
        self._replicas = max(self._replicas, replicas)
        self._seconds = max(self._seconds, seconds)

    def request(self) -> bytes:
        """The packed commands, the question last."""
        question = pack(("WAIT", self._replicas, max(1, int(self._seconds * 1000))))
        return b"".join([*self.commands, question])
