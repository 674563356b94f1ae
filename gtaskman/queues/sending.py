"""What a task is to be enqueued with on a server, and what the server's answers mean."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from gtaskman.envelope import TASK_LIMIT, Hints, Keyring, seal_task
from gtaskman.errors import ConfigurationError, DuplicateTaskError, PayloadError
from gtaskman.redis.ledger import Entry, Ledger
from gtaskman.task import Definition
from gtaskman.terms import Terms

RESULT_TTL = 24 * 3600.0  # seconds that a finished task is kept unless its terms say otherwise
MAX_LOSSES = 3  # owners that may die under a task, unless its definition says otherwise
_CODECS = {"json": "j", "msgpack": "m", "pickle": "p"}


class Call(NamedTuple):
    """A task that is about to be sent. ``options`` are limits, and ``chunk``.

    ``definition`` is None for a sender that has no more than its name.
    """

    id: str
    name: str
    kind: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    options: dict[str, Any]
    terms: Terms
    unique: str
    definition: Definition | None


class Sealer:
    """How one sender seals: with which codec, and whose signature.

    Raises :class:`ConfigurationError` for an unknown codec, and for pickle without a keyring.
    """

    def __init__(
        self, codec: str = "json", keyring: Keyring | None = None, limit: int = TASK_LIMIT
    ) -> None:
        if codec not in _CODECS:
            raise ConfigurationError(
                f"codec must be one of {', '.join(_CODECS)}, not {codec!r}", "codec"
            )
        if codec == "pickle" and keyring is None:
            raise ConfigurationError("codec='pickle' travels signed only: give a keyring", "codec")
        self._codec = _CODECS[codec]
        self._keyring = keyring
        self._limit = limit

    def entry(self, call: Call, queue: str, reply: str) -> Entry:
        """The task as it is enqueued; ``reply`` is the channel to tell of its end, or "".

        Raises :class:`PayloadError` if an argument cannot travel.
        """
        envelope = self._seal(call, queue)
        return entry_of(
            call.id, call.name, call.kind, call.terms, call.definition, call.unique, reply, envelope
        )

    def _seal(self, call: Call, queue: str) -> bytes:
        definition = call.definition
        typed = definition is not None and not call.options.get("chunk")
        try:
            return seal_task(
                call.id,
                call.name,
                call.kind,
                call.args,
                call.kwargs,
                time.time(),
                call.options,
                codec=self._codec,
                hints=Hints.of(definition.target) if typed and definition is not None else None,
                keyring=self._keyring,
                queue=queue,
                limit=self._limit,
            )
        except PayloadError as error:
            raise PayloadError(f"the task {call.name} cannot travel: {error}") from error.__cause__


def entry_of(
    task_id: str,
    name: str,
    kind: str,
    terms: Terms,
    definition: Definition | None,
    unique: str,
    reply: str,
    envelope: bytes,
) -> Entry:
    """A task as it is enqueued; ``definition`` is that of its code, for those who have it."""
    return Entry(
        task_id,
        name,
        "a" if kind == "async" else "s",
        terms.priority,
        terms.delay,
        terms.eta or 0.0,
        terms.ttl or 0.0,
        RESULT_TTL if terms.result_ttl is None else terms.result_ttl,
        (definition.max_crashes if definition is not None else None) or MAX_LOSSES,
        definition is not None and definition.at_most_once,
        unique,
        reply,
        envelope,
    )


def check_entered(entries: Sequence[Entry], answers: Sequence[str | None]) -> None:
    """Raise :class:`DuplicateTaskError` for the first one that was refused."""
    for entry, holder in zip(entries, answers, strict=True):
        if holder is not None:
            raise DuplicateTaskError(holder, None if holder == entry.id else entry.unique)


def send_back(ledger: Ledger, task_id: str) -> bool:
    """Have a dead task wait again; False if there is none of that id.

    Raises :class:`DuplicateTaskError` if another task holds its unique key.
    """
    if ledger.requeue([task_id]):
        return True
    record = ledger.record(task_id)
    if record is not None and record.status == "F" and record.unique:
        holder = ledger.holder(record.unique)
        if holder is not None and holder != task_id:
            raise DuplicateTaskError(holder, record.unique)
    return False
