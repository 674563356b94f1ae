"""``Run``: one order of the manager, while it waits and while it runs in this worker."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from gtaskman.child.pen import Pen
from gtaskman.context import Current
from gtaskman.wire.messages import ORDER
from gtaskman.wire.payload import decode_arguments

Send = Callable[[int, tuple[float, float, str]], None]
Later = Callable[[Callable[[], None]], None]


class Run:
    """What to run, once; what few tasks ask for is made when they do."""

    __slots__ = (
        "_current",
        "_data",
        "_length",
        "attempt",
        "buffers",
        "flags",
        "later",
        "limit",
        "name",
        "number",
        "send",
        "started",
        "target",
    )

    def __init__(self, number: int, flags: int, body: memoryview, buffers: Any) -> None:
        self.number = number
        self.flags = flags
        self.buffers = buffers
        self._data = bytes(body)  # the view is valid only until the next read
        self.target, self.attempt, self._length, self.limit = ORDER.unpack_from(body)
        self._current: Current | None = None

    @property
    def id(self) -> str:
        """The task's id."""
        return self._data[ORDER.size : ORDER.size + self._length].decode()

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What the code is called with. Raises whatever decoding raises."""
        payload = memoryview(self._data)[ORDER.size + self._length :]
        return decode_arguments(self.flags, payload, self.buffers)

    def begin(self, name: str, started: float, send: Send, later: Later) -> None:
        """It started then, a monotonic time; ``send`` and ``later`` are for its progress."""
        self.name, self.started, self.send, self.later = name, started, send, later

    def current(self) -> Current:
        """What ``gtaskman.current()`` gives in this run."""
        if self._current is None:
            began = time.time() - (time.monotonic() - self.started)
            deadline = began + self.limit if self.limit else None
            pen = Pen(self._send, self.later)
            self._current = Current(self.id, self.name, self.attempt, deadline, pen)
        return self._current

    def _send(self, values: tuple[float, float, str]) -> None:
        self.send(self.number, values)

    @property
    def pen(self) -> Pen | None:
        """Its progress, if it ever asked for one."""
        pen = self._current.progress if self._current is not None else None
        return pen if isinstance(pen, Pen) else None
