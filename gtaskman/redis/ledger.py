"""``Ledger``: one queue's records on the server, one method for each script.

Bytes in and bytes out: what is in an envelope, an end or a progress is for others. The ledger
keeps nothing itself and decides nothing: the scripts do, in one step each, by the server's clock.
All methods wait cooperatively, and raise :class:`ServerUnavailable` and :class:`ServerError`.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import logging
import math
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from gtaskman.errors import ConfigurationError, ServerError, ServerUnavailable
from gtaskman.redis import scripts
from gtaskman.redis.keys import queue_base, queues_key
from gtaskman.redis.record import Record, body_of, record_of

if TYPE_CHECKING:
    from gtaskman.redis.server import Server

log = logging.getLogger(__name__)
_Item = TypeVar("_Item")

BATCH = 128  # the most that one script takes or gives
BATCH_BYTES = 4 * 1024 * 1024  # of envelopes or results in one script
_HEADS = 1024  # records of which one script gives sequence and time alone
KEPT = 10.0  # seconds that the scripts keep a finished record at least
_MARGIN = 1.0  # seconds that a command may be on its way
_ROUND = 0.25  # seconds that replicas are waited for with one command
LONGEST_REASON = 4096  # characters of the reason of a cancel
LONGEST_KEY = 48  # bytes of a unique key that are kept as they are; a longer one is hashed

DONE, REPLAY, STALE, GONE = 1, 2, 0, -1
"""What became of a settlement: done, done before, refused as the lease was lost, no such record."""

_UNKNOWN_POLICY = (
    "the server does not tell its maxmemory-policy (%s): see to it that it is noeviction,"
    " or tasks may be lost when it is full"
)

INDEXES = {"W": ("ws", "wa", "wx"), "P": ("run",), "C": ("xC",), "F": ("xF",), "X": ("xX",)}
"""Where records of each status are listed by sequence."""


class Entry(NamedTuple):
    """A task to be enqueued. Times are seconds; 0 and "" mean none."""

    id: str
    name: str
    kind: str  # "s" sync, "a" async
    priority: int  # -100..100, higher first
    delay: float  # from now, by the server's clock
    eta: float  # since the epoch; the later of both counts
    ttl: float  # from when it is due, within which it must have started
    result_ttl: float  # that it is kept when finished, 10 at least
    max_losses: int  # owners that may die under it before it is given up
    once: bool  # never handed out a second time
    unique: str  # nobody else waits or runs under this key
    reply: str  # the channel to tell of its end
    envelope: bytes


class Settlement(NamedTuple):
    """How one attempt came out.

    ``outcome``: ``C``, ``F`` or ``X``, the end; ``R``, try again after ``delay`` seconds, behind
    all others; ``L``, likewise, and it took a worker with it, which counts as a loss; ``B``, it has
    not run: back to its place, not counted, and not claimed again for ``delay`` seconds.
    """

    id: str
    token: int
    outcome: str
    end: bytes = b""
    result: bytes = b""
    delay: float = 0.0


class Claim(NamedTuple):
    """A task that an owner now holds, under ``token``; ``attempt`` counts from 1.

    It must have started within ``start_within`` seconds, if that is not None.
    """

    id: str
    token: int
    attempt: int
    losses: int
    start_within: float | None
    envelope: bytes


class Turn(NamedTuple):
    """What a turn came to. ``lost``: the owner is none any more, and got nothing.

    ``next_due``: seconds until the next delayed task is due, or None. ``left_sync`` and
    ``left_async`` are ready and were not taken; none of them while the queue is paused.
    """

    lost: bool
    verdicts: list[int]
    claims: list[Claim]
    next_due: float | None
    left_sync: int
    left_async: int
    parked: tuple[bool, bool] = (False, False)  # the kinds, sync and async, that it is woken for


class Cancel(NamedTuple):
    """A task that its owner shall cancel."""

    id: str
    token: int
    reason: str


class Beat(NamedTuple):
    """What a beat came to. ``owned``: how many tasks the owner holds, as the server knows.

    ``cancels`` are all that are asked of it and not settled, 128 at most. ``reaped`` and ``swept``:
    how many tasks were taken from dead owners, how many finished ones were forgotten. ``next_end``:
    in how many seconds the first lease ends, should nobody renew it.
    """

    lost: bool
    owned: int
    cancels: list[Cancel]
    next_due: float | None
    paused: bool
    reaped: int
    swept: int
    next_end: float | None


class Counts(NamedTuple):
    """How many records stand how now; ``total_`` ones: how many have ever.

    ``waiting`` is the sum of ``ready_sync``, ``ready_async`` and ``delayed``.
    """

    waiting: int
    ready_sync: int
    ready_async: int
    delayed: int
    processing: int
    completed: int
    failed: int
    cancelled: int
    total_queued: int
    total_completed: int
    total_failed: int
    total_cancelled: int
    paused: bool

    def of(self, letter: str) -> int:
        """How many have this status letter."""
        return int(self[_PLACES[letter]])


_PLACES = {"W": 0, "P": 4, "C": 5, "F": 6, "X": 7}


class Ledger:
    """The records of the queue ``queue`` in ``namespace``. Raises :class:`ConfigurationError`."""

    def __init__(self, server: Server, namespace: str, queue: str) -> None:
        self.server = server
        self.namespace = namespace
        self.queue = queue
        self.base = queue_base(namespace, queue)

    def __repr__(self) -> str:
        return f"<Ledger {self.base}>"

    def enter_index(self) -> None:
        """Have the queue listed among those of its namespace, where clients look for tasks."""
        index = queues_key(self.namespace)
        self.server.call(index, "SADD", index, self.queue)

    def check_server(self) -> None:
        """Raise :class:`ConfigurationError` if the server may drop records when it is full."""
        try:
            reply = self.server.call(self.base, "CONFIG", "GET", "maxmemory-policy")
        except ServerError as error:
            log.warning(_UNKNOWN_POLICY, error)
            return
        policy = _setting(reply)
        # No key of ours has a time to live, so that the volatile ones drop none of them.
        if policy != "noeviction" and not policy.startswith("volatile-"):
            raise ConfigurationError(
                f"the server's maxmemory-policy is {policy!r}, which drops tasks when it is full:"
                " set 'maxmemory-policy noeviction' in its configuration, or for now"
                " 'redis-cli config set maxmemory-policy noeviction'"
            )

    # --- whoever submits -------------------------------------------------------------------------

    def enqueue(
        self, entries: Sequence[Entry], request: str, replicas: int = 0
    ) -> list[str | None]:
        """Add tasks; gives for each None, or the id of the task in its way.

        That is its own id, if it waits or runs already, or the id of the one that holds its unique
        key. A finished record of the id is replaced. ``request`` is a short text, another one for
        each call: under the same one nothing is added twice, and the answers are the same, while
        the records are kept. What may have been done is not sent again after that time: then it
        raises :class:`ServerUnavailable`, as when patience is over.
        Returns when ``replicas`` of the server have them as well; raises
        :class:`ServerUnavailable` when they have not before its patience is over.
        """
        answers: list[str | None] = []
        for batch in _batches(entries, _size_of_entry):
            args: list[Any] = [request, len(answers)]
            for entry in batch:
                args += _arguments(entry)
            # The server knows a request by the records that it made.
            kept = max(KEPT, min(entry.result_ttl for entry in batch))
            replay = kept - _MARGIN
            reply = self.server.script(scripts.ENQUEUE, self.base, *args, replay=replay)
            if replicas:
                self._await_replicas(args, replicas)
            answers += [None if each == 1 else each.decode() for each in reply]
        return answers

    def _await_replicas(self, args: list[Any], replicas: int) -> None:
        patience = self.server.patience
        end = math.inf if patience is None else time.monotonic() + patience
        while True:
            seconds = min(_ROUND, max(0.001, end - time.monotonic()))
            found = self.server.replicated(scripts.ENQUEUE, self.base, args, replicas, seconds)
            if found >= replicas:
                return
            if time.monotonic() >= end:
                raise ServerUnavailable(
                    f"{found} of {replicas} replicas of {self.server.address} have confirmed the"
                    f" task within {patience:g} s: it is queued, and may be lost in a failover"
                )

    def cancel(self, task_id: str, reason: str = "") -> str | None:
        """Cancel a waiting task, or have the owner of a running one asked to.

        Gives the status letter after it: ``X`` it is cancelled, ``P`` its owner is asked, ``C`` or
        ``F`` it was too late; or None if it is unknown.
        """
        why = reason[:LONGEST_REASON].encode(errors="backslashreplace")
        reply = self._script(scripts.CANCEL, id_to_bytes(task_id), why)
        return None if reply is None else str(reply.decode())

    def watch(
        self, channel: str, ids: Iterable[str], progress: bool = False
    ) -> list[Record | None]:
        """Have ``channel`` told of the ends of tasks, and of their progress; gives their records.

        No end is missed: it is in the record, or will be told. None stands for an unknown one.
        """
        wanted = list(ids)
        records: list[Record | None] = []
        while len(records) < len(wanted):
            some = map(id_to_bytes, wanted[len(records) : len(records) + BATCH])
            reply = self._script(scripts.WATCH, channel, int(progress), *some)
            records += [record_of(*each) if each else None for each in reply]
        return records

    def record(self, task_id: str) -> Record | None:
        """The record of a task, or None."""
        reply = self._script(scripts.SHOW, id_to_bytes(task_id))
        return record_of(*reply) if reply else None

    def envelope(self, task_id: str) -> bytes | None:
        """The envelope of a task that has not ended, or has failed; None if there is none."""
        reply = self.server.call(
            self.base, "GET", f"{self.base}:p:".encode() + id_to_bytes(task_id)
        )
        return None if reply is None else bytes(reply)

    def holder(self, unique: str) -> str | None:
        """The task that holds a unique key, in the form in which records have it."""
        reply = self.server.call(self.base, "HGET", f"{self.base}:u", unique)
        return None if reply is None else str(reply.decode())

    def delayed(self) -> set[str]:
        """The tasks that wait for their time."""
        reply = self.server.call(self.base, "ZRANGE", f"{self.base}:dl", 0, -1)
        return {task_id.decode() for task_id in reply}

    def delete(self, task_id: str) -> bool:
        """Forget a task that is not running; gives whether it was there.

        Whoever waits for a waiting one is told that it was cancelled. If the server's reply was
        lost on the way, it may give False although it was there.
        """
        return bool(self._script(scripts.DELETE, id_to_bytes(task_id), 0))

    def find(self, statuses: str = "WPCFX", offset: int = 0, limit: int = 50) -> list[Record]:
        """Records with these status letters, in order of submission."""
        return find(self.server, self.base, _indexes(statuses), offset, limit)

    def counts(self) -> Counts:
        """How many tasks stand how, exactly, whatever their number."""
        *numbers, paused = self._script(scripts.COUNTS)
        return Counts._make((*numbers, bool(paused)))

    def pause(self) -> None:
        """Hand out nothing any more; what runs goes on."""
        self._script(scripts.PAUSE, 1)

    def resume(self) -> None:
        """Hand out tasks again."""
        self._script(scripts.PAUSE, 0)

    def requeue(self, ids: Iterable[str]) -> int:
        """Send failed tasks back to wait, their attempts counted from 1 again; gives how many.

        Those that are not failed, or whose unique key another task holds, stay as they are.
        """
        request = secrets.token_hex(6)
        batches = _batches([id_to_bytes(each) for each in ids], len)
        return sum(self._script(scripts.REQUEUE, request, *batch) for batch in batches)

    # --- owners ----------------------------------------------------------------------------------

    def beat(self, owner: str, lease: float, first: bool = False) -> Beat:
        """Renew the lease of an owner, from now for so many seconds, and keep house.

        To be called several times in each lease: if nobody does for half of one, the server is
        taken to have been away, and every owner gets a fresh lease. ``first`` makes the owner
        known; one whose lease was lost never comes back under its name.
        """
        reply = self._script(scripts.BEAT, owner, _milliseconds(lease), int(first))
        lost, owned, cancels, due, paused, reaped, swept, end = reply
        asked = [
            Cancel(id_of(task_id), int(token), reason.decode(errors="replace"))
            for task_id, token, reason in zip(*[iter(cancels)] * 3, strict=True)
        ]
        return Beat(bool(lost), owned, asked, _due(due), bool(paused), reaped, swept, _due(end))

    def turn(
        self,
        owner: str,
        request: str,
        settlements: Sequence[Settlement],
        sync: int,
        asyncs: int,
        lease: float,
        free: tuple[int, int] | None = None,
    ) -> Turn:
        """Settle what came to an end, and claim up to ``sync`` and ``asyncs`` tasks of each kind.

        Both may be empty; 128 tasks at most are claimed, and the lease is renewed. Under the same
        ``request``, another one for each turn, it gives the same batch again. An owner that has
        ``free`` places, for tasks that could begin at once (as many as it claims if None), is
        parked if nothing is left for them, and woken on its channel.
        """
        verdicts: list[int] = []
        batches = list(_batches(settlements, _size_of_settlement)) or [settlements]
        for batch in batches[:-1]:
            verdicts += self._turn(owner, request, batch, (0, 0), lease, (0, 0)).verdicts
        room = sync, asyncs
        turn = self._turn(owner, request, batches[-1], room, lease, room if free is None else free)
        return turn._replace(verdicts=verdicts + turn.verdicts) if verdicts else turn

    def _turn(
        self,
        owner: str,
        request: str,
        settlements: Sequence[Settlement],
        room: tuple[int, int],
        lease: float,
        free: tuple[int, int],
    ) -> Turn:
        args: list[Any] = [owner, request, _milliseconds(lease), *room, *free]
        for task_id, token, outcome, end, result, delay in settlements:
            raw = task_id if task_id.isascii() else id_to_bytes(task_id)
            args += (raw, token, outcome, _milliseconds(delay), body_of(end, result))
        reply = self._script(scripts.TURN, *args)
        lost, verdicts, flat, due, left_sync, left_async, *parked = reply
        claims = [
            Claim(id_of(task_id), int(token), attempt, losses, _due(within), envelope)
            for task_id, token, attempt, losses, within, envelope in zip(
                *[iter(flat)] * 6, strict=True
            )
        ]
        woken_for = (bool(parked[0]), bool(parked[1]))
        return Turn(bool(lost), verdicts, claims, _due(due), left_sync, left_async, woken_for)

    def progress(self, owner: str, updates: Sequence[tuple[str, int, bytes]]) -> int:
        """Keep how far running tasks are, each an id, its token and a blob; gives how many it was.

        What the owner does not hold under that token is left out.
        """
        kept = 0
        for batch in _batches(updates, _size_of_update):
            args = [each for up in batch for each in (id_to_bytes(up[0]), *up[1:])]
            kept += self._script(scripts.PROGRESS, owner, *args)
        return kept

    def owned(self, owner: str) -> dict[str, int]:
        """The tasks that an owner holds, and their tokens."""
        flat = self.server.call(self.base, "HGETALL", f"{self.base}:o:{owner}")
        return {
            id_of(task_id): int(token) for task_id, token in zip(flat[::2], flat[1::2], strict=True)
        }

    def vow(self, owner: str, task_id: str, token: int) -> bool:
        """Mark a running task as one that is never handed out again; False if it is not held."""
        return bool(self._script(scripts.VOW, owner, id_to_bytes(task_id), token))

    def resign(self, owner: str) -> None:
        """The clean end of an owner: what it still holds goes back, not counted.

        Those that may be handed out once have perhaps run, and fail.
        """
        while self._script(scripts.RESIGN, owner):
            pass

    def owners(self) -> int:
        """How many owners hold a lease, or are about to lose it."""
        return int(self.server.call(self.base, "ZCARD", f"{self.base}:own"))

    def announce(self, kinds: Mapping[str, str]) -> None:
        """Tell which tasks an owner can run: names, each with its kind (``sync``, ``async``)."""
        if kinds:
            flat = [text for pair in kinds.items() for text in pair]
            self.server.call(self.base, "HSET", f"{self.base}:names", *flat)

    def names(self) -> dict[str, str]:
        """The names that owners have ever announced, each with its kind."""
        flat = self.server.call(self.base, "HGETALL", f"{self.base}:names")
        return {
            name.decode(): kind.decode() for name, kind in zip(flat[::2], flat[1::2], strict=True)
        }

    def _script(self, script: scripts.Script, *args: Any) -> Any:
        return self.server.script(script, self.base, *args)


def find(
    server: Server, base: str, indexes: Sequence[str], offset: int, limit: int
) -> list[Record]:
    """A page of the records that are listed in ``indexes``, in order of submission."""
    found: list[Record] = []
    after = 0
    while len(found) < limit:
        most = min(BATCH, limit - len(found))
        reply = server.script(scripts.FIND, base, "whole", after, offset, most, *indexes)
        if not reply:
            break
        found += [record_of(*each) for *each, _ in reply]
        after, offset = reply[-1][-1], 0
    return found


def find_among(
    ledgers: Sequence[Ledger], statuses: str, offset: int, limit: int
) -> list[tuple[Ledger, Record]]:
    """A page of the records of several queues, in order of submission by the server's clock."""
    skipped = [0] * len(ledgers)
    if len(ledgers) == 1:
        skipped[0] = offset
    elif offset:
        heads = [_heads(number, ledger, statuses) for number, ledger in enumerate(ledgers)]
        for number, _ in itertools.islice(heapq.merge(*heads, key=_second), offset):
            skipped[number] += 1
    pages = [
        [(ledger, record) for record in ledger.find(statuses, first, limit)]
        for ledger, first in zip(ledgers, skipped, strict=True)
    ]
    merged = heapq.merge(*pages, key=_created)
    return list(itertools.islice(merged, limit))


