"""``Outlet``: a channel that can be told to read nothing for a while, and says when all is sent."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from gtaskman.errors import FrameError
from gtaskman.wire.channel import Channel
from gtaskman.wire.frames import Frame

_MANY = 256  # parts above which what is unsent is joined
_JOINED = 64 * 1024  # bytes of a part that is left as it is


class Outlet(Channel):
    """One end of a socket. ``on_drained()`` is called when what could not be sent at once was."""

    def __init__(
        self,
        fd: int,
        loop: Any,
        limit: int,
        kinds: Collection[int],
        on_frames: Callable[[list[Frame]], None],
        on_close: Callable[[FrameError | None], None],
        on_drained: Callable[[], None],
    ) -> None:
        super().__init__(fd, loop, limit, kinds, on_frames, on_close, ref=False)
        self._on_drained = on_drained
        self._paused = 0

    def pause(self, reason: int) -> bool:
        """Read nothing until :meth:`resume`; False if it was told so for this reason before.

        A reason is a bit.
        """
        if self._paused & reason:
            return False
        self._paused |= reason
        self._readable.stop()
        return True

    def resume(self, reason: int) -> None:
        """Take a :meth:`pause` back; it reads again when none is left."""
        if self._paused & reason and not self.closed:
            self._paused &= ~reason
            if not self._paused:
                self.start()

    @property
    def blocked(self) -> bool:
        """Whether the kernel takes no more for now."""
        return self._blocked

    def compact(self) -> None:
        """Join small parts that are unsent: to count, or to keep, very many of them is slow."""
        if len(self.parts) <= _MANY:
            return
        parts: list[bytes | memoryview] = []
        small: list[bytes | memoryview] = []
        size = 0
        for part in self.parts:
            if len(part) < _JOINED:
                small.append(part)
                size += len(part)
                if size < _JOINED:
                    continue
            if small:
                parts.append(b"".join(small))
                small, size = [], 0
            if len(part) >= _JOINED:
                parts.append(part)
        if small:
            parts.append(b"".join(small))
        self.parts[:] = parts

    def _on_writable(self) -> None:
        super()._on_writable()
        if not self._blocked and not self.closed:
            self._on_drained()
