"""The queue on a server, shared by the managers of many hosts.

A :class:`Berth` is one manager's place at one named queue: under which name it owns tasks there,
which ones, and what it has yet to say of them. The class in the middle is the plain contract of
every queue, a call at a time; a manager works with the berths, many tasks with each trip.
"""

from __future__ import annotations

import collections
import functools
import itertools
import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from gtaskman.backoff import Backoff
from gtaskman.envelope import (
    TASK_LIMIT,
    Hints,
    Keyring,
    Sealed,
    read_own_result,
    read_task,
    seal_result,
    sign_result,
)
from gtaskman.errors import (
    ConfigurationError,
    EnvelopeError,
    ServerError,
    TaskDefinitionError,
)
from gtaskman.job import Job
from gtaskman.queues.base import TaskQueue
from gtaskman.queues.sending import Call, Sealer, check_entered, send_back
from gtaskman.redis.address import Address
from gtaskman.redis.keys import owner_channel
from gtaskman.redis.ledger import STALE, Claim, Counts, Ledger, Settlement, id_of
from gtaskman.redis.outage import LONGEST_PAUSE
from gtaskman.redis.record import end_of, no_result, reading_of
from gtaskman.redis.server import Server
from gtaskman.report import Failure, FailureKind, Report, TaskStatus
from gtaskman.task import Definition, Task, registry
from gtaskman.wire.messages import CHUNK, SEALED
from gtaskman.wire.payload import Payload, decode_arguments

log = logging.getLogger(__name__)

BATCH = 128  # tasks that one trip settles, and that it brings
_NOT_PARKED = (False, False)
_AGAIN = 0.2  # seconds until a task that could not be taken in is claimed again
_KEPT = 4096  # of definitions under limits of their senders, and of tokens that went back
_FENCES = ("auto", "always")
_NOTHING = seal_result(None)
LEASE = 10.0  # seconds that an owner may be silent before its tasks are given to others


class RedisJob(Job, gc=False, eq=False):
    """A task that this manager owns on the server, while its lease and its token hold."""

    token: int = 0
    berth: Berth = None  # type: ignore[assignment] # see of()
    sealed: bytes = b""  # its result, as its worker has sealed it

    @classmethod
    def of(
        cls, task_id: str, sealed: Sealed, definition: Definition, envelope: bytes, berth: Berth
    ) -> RedisJob:
        """The task that an envelope holds."""
        job = cls(task_id, definition, Payload(SEALED, envelope, ()), sealed.created)
        job.berth = berth
        if berth.prefix:
            job.key = berth.prefix + task_id
        if sealed.options.get("chunk"):
            job.flags = CHUNK
        return job

    def claimed_by(self, claim: Claim) -> RedisJob:
        """It is ours now."""
        self.token, self.attempt = claim.token, claim.attempt
        self.crashes = self.losses = claim.losses
        if claim.start_within is not None:
            self.start_by = time.monotonic() + claim.start_within
        self.claimed = True
        return self

    def completed_report(self, result: Any, size: int, started: float, ended: float) -> Report:
        """Its last report; the result stays sealed: it is for whoever sent the task."""
        self.sealed = result or b""
        return super().completed_report(None, size, started, ended)

    def full(self, report: Report) -> Report:
        """The report with its result, for those who listen here."""
        if not self.sealed:
            return report
        hints = Hints.of(self.definition.target)
        try:
            value = read_own_result(self.sealed, hints)
        except Exception as error:
            log.warning(
                "listeners get the report of task %s without its result, which cannot be read: %s",
                self.id,
                error,
            )
            return report
        return msgspec.structs.replace(report, result=value)

    def settlement(self, report: Report) -> Settlement:
        """What the server is told of its end."""
        completed = report.status is TaskStatus.COMPLETED
        signed = completed and (bool(self.sealed) or self.berth.signed)
        result = self.berth.sign(self) if signed else b""
        return Settlement(self.id, self.token, _OUTCOMES[report.status], end_of(report), result)

    def retrial(self, delay: float) -> Settlement:
        """It failed, and waits ``delay`` seconds before it tries again."""
        # Workers that died under it count beside owners that did: too many make it poison.
        outcome = "L" if self.crashes > self.losses else "R"
        return Settlement(self.id, self.token, outcome, delay=delay)

    def refund(self) -> Settlement:
        """It goes back to its old place; this attempt does not count.

        Unless a worker has died while it read the task: that counts, and the task waits behind
        the others.
        """
        if self.crashes > self.losses:
            return self.retrial(0.0)
        return Settlement(self.id, self.token, "B")

    def interrupted(self) -> Settlement:
        """It was stopped because its lease may end before the server can be asked.

        If it may have begun this counts as a loss, and one that may run only once has failed.
        """
        once = self.definition.at_most_once
        begun = self.in_worker and (once or self.running)
        return Settlement(self.id, self.token, "L") if begun else self.refund()