def _heads(number: int, ledger: Ledger, statuses: str) -> Iterator[tuple[int, float]]:
    """``number`` and when it was submitted, for each record, without its contents."""
    indexes = _indexes(statuses)
    after = 0
    while reply := ledger.server.script(
        scripts.FIND, ledger.base, "heads", after, 0, _HEADS, *indexes
    ):
        for sequence, created in zip(reply[::2], reply[1::2], strict=True):
            after = int(sequence)
            yield number, int(created or 0)


def _second(pair: tuple[int, float]) -> float:
    return pair[1]


def _created(found: tuple[Ledger, Record]) -> float:
    return found[1].created * 1000


def _indexes(statuses: str) -> list[str]:
    return [index for letter in dict.fromkeys(statuses) for index in INDEXES[letter]]


# --- what the scripts take -----------------------------------------------------------------------


def id_of(raw: bytes) -> str:
    """An id as text; one that another party wrote may have bytes that are no UTF-8."""
    return raw.decode(errors="surrogateescape")


def id_to_bytes(task_id: str) -> bytes:
    """The bytes that :func:`id_of` made this text of; for any other text, those of no task."""
    try:
        return task_id.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        return task_id.encode(errors="surrogatepass")


def _arguments(entry: Entry) -> tuple[Any, ...]:
    unique = entry.unique
    if len(unique.encode()) > LONGEST_KEY:
        unique = hashlib.sha1(unique.encode(), usedforsecurity=False).hexdigest()
    return (
        entry.id,
        entry.name,
        entry.kind,
        entry.priority,
        _milliseconds(entry.delay),
        _milliseconds(entry.eta),
        _milliseconds(entry.ttl),
        _milliseconds(entry.result_ttl),
        entry.max_losses,
        int(entry.once),
        unique,
        entry.reply,
        entry.envelope,
    )


def _milliseconds(seconds: float) -> int:
    """At least one where it is above none."""
    return math.ceil(seconds * 1000) if seconds > 0 else 0


def _due(milliseconds: int) -> float | None:
    return None if milliseconds < 0 else milliseconds / 1000


def _batches(items: Sequence[_Item], size: Callable[[_Item], int]) -> Iterator[Sequence[_Item]]:
    """The items in parts that are small enough for one script each."""
    start = total = 0
    for at, item in enumerate(items):
        total += size(item)
        if at > start and (at - start == BATCH or total > BATCH_BYTES):
            yield items[start:at]
            start, total = at, size(item)
    if start < len(items):
        yield items[start:] if start else items


def _size_of_entry(entry: Entry) -> int:
    return len(entry.envelope)


def _size_of_settlement(settlement: Settlement) -> int:
    return len(settlement.result) + len(settlement.end)


def _size_of_update(update: tuple[str, int, bytes]) -> int:
    return len(update[2])


def _setting(reply: Any) -> str:
    """The value in the reply to ``CONFIG GET``, whichever protocol it came by."""
    values = list(reply.values()) if isinstance(reply, dict) else reply[1::2]
    return values[0].decode() if values else ""
