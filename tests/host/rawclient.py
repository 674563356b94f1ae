"""A client of the host socket by hand: it can send anything, and need not read.

with Raw(site.path) as raw:
    raw.greet()
    raw.send(frame(messages.ASK, 1, messages.pack(messages.Question("stats", []))))
    kind, body = raw.heard()
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any, Self

from gevent import socket as cooperative

import gtaskman
from gtaskman.envelope import Hints  # noqa: F401 - loads what envelopes need
from gtaskman.host import messages
from gtaskman.queues.sending import Call, Sealer
from gtaskman.terms import DEFAULT
from gtaskman.wire.frames import HEADER, head
from gtaskman.wire.messages import SEALED


def frame(kind: int, number: int = 0, body: bytes = b"", flags: int = 0) -> bytes:
    """One frame without buffers."""
    return head(kind, flags, number, len(body)) + body


def hello(version: int = messages.VERSION, title: str = "test") -> bytes:
    """The first frame of a process."""
    return frame(messages.HELLO, body=messages.pack(messages.Hello(version, 1, title, "n")))


def question(number: int, name: str, *args: Any) -> bytes:
    """A frame that asks something."""
    return frame(messages.ASK, number, messages.pack(messages.Question(name, list(args))))


def code(number: int, module: str, path: str, kind: str = "sync") -> bytes:
    """A frame that describes ``module.path`` as the code ``number``."""
    described = messages.Code(
        path, kind, 0, module, path, None, None, None, 0, None, False, gtaskman.Backoff()
    )
    return frame(messages.DEFINE, number, messages.pack(described))


def sealed(number: int, task_id: str, name: str, *args: Any, flags: int = 0) -> bytes:
    """A frame that submits a task in an envelope."""
    call = Call(task_id, name, "sync", args, {}, {}, DEFAULT, "", None)
    envelope = Sealer("json", None).entry(call, "default", "").envelope
    body = messages.submit_body(0, task_id, DEFAULT, "") + envelope
    return frame(messages.SUBMIT, number, body, flags | SEALED)


class Raw:
    """One connection."""

    def __init__(self, path: str | os.PathLike[str], timeout: float = 30.0) -> None:
        self.socket = cooperative.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout)
        self.socket.connect(str(Path(path)))

    def greet(self) -> Self:
        """Say hello, and read the welcome."""
        self.send(hello())
        heard = self.heard()
        assert heard is not None
        assert heard[0] == messages.WELCOME, heard
        return self

    def send(self, *frames: bytes) -> None:
        """Send bytes; waits while the manager does not read."""
        self.socket.sendall(b"".join(frames))

    def heard(self) -> tuple[int, bytes] | None:
        """The kind and the body of the next frame without buffers, or None at the end."""
        found = self.next()
        return None if found is None else (found[0], found[2])

    def next(self) -> tuple[int, int, bytes] | None:
        """Kind, number and body of the next frame."""
        start = self._exactly(HEADER.size)
        if start is None:
            return None
        size, kind, _, many, number = HEADER.unpack(start)
        sizes = self._exactly(8 * many) if many else b""
        body = self._exactly(size) if size else b""
        if body is None or sizes is None:
            return None
        for at in range(many):
            self._exactly(int.from_bytes(sizes[8 * at : 8 * at + 7], "little"))
        return kind, number, body

    def _exactly(self, size: int) -> bytes | None:
        data = bytearray()
        while len(data) < size:
            try:
                more = self.socket.recv(min(size - len(data), 1 << 20))
            except ConnectionResetError:
                return None
            if not more:
                return None
            data += more
        return bytes(data)

    def close(self) -> None:
        """Hang up."""
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