_OUTCOMES = {TaskStatus.COMPLETED: "C", TaskStatus.FAILED: "F", TaskStatus.CANCELLED: "X"}


class Room(NamedTuple):
    """What an owner has room for: tasks that it may claim, and those that could begin at once."""

    sync: int
    asyncs: int
    free_sync: int
    free_async: int


NO_ROOM = Room(0, 0, 0, 0)


class Fetched(NamedTuple):
    """What a turn brought: jobs, and seconds until the next delayed task is due (or None)."""

    jobs: list[RedisJob]
    next_due: float | None


class LeaseLost(Exception):
    """Raised when the server has given this owner up, and its tasks to others."""


class Berth:
    """One manager's place at one queue."""

    def __init__(self, ledger: Ledger, reader: Reader, lease: float, prefix: str = "") -> None:
        self.ledger = ledger
        self.lease = lease
        self.prefix = prefix  # of the keys of its jobs: two queues may have the same id
        self.held: dict[str, RedisJob] = {}  # what we own and have not settled
        self.outbox: list[Settlement] = []  # what the server does not know yet
        self.parked = _NOT_PARKED  # the kinds, sync and async, for which the server wakes us
        self.good_until = 0.0  # the monotonic time until which the lease holds for certain
        self.left = (0, 0)  # sync and async tasks that were ready beside what we took
        self.owner = _fresh_owner()
        self.entered = False  # it holds a lease under this name
        self.woken = True  # the server, or time, gives a reason for a turn
        self.is_stopping: Callable[[str], bool] = _never  # whether an old run of this key goes on
        self._announced = False
        self._drained = _NOT_PARKED  # the kinds of which nothing was left at the last turn
        self._unheard: set[tuple[str, int]] = set()  # booked on us, as of the last heartbeat
        # Tokens of those that were, and went back; the last ones, in case their messages come late.
        self._given_back: collections.deque[int] = collections.deque(maxlen=_KEPT)
        self._calls = 0  # how often the server has woken us
        self._reader = reader
        self._requests = itertools.count(1)

    def renew(self) -> None:
        """Begin again under a new name; what was held under the old one is lost."""
        self.held.clear()
        self.outbox.clear()
        self.parked = self._drained = _NOT_PARKED
        self.left = (0, 0)
        self._unheard = set()
        self._given_back.clear()
        self.owner = _fresh_owner()
        self.entered = False
        self.woken = True

    def enter(self, now: float) -> None:
        """Take up the lease; ``now`` is a monotonic time."""
        self.ledger.beat(self.owner, self.lease, first=True)
        self.entered = True
        self.good_until = now + self.lease
        self.announce()

    def announce(self) -> None:
        """Tell the server which tasks can be run here, unless it knows; a failure is logged."""
        if self._announced:
            return
        try:
            self.ledger.enter_index()
            self.ledger.announce({name: each.kind for name, each in registry.items()})
            self._announced = True
        except ServerError as error:
            log.warning(
                "the server does not take note of the tasks known here, and is told again: %s",
                error,
            )

    def turn(self, room: Room, now: float) -> Fetched:
        """Settle what is in the outbox, and claim what there is ``room`` for, in one trip.

        Raises :class:`LeaseLost`. Tasks that cannot be read are FAILED with the next trip.
        """
        batch, calls = self.outbox[:BATCH], self._calls
        sync, asyncs, *free = room
        self.woken = False
        try:
            reply = self.ledger.turn(
                self.owner, self.request(), batch, sync, asyncs, self.lease, (free[0], free[1])
            )
        except BaseException:
            self.woken = True
            raise
        del self.outbox[: len(batch)]
        if reply.lost:
            raise LeaseLost
        for settled, verdict in zip(batch, reply.verdicts, strict=True):
            if verdict == STALE:
                log.warning("the end of task %s came too late: others have it now", settled.id)
        self.left = (reply.left_sync if sync else 0, reply.left_async if asyncs else 0)
        self.parked = reply.parked
        self._drained = not reply.left_sync, not reply.left_async
        if self._calls != calls:
            # We were parked and woken again before we heard of the first.
            self.parked = self._drained = _NOT_PARKED
            self.woken = True
        self.good_until = max(self.good_until, now + self.lease)
        jobs = [job for claim in reply.claims if (job := self._take(claim)) is not None]
        return Fetched(jobs, reply.next_due)

    def request(self) -> str:
        """A name for one more command, by which the server knows it if it is sent again."""
        return f"{next(self._requests):x}"

    def _take(self, claim: Claim) -> RedisJob | None:
        """The job of a claim, which is held from now on; None if it was settled right away."""
        job = self.job_of(claim.id, claim.envelope)
        if isinstance(job, str):
            log.error("task %r cannot be run: %s", claim.id, job)
            self.outbox.append(_unreadable(claim, job))
            return None
        old = self.held.get(claim.id)
        if old is not None and old.token == claim.token:
            return None  # told twice
        if old is not None or self.is_stopping(job.key):
            self.outbox.append(Settlement(claim.id, claim.token, "B", delay=_AGAIN))
            return None
        if job.definition.at_most_once and not self._vow(claim):
            return None
        self.held[claim.id] = job.claimed_by(claim)
        return job

    def _vow(self, claim: Claim) -> bool:
        """Have the server note that it is never handed out again; whether it may run here."""
        try:
            return self.ledger.vow(self.owner, claim.id, claim.token)
        except ServerError as error:
            log.warning(
                "task %s goes back: the server does not take note that it may run only once: %s",
                claim.id,
                error,
            )
            self.outbox.append(Settlement(claim.id, claim.token, "B", delay=_AGAIN))
            return False

    def must_ask(self, claim: Claim) -> bool:
        """Whether the server is asked before this task may run, which takes a trip."""
        job = self.job_of(claim.id, claim.envelope)
        return isinstance(job, RedisJob) and job.definition.at_most_once

    def take_over(self, claim: Claim, room: int) -> RedisJob | None:
        """A task that was handed to us unasked; ``room`` is how many more the server thinks we
        have place for. None if we cannot run it, or gave it back before the message came."""
        if claim.token in self._given_back:
            return None
        job = self._take(claim)
        if room <= 0 and job is not None:
            is_async = job.definition.is_async
            self.parked = (self.parked[0] and is_async, self.parked[1] and not is_async)
        return job

    @property
    def suspects(self) -> bool:
        """Whether the server books on us what we may yet hear of: the next look will tell."""
        return bool(self._unheard)

    def stray(self, owned: dict[str, int]) -> list[Settlement]:
        """What the server books on us, and we have not heard of for two heartbeats: it goes back.

        After one, the message may still be on its way.
        """
        settled = {each.id for each in self.outbox}
        unheard = {
            (task_id, token)
            for task_id, token in owned.items()
            if task_id not in settled
            and (task_id not in self.held or self.held[task_id].token != token)
        }
        strayed = unheard & self._unheard
        self._unheard = unheard - strayed
        self._given_back.extend(token for _, token in strayed)
        return [Settlement(task_id, token, "B") for task_id, token in strayed]

    def job_of(self, task_id: str, envelope: bytes) -> RedisJob | str:
        """The job of an envelope, or in words why there is none."""
        try:
            read = self._reader.read(task_id, envelope)
        except Exception as error:  # what another party has written must not stop this one
            log.exception("the envelope of task %r cannot be read", task_id)
            return f"its envelope cannot be read: {type(error).__name__}: {error}"
        if isinstance(read, str):
            return read
        return RedisJob.of(task_id, *read, envelope, self)

    @property
    def signed(self) -> bool:
        """Whether what comes was signed by somebody we trust."""
        return self._reader.keyring is not None

    def sign(self, job: RedisJob) -> bytes:
        """The result of a completed job, signed if we have the keys; that of None, too."""
        return sign_result(
            job.sealed or _NOTHING,
            self._reader.keyring,
            queue=self.ledger.base,
            task_id=job.id,
            name=job.definition.name,
        )

    def wants(self, room: Room) -> bool:
        """Whether a turn has a use: there may be something to claim, or free places to be told."""
        if self.woken:
            return True
        sync, asyncs, free_sync, free_async = room
        return bool(
            (sync and not self._drained[0])
            or (asyncs and not self._drained[1])
            or (free_sync and not self.parked[0])
            or (free_async and not self.parked[1])
        )

    def wake(self) -> None:
        """There may be something, the server says; a turn also wakes others, if it is for them."""
        self._calls += 1
        self.parked = self._drained = _NOT_PARKED
        self.woken = True

    def subscribe(
        self, on_message: Callable[[Berth, bytes], None], on_again: Callable[[Berth], None]
    ) -> Any:
        """Hear what the server has to say to this owner."""
        base = self.ledger.base
        return self.ledger.server.subscribe(
            base,
            owner_channel(base, self.owner),
            functools.partial(on_message, self),
            functools.partial(on_again, self),
        )

    def settle(self, job: RedisJob, settlement: Settlement) -> None:
        """It is ours no longer: said with the next trip."""
        if self.held.get(job.id) is job:
            del self.held[job.id]
            self.outbox.append(settlement)


