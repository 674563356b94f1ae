"""Envelopes in a worker: arguments out of them, results into them.

The worker has the code, and so the annotations that say what a value on its way through a server
is to be again. Whether an envelope may be opened was the manager's to decide.
"""

from __future__ import annotations

from typing import Any

from gtaskman.envelope import Hints, arguments_of, seal_result
from gtaskman.wire.messages import CHUNK

_CODEC = 2  # where an envelope says it; a capital letter if it is signed


def arguments(
    flags: int, payload: memoryview, target: Any
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What ``target`` is called with. Raises :class:`EnvelopeError`."""
    return arguments_of(payload, _hints(flags, target))


def codec(payload: memoryview) -> str:
    """The letter of an envelope's codec."""
    return chr(payload[_CODEC]).lower()


def result(value: Any, letter: str, flags: int, target: Any, limit: int) -> bytes:
    """The envelope of what ``target`` returned. Raises :class:`PayloadError`."""
    return seal_result(value, codec=letter, hints=_hints(flags, target), limit=limit)


def _hints(flags: int, target: Any) -> Hints:
    # A chunk is a list of what the code takes and gives one by one.
    return Hints.NONE if flags & CHUNK else Hints.of(target)
