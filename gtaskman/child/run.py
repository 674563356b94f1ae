"""``Run``: one order of the manager, while it waits and while it runs in this worker."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

from gtaskman.child import seal
from gtaskman.child.pen import Pen
from gtaskman.context import Current
from gtaskman.wire.messages import ORDER, SEALED
from gtaskman.wire.payload import decode_arguments


class Writer(Protocol):
    """Who sends what a task writes with its pen."""

    def send_progress(self, number: int, values: tuple[float, float, str]) -> None:
        """Send an update of the run with this number, now."""

    def later(self, callback: Callable[[], None]) -> None:
        """Call back when the hub runs next."""

    def is_here(self) -> bool:
        """Whether this is the thread that may send."""


class Run:
    """What to run, once; what few tasks ask for is made when they do.

    Whoever runs it notes the task's ``name``, when it ``started`` (a monotonic time), and the
    ``writer`` that takes its progress.
    """

    __slots__ = (
        "_current",
        "_data",
        "_length",
        "attempt",
        "buffers",
        "flags",
        "limit",
        "name",
        "number",
        "pen",
        "started",
        "target",
        "writer",
    )

    name: str
    started: float
    writer: Writer

    def __init__(self, number: int, flags: int, body: memoryview, buffers: Any) -> None:
        self.number = number
        self.flags = flags
        self.buffers = buffers
        self._data = bytes(body)  # the view is valid only until the next read
        self.target, self.attempt, self._length, self.limit = ORDER.unpack_from(body)
        self._current: Current | None = None
        self.pen: Pen | None = None  # its progress, if it ever asked for one

    @property
    def id(self) -> str:
        """The task's id."""
        return self._data[ORDER.size : ORDER.size + self._length].decode()

    def arguments(self, target: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What ``target``, its code, is called with. Raises whatever decoding raises."""
        payload = memoryview(self._data)[ORDER.size + self._length :]
        if self.flags & SEALED:
            return seal.arguments(self.flags, payload, target)
        return decode_arguments(self.flags, payload, self.buffers)

    @property
    def codec(self) -> str:
        """The letter of the envelope's codec, which the result is sealed with as well."""
        return seal.codec(memoryview(self._data)[ORDER.size + self._length :])

    def current(self) -> Current:
        """What ``gtaskman.current()`` gives in this run."""
        if self._current is None:
            began = time.time() - (time.monotonic() - self.started)
            deadline = began + self.limit if self.limit else None
            self.pen = Pen(self._send, self.writer.later, self.writer.is_here)
            self._current = Current(self.id, self.name, self.attempt, deadline, self.pen)
        return self._current

    def _send(self, values: tuple[float, float, str]) -> None:
        self.writer.send_progress(self.number, values)