def _never(_key: str) -> bool:
    return False


def _unreadable(claim: Claim, why: str) -> Settlement:
    report = Report(
        claim.id,
        "?",
        "sync",
        TaskStatus.FAILED,
        0.0,
        error=Failure(FailureKind.ERROR, why, exc_type="gtaskman.errors.EnvelopeError"),
        attempt=claim.attempt,
    )
    return Settlement(claim.id, claim.token, "F", end_of(report), b"", 0.0)


def _fresh_owner() -> str:
    return os.urandom(9).hex()


class Reader:
    """Envelopes -> what is to be run: by names of the registry, never by what a message says."""

    def __init__(self, accept: str, keyring: Keyring | None, queue: str, limit: int) -> None:
        self.keyring = keyring
        self._accept, self._queue, self._limit = accept, queue, limit
        self._known: dict[tuple[str, str], Definition] = {}

    def read(self, task_id: str, envelope: bytes) -> tuple[Sealed, Definition] | str:
        """The header and the definition, or in words why there is none."""
        try:
            sealed = read_task(
                envelope,
                accept=self._accept,
                keyring=self.keyring,
                queue=self._queue,
                task_id=task_id,
                limit=self._limit,
            )
        except EnvelopeError as error:
            return str(error)
        definition = registry.get(sealed.name)
        if definition is None:
            return (
                f"no task named {sealed.name!r} is known to this manager: import the module that"
                " defines it before the manager starts"
            )
        if not sealed.options:
            return sealed, definition
        try:
            return sealed, self._under(definition, sealed.options)
        except (TaskDefinitionError, ConfigurationError, TypeError) as error:
            return f"its sender's limits make no sense: {error}"

    def _under(self, definition: Definition, options: dict[str, Any]) -> Definition:
        """The definition under the limits of the sender."""
        key = (definition.name, repr(options))
        known = self._known.get(key)
        if known is None:
            limits = {name: value for name, value in options.items() if name != "chunk"}
            if "backoff" in limits:
                limits["backoff"] = Backoff(**limits["backoff"])
            if len(self._known) >= _KEPT:
                self._known.clear()
            known = self._known[key] = definition.replace(**limits) if limits else definition
        return known


class RedisTaskQueue(TaskQueue):
    """A queue on a Redis or Valkey server; its ``url`` may also be the name of a manager's queue.

    ``url`` may be a ``redis.Redis``, whose settings are taken over; ``credentials`` is as those
    of :class:`Client`.

    ``queues`` are the names that a manager serves, the first ones first; what is enqueued without
    a name goes to the first. ``namespace`` keeps applications on one server apart. ``lease`` are
    the seconds for which an owner may be silent. ``accept`` are the codecs that are let in
    (letters of :mod:`gtaskman.envelope`), ``keyring`` the keys that must have signed what comes.

    While no heartbeat gets through, a manager stops its tasks before its lease ends, unless the
    server refuses connections, or loads its data: then it serves nobody else either. Where a proxy
    or a firewall may refuse this host alone, ``fence="always"`` stops them in that case as well.

    Each method is one trip to the server, or more; a manager works with :meth:`berths` instead.
    Raises :class:`ConfigurationError` for an unknown ``fence``.
    """

    remote = True

    def __init__(
        self,
        url: Any,
        *,
        queues: Sequence[str] = ("default",),
        namespace: str | None = None,
        lease: float = LEASE,
        accept: str = "jm",
        keyring: Keyring | None = None,
        max_envelope: int = TASK_LIMIT,
        patience: float | None = None,
        fence: str = "auto",
        credentials: Any = None,
    ) -> None:
        if fence not in _FENCES:
            raise ConfigurationError(f"fence={fence!r} is neither 'auto' nor 'always'", "fence")
        self._fence = fence
        self.address = Address.of(url, credentials)
        self.namespace = namespace or self.address.namespace
        self.queues = tuple(queues)
        self.name = self.queues[0]
        self.lease = lease
        self.keyring = keyring
        self._accept = accept
        self._max_envelope = max_envelope
        self._sealer = Sealer("json", keyring, max_envelope)
        # A lease must not end while the next try is waited for.
        longest = min(LONGEST_PAUSE, lease / 8)
        self._server = Server(self.address, patience=patience, longest_pause=longest)
        self._own: list[Berth] = []
        self._ledgers: list[Ledger] = []
        self._handed: list[tuple[Berth, Handed]] = []  # claimed for us, and not asked for yet
        self._available: list[Callable[[], None]] = []
        self._subscriptions: list[Any] = []

    @property
    def ledgers(self) -> list[Ledger]:
        """The records of each of the queues."""
        if not self._ledgers:
            self._ledgers = [Ledger(self._server, self.namespace, name) for name in self.queues]
        return self._ledgers

    def berths(self) -> list[Berth]:
        """A place at each of the queues, for one manager. Raises what connecting raises."""
        self.ledgers[0].check_server()
        return [self._berth(ledger) for ledger in self.ledgers]

    def _berth(self, ledger: Ledger) -> Berth:
        reader = Reader(self._accept, self.keyring, ledger.base, self._max_envelope)
        return Berth(ledger, reader, self.lease, self.prefix(ledger.queue))

    def prefix(self, name: str) -> str:
        """What stands before the ids of one of the queues where ids of several are told apart."""
        return "" if name == self.name else f"{name}\n"

    @property
    def cut_off(self) -> bool | None:
        """Whether the server may be serving others while it does not serve us; None while it does.

        A server that refuses connections, or loads its data, serves nobody, unless
        ``fence="always"`` says that a refusal may concern this host alone.
        """
        cut_off = self._server.cut_off
        return True if cut_off is False and self._fence == "always" else cut_off

    def close(self) -> None:
        """Let go of the server."""
        for subscription in self._subscriptions:
            subscription.close()
        self._server.close()

    # --- the contract, a call at a time

    def on_available(self, callback: Callable[[], None]) -> None:
        self._available.append(callback)
        if len(self._available) == 1:
            for berth in self._places():
                self._subscriptions.append(berth.subscribe(self._on_call, _nothing))

    def _on_call(self, berth: Berth, data: bytes) -> None:
        berth.wake()
        call = read_call(data)
        if isinstance(call, Handed):
            self._handed.append((berth, call))
        for callback in self._available:
            callback()

    def enqueue(self, job: Job | Task) -> None:
        definition = job.definition
        if isinstance(job, Task):
            if registry.get(definition.name) is not definition:
                raise TaskDefinitionError(
                    f"{definition.name}: a queue takes tasks under their registered name and"
                    " limits; submit one with limits of its own through a Client"
                )
            args, kwargs = job.arguments()
            unique = definition.unique_key(job.terms.unique, args, kwargs)
        else:
            load, unique = job.payload, job.unique
            args, kwargs = decode_arguments(load.flags, load.body, load.buffers)
        call = Call(
            job.id,
            definition.name,
            definition.kind,
            args,
            kwargs,
            {},
            job.terms,
            unique,
            definition,
        )
        berth = self._places()[0]
        entry = self._sealer.entry(call, berth.ledger.base, "")
        check_entered([entry], berth.ledger.enqueue([entry], os.urandom(6).hex()))

    def claim(self, sync: int, asyncs: int) -> list[Job]:
        jobs: list[Job] = []
        for berth, (claim, room) in self._taken_out(sync, asyncs):
            job = berth.take_over(claim, room)
            if job is not None:
                jobs.append(job)
                sync, asyncs = (sync, asyncs - 1) if job.definition.is_async else (sync - 1, asyncs)
        for berth in self._places():
            fetched = berth.turn(Room(sync, asyncs, sync, asyncs), time.monotonic()).jobs
            self._say(berth)
            jobs.extend(fetched)
            taken = sum(job.definition.is_async for job in fetched)
            sync, asyncs = sync - (len(fetched) - taken), asyncs - taken
        return jobs

    def _taken_out(self, sync: int, asyncs: int) -> list[tuple[Berth, Handed]]:
        """What has been handed over already, as far as it is asked for."""
        taken = []
        for each in list(self._handed):
            berth, (claim, _) = each
            job = berth.job_of(claim.id, claim.envelope)
            is_async = isinstance(job, RedisJob) and job.definition.is_async
            if (asyncs if is_async else sync) > 0:
                sync, asyncs = (sync, asyncs - 1) if is_async else (sync - 1, asyncs)
                self._handed.remove(each)
                taken.append(each)
        return taken

    def refund(self, jobs: Iterable[Job]) -> None:
        for job in jobs:
            assert isinstance(job, RedisJob)
            job.berth.settle(job, job.refund())
            self._say(job.berth)

    def retry(self, job: Job, delay: float = 0.0) -> None:
        assert isinstance(job, RedisJob)
        job.berth.settle(job, job.retrial(delay))
        self._say(job.berth)

    def settle(self, job: Job, report: Report) -> None:
        assert isinstance(job, RedisJob)
        job.berth.settle(job, job.settlement(report))
        self._say(job.berth)

    def cancel(self, task_id: str) -> Job | None:
        for berth in self._places():
            job = self._waiting(berth, task_id)
            if job is not None:
                return job if berth.ledger.cancel(task_id, "") == "X" else None
        return None

    def _waiting(self, berth: Berth, task_id: str) -> Job | None:
        record = berth.ledger.record(task_id)
        if record is None or record.status != "W":
            return None
        envelope = berth.ledger.envelope(task_id)
        job = berth.job_of(task_id, envelope) if envelope is not None else None
        return job if isinstance(job, Job) else None

    def drop(self) -> list[Job]:
        dropped = []
        for ledger in self.ledgers:
            delayed = ledger.delayed()
            for record in ledger.find("W", 0, ledger.counts().waiting):
                job = self.cancel(record.id) if record.id not in delayed else None
                if job is not None:
                    dropped.append(job)
        return dropped

    def due(self) -> float | None:
        return None  # the server sees to what is delayed, and wakes whoever may take it

    def expired(self) -> list[Job]:
        return []  # the server settles them

    def pause(self) -> None:
        for ledger in self.ledgers:
            ledger.pause()

    def resume(self) -> None:
        for ledger in self.ledgers:
            ledger.resume()

    @property
    def paused(self) -> bool:  # type: ignore[override] # it is the server's to say
        return self.ledgers[0].counts().paused

    def dead(self, offset: int = 0, limit: int = 50) -> list[Report]:
        records = (
            record for ledger in self.ledgers for record in ledger.find("F", 0, offset + limit)
        )
        reports = [reading_of(record, no_result).report for record in records]
        return reports[offset : offset + limit]

    def revive(self, task_id: str) -> Job | None:
        for berth in self._places():
            if send_back(berth.ledger, task_id):
                return self._waiting(berth, task_id)
        return None

    def waiting(self) -> tuple[int, int]:
        every = self._counts()
        return sum(each.ready_sync for each in every), sum(each.ready_async for each in every)

    def delayed(self) -> int:
        return sum(each.delayed for each in self._counts())

    def running(self) -> int:
        return sum(each.processing for each in self._counts())

    def info(self) -> dict[str, Any]:
        every = self._counts()
        return {
            "name": ",".join(self.queues),
            "paused": any(each.paused for each in every),
            "waiting": sum(each.ready_sync + each.ready_async for each in every),
            "delayed": sum(each.delayed for each in every),
            "running": sum(each.processing for each in every),
            "dead": sum(each.failed for each in every),
            "completed": sum(each.completed for each in every),
            "cancelled": sum(each.cancelled for each in every),
        }

    def _counts(self) -> list[Counts]:
        return [ledger.counts() for ledger in self.ledgers]

    def _places(self) -> list[Berth]:
        """Our own berths, for the calls of this contract."""
        if not self._own:
            self._own = self.berths()
            for berth in self._own:
                berth.enter(time.monotonic())
        return self._own

    def _say(self, berth: Berth) -> None:
        """Send what is in the outbox."""
        while berth.outbox:
            berth.turn(NO_ROOM, time.monotonic())

    def __repr__(self) -> str:
        return f"<RedisTaskQueue {self.address} {','.join(self.queues)}>"


def _nothing(_berth: Berth) -> None:
    pass


class Handed(NamedTuple):
    """A task that the server has handed over, and how many more it thinks there is room for."""

    claim: Claim
    room: int


class Recall(NamedTuple):
    """A task that somebody wants cancelled."""

    id: str
    token: int
    reason: str


def read_call(data: bytes) -> Handed | Recall | None:
    """What an owner is told; None for a mere wake-up."""
    head, _, body = data.partition(b"\n")
    letter, *words = id_of(head).split(" ", 4)
    if letter == "t":
        token, room, ttl, task_id = words
        start_within = int(ttl) / 1000 or None
        return Handed(Claim(task_id, int(token), 1, 0, start_within, body), int(room))
    if letter == "x":
        token, task_id = id_of(head).split(" ", 2)[1:]
        return Recall(task_id, int(token), body.decode(errors="replace"))
    return None
