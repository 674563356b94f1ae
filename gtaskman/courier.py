"""``Courier``: what a manager has of a queue that it shares with other hosts.

::

    pump: plan -> claim(), out of what was fetched        on_completed ... -> settle(): the outbox
    greenlet: the outbox and a wish -> one turn on the server -> fetched -> pump

A turn settles and claims in one trip, and one is under way at a time: while the server works on
it, the hub hands out what the last one brought. Nothing asks without a reason: the server wakes
us when something waits that we may take, and a heartbeat keeps our lease.

The lease is kept by this parent, whatever its workers compute. Should it be lost, or be about to
end while the server does not answer, all tasks held under it are stopped: somebody else may run
them by then.
"""

from __future__ import annotations

import collections
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Protocol

import gevent
from gevent.event import Event

from gtaskman.backoff import Backoff
from gtaskman.config import Configuration
from gtaskman.errors import ConfigurationError, GTaskmanError
from gtaskman.job import Job
from gtaskman.loops import SupervisedLoop
from gtaskman.pool.alarm import Alarm
from gtaskman.queues.redis import (
    BATCH,
    NO_ROOM,
    Berth,
    Handed,
    LeaseLost,
    Recall,
    RedisJob,
    RedisTaskQueue,
    Room,
    read_call,
)
from gtaskman.redis.record import end_of
from gtaskman.report import Report

log = logging.getLogger(__name__)

_BEATS = 4  # heartbeats in one lease
_SOON = 0.5  # seconds until the next heartbeat where something is amiss
_AFTER = 2e-3  # seconds after the end of a lease by which the server has surely seen it
_LOOK_EVERY = 4  # heartbeats
_MANY = 16  # jobs that take as long to hand out as the server to bring more
_FLUSH = 0.25  # seconds for which progress is gathered: of each task, the latest goes
_LAST = 5.0  # seconds that the last words of a manager that ends may take
_UNPLACED = 0.02  # seconds for which what was claimed may wait for a worker before it goes back
_CHECKS = 8  # of the server, in the time that stopping tasks may take
_DOUBTS = 6  # such checks without any answer, after which the lease is taken to be about to end
_NEVER = float("inf")
_SWEPT = 512  # finished tasks that one heartbeat forgets at most


class CourierListener(Protocol):
    """What the courier asks of its manager, and tells it; always on its hub."""

    def room(self, sync: int, asyncs: int) -> tuple[int, int]:
        """How many of so many waiting tasks of each kind could be taken now."""

    def free(self) -> tuple[int, int]:
        """How many tasks of each kind could begin at once."""

    def on_fetched(self, jobs: list[Job]) -> None:
        """They have come, and wait here: :meth:`on_capacity` follows."""

    def on_capacity(self) -> None:
        """There is something to be handed out."""

    def on_recalled(self, job: Job, reason: str) -> None:
        """Somebody wants this task cancelled."""

    def on_lost(self, jobs: list[Job]) -> None:
        """They are ours no longer, and must be stopped at once: nobody hears how they end."""

    def on_returned(self, jobs: list[Job]) -> None:
        """They were fetched, and there is no room for them: others may have some."""

    def fail(self, error: BaseException) -> None:
        """No task can be fetched any more, or settled: the manager must end."""


class Courier:
    """Fetches jobs for one manager, brings back how they ended, and keeps the leases.

    To the manager's pump it looks like a queue of this process: what was fetched waits in it.
    """

    shared = True

    def __init__(self, queue: RedisTaskQueue, listener: CourierListener, grace: float) -> None:
        self._queue = queue
        self._listener = listener
        self._grace = grace  # seconds that stopping a task may take
        self._sync: collections.deque[RedisJob] = collections.deque()
        self._async: collections.deque[RedisJob] = collections.deque()
        self._handed: list[tuple[Berth, Handed]] = []  # not taken in yet
        self._written: dict[str, RedisJob] = {}  # whose progress is to be told, by key
        self._stopping: dict[str, RedisJob] = {}  # whose lease was lost, and whose runs go on
        self._berths: list[Berth] = []
        self._news = Event()
        self._quiet = False
        self._shrunk = False  # there may be less room than the server was told
        pause = min(1.0, queue.lease / _CHECKS)  # a heartbeat must still be in time
        self._server_loop = SupervisedLoop(
            f"the courier of {queue}",
            self._run,
            listener.fail,
            backoff=Backoff(first=pause, maximum=pause, jitter=0.0),
        )
        self._started = False
        self._flusher: Any = None
        self._subscriptions: dict[Berth, Any] = {}
        self._due: dict[Berth, Alarm] = {}
        self._beats: collections.Counter[Berth] = collections.Counter()
        self._next_beat = 0.0
        self._next_flush = 0.0
        self._check_at = _NEVER  # when what was fetched and not handed out goes back
        self._failing = False  # the last command ended with an error
        self._said = ""  # the last such error, which is logged once
        self._doubts = 0  # how often the fence found neither an answer nor a reason for that

    # --- life

    def start(self, loop: Any) -> None:
        """Take up the leases and begin to fetch; returns at once."""
        self._loop = loop
        self._fence = Alarm(loop)
        self._started = True
        self._server_loop.start()

    def quiet(self) -> None:
        """Fetch no more."""
        self._quiet = True
        for berth in self._berths:
            berth.woken = True  # the server must wake others from now on
        self._news.set()

    def loud(self) -> None:
        """Take a :meth:`quiet` back."""
        self._quiet = False
        self._news.set()

    def close(self) -> None:
        """Say the last words, give the leases back, and let go of the server."""
        self.quiet()
        if self._started:
            self._started = False
            self._server_loop.stop()
            if self._flusher is not None:
                self._flusher.kill(block=False)
            gevent.sleep(0)  # until they have ended
            for alarm in (self._fence, *self._due.values()):
                alarm.cancel()
            with gevent.Timeout(_LAST, False):
                self._say_last_words()
        for subscription in self._subscriptions.values():
            subscription.close()
        self._queue.close()

    def _say_last_words(self) -> None:
        try:
            for berth in self._berths:
                while berth.outbox:
                    berth.turn(NO_ROOM, time.monotonic())
                berth.ledger.resign(berth.owner)
        except (GTaskmanError, LeaseLost) as error:
            log.warning("the server could not be told of this manager's end: %s", error)

    def forget(self) -> None:
        """In a fork of the process: be a mere copy."""
        self._started = False
        self._berths = []

    # --- what the pump asks, as of any queue

    paused = False

    def configure(self, config: Configuration) -> None:
        """Nothing of it matters here."""

    def on_available(self, callback: Callable[[], None]) -> None:
        """Who is told is the listener."""

    def due(self) -> float | None:
        """None: time is the server's affair."""
        return None

    def waiting(self) -> tuple[int, int]:
        """How many jobs were fetched and wait here. Whoever asks has room for some."""
        if not self._quiet and not all(all(berth.parked) for berth in self._berths):
            self._news.set()
        return len(self._sync), len(self._async)

    def claim(self, sync: int, asyncs: int) -> list[Job]:
        """Take up to so many of each kind of what was fetched."""
        jobs: list[Job] = []
        for line, count in ((self._async, asyncs), (self._sync, sync)):
            for _ in range(min(count, len(line))):
                jobs.append(line.popleft())
        return jobs

    def settle(self, job: Job, report: Report) -> None:
        """A job has come to its end."""
        assert isinstance(job, RedisJob)
        self._written.pop(job.key, None)
        job.berth.settle(job, job.settlement(report))
        self._news.set()

    def retry(self, job: Job, delay: float = 0.0) -> None:
        """A job has failed and may try again."""
        assert isinstance(job, RedisJob)
        job.berth.settle(job, job.retrial(delay))
        self._news.set()

    def refund(self, jobs: Iterable[Job]) -> None:
        """Jobs that have not run go back to their old places."""
        for job in jobs:
            assert isinstance(job, RedisJob)
            job.berth.settle(job, job.refund())
        self._news.set()

    def restore(self, jobs: Mapping[str, Job], held: Collection[Job]) -> None:
        """What was taken by :meth:`claim` and is in no worker waits here again."""
        taken = {*held, *self._sync, *self._async}
        fetched = [job for berth in self._berths for job in berth.held.values()]
        for job in fetched:
            if job not in taken:
                (self._async if job.definition.is_async else self._sync).append(job)
            if jobs.get(job.key) is not job:
                self._listener.on_fetched([job])
        self._news.set()

    def progress(self, job: Job) -> None:
        """A job's progress is to be told; of each job, the latest."""
        assert isinstance(job, RedisJob)
        self._written[job.key] = job
        self._news.set()

    def reconsider(self) -> None:
        """A task turns out to take its time: there may be less room than the server was told."""
        if any(any(berth.parked) for berth in self._berths):
            self._shrunk = True
            self._news.set()

    def cancel(self, key: str) -> Job | None:
        """Take a job out of what was fetched, by its key."""
        for line in (self._sync, self._async):
            for job in line:
                if job.key == key:
                    line.remove(job)
                    return job
        return None

    def drop(self) -> list[Job]:
        """Everything that was fetched and waits here."""
        jobs: list[Job] = [*self._async, *self._sync]
        self._sync.clear()
        self._async.clear()
        return jobs

    # --- the greenlet

    def _run(self) -> None:
        while True:
            try:
                if not self._berths:
                    self._berths = self._queue.berths()
                for berth in self._berths:
                    if not berth.entered:
                        self._enter(berth)
                self._work()
            except ConfigurationError as error:
                # Nothing that time could mend.
                self._listener.fail(error)
                return
            except GTaskmanError as error:
                if str(error) != self._said:
                    self._said = str(error)
                    log.error("the queue %s cannot be served: %s; trying again", self._queue, error)
                self._note_failure()
                gevent.sleep(min(1.0, self._queue.lease / _CHECKS))
            except Exception:
                self._note_failure()
                raise

    def _note_failure(self) -> None:
        self._failing = True
        self._next_beat = 0.0

    def _work(self) -> None:
        while True:
            now = time.monotonic()
            if now >= self._next_beat:
                self._next_beat = now + self._queue.lease / _BEATS
                for berth in self._berths:
                    self._guarded(berth, self._beat)
                self._failing = False
                self._said = ""
                self._server_loop.progressed()
            self._news.clear()
            handed, self._handed = self._handed, []
            self._take_over(handed)
            if self._shrunk:
                self._take_back_places()
            if now >= self._check_at:
                self._return_unplaced()
            self._take_turns()
            if self._written and now >= self._next_flush:
                self._next_flush = now + _FLUSH
                self._flush()
            due = min(self._next_beat, self._check_at)
            if self._written:
                due = min(due, self._next_flush)
            self._news.wait(max(0.0, due - time.monotonic()))

    def _take_turns(self) -> None:
        """Go on from queue to queue while there is something to do, and no heartbeat is due."""
        while time.monotonic() < self._next_beat:
            turned = [self._guarded(berth, self._turn) for berth in self._berths]
            if not any(turned):
                return
        self._news.set()

    def _guarded(self, berth: Berth, act: Callable[[Berth], bool]) -> bool:
        try:
            return act(berth)
        except LeaseLost:
            log.error(
                "the lease of %s on %s was lost: its tasks are stopped, others run them",
                berth.owner,
                berth.ledger.base,
            )
            self._abandon(berth)
            self._enter(berth)
            return True

    def _take_back_places(self) -> None:
        """Have the server hand over nothing of a kind for which no place is free any more."""
        self._shrunk = False
        for berth in self._berths:
            room = self._wish(berth)
            if (berth.parked[0] and not room.free_sync) or (
                berth.parked[1] and not room.free_async
            ):
                berth.woken = True

    def _return_unplaced(self) -> None:
        """Give back what was fetched, and what no worker has room for after all."""
        self._check_at = _NEVER
        rooms = self._listener.room(len(self._sync), len(self._async))
        surplus: list[Job] = []
        for line, room in zip((self._sync, self._async), rooms, strict=True):
            surplus += [line.pop() for _ in range(len(line) - room)]
        if surplus:
            self._listener.on_returned(surplus)
        self._expect_places()

    def _expect_places(self) -> None:
        if self._check_at == _NEVER and (self._sync or self._async):
            self._check_at = time.monotonic() + _UNPLACED

    def _enter(self, berth: Berth) -> None:
        old = self._subscriptions.pop(berth, None)
        if old is not None:
            old.close()
        berth.is_stopping = self._is_stopping
        if berth not in self._due:
            self._due[berth] = Alarm(self._loop)
        self._subscriptions[berth] = berth.subscribe(self._on_message, self._on_again)
        berth.enter(time.monotonic())
        self._watch()

    def _turn(self, berth: Berth) -> bool:
        """One trip, if there is a reason for one; gives whether there may be one for another."""
        room = self._wish(berth)
        if not berth.outbox and not berth.wants(room):
            return False
        fetched = berth.turn(room, time.monotonic())
        self._watch()
        if fetched.next_due is not None:
            self._due[berth].set(fetched.next_due, self._on_due, berth)
        self._bring_in(fetched.jobs)
        return True

    def _bring_in(self, fetched: list[RedisJob]) -> None:
        # While the server was asked about one of them, others may have been stopped by the fence.
        jobs = [job for job in fetched if job.berth.held.get(job.id) is job]
        if not jobs:
            return
        for job in jobs:
            (self._async if job.definition.is_async else self._sync).append(job)
        self._listener.on_fetched(list(jobs))
        if len(jobs) < _MANY:
            self._listener.on_capacity()
        else:
            # They are handed out while the server is at the next trip.
            self._loop.run_callback(self._listener.on_capacity)
        self._expect_places()

    def _wish(self, berth: Berth) -> Room:
        if self._quiet:
            return NO_ROOM
        held = len(self._sync), len(self._async)
        sync, asyncs = self._listener.room(BATCH + held[0], BATCH + held[1])
        free_sync, free_async = self._listener.free()
        # As long as an earlier queue has some left, a later one is not asked.
        earlier = self._berths[: self._berths.index(berth)]
        sync = 0 if any(each.left[0] for each in earlier) else max(0, sync - held[0])
        asyncs = 0 if any(each.left[1] for each in earlier) else max(0, asyncs - held[1])
        free_sync, free_async = max(0, free_sync - held[0]), max(0, free_async - held[1])
        return Room(sync, asyncs, min(sync, free_sync), min(asyncs, free_async))

    def _beat(self, berth: Berth) -> bool:
        """Keep the lease; hear of cancels that nobody told us, and of tasks gone astray."""
        sent = time.monotonic()
        beat = berth.ledger.beat(berth.owner, berth.lease)
        if beat.lost:
            raise LeaseLost
        berth.good_until = max(berth.good_until, sent + berth.lease)
        self._doubts = 0
        self._watch()
        self._beats[berth] += 1
        look = self._beats[berth] % _LOOK_EVERY == 0
        if look:
            berth.wake()  # a look for ourselves now and then, lest a call was lost
            berth.announce()
        for task_id, token, reason in beat.cancels:
            self._recall(berth, task_id, token, reason)
        # As many strays as phantoms hide each other from who only counts.
        if beat.owned != len(berth.held) + len(berth.outbox) or (look and beat.owned):
            self._reconcile(berth)
        if beat.next_end is not None:
            # Sooner than our next beat only if its owner is dead: then what it held runs again.
            self._next_beat = min(self._next_beat, time.monotonic() + beat.next_end + _AFTER)
        if beat.swept >= _SWEPT:
            self._next_beat = min(self._next_beat, time.monotonic() + _UNPLACED)
        if beat.next_due is not None:
            self._due[berth].set(beat.next_due, self._on_due, berth)
        return False

    def _reconcile(self, berth: Berth) -> None:
        """What the server books on us and we know nothing of goes back; what it does not, ends.

        A server that lost its last writes, in a failover for one, may disagree with us.
        """
        before = list(berth.held.values())  # what is handed over meanwhile is not judged
        owned = berth.ledger.owned(berth.owner)
        strays = berth.stray(owned)
        if strays:
            log.warning("%d tasks were booked on us without a word, and go back", len(strays))
            berth.outbox.extend(strays)
        if berth.suspects:
            self._next_beat = min(self._next_beat, time.monotonic() + _SOON)
        strayed = [
            job
            for job in before
            if berth.held.get(job.id) is job and owned.get(job.id) != job.token
        ]
        if strayed:
            log.warning("%d tasks are ours no longer, and are stopped", len(strayed))
            self._let_go(berth, strayed)

    def _abandon(self, berth: Berth) -> None:
        """Everything that is held at this berth is somebody else's now."""
        self._let_go(berth, list(berth.held.values()))
        self._handed = [each for each in self._handed if each[0] is not berth]
        berth.renew()

    def _let_go(self, berth: Berth, jobs: list[RedisJob]) -> None:
        for job in jobs:
            berth.held.pop(job.id, None)
            self._written.pop(job.key, None)
            self.cancel(job.key)
        self._listener.on_lost(list(jobs))
        self._stopping.update((job.key, job) for job in jobs if job.in_worker)

    def _is_stopping(self, key: str) -> bool:
        """Whether a run under this key was told to stop, and has not ended yet."""
        if self._stopping:
            self._stopping = {key: job for key, job in self._stopping.items() if job.in_worker}
        return key in self._stopping

    # --- what happens meanwhile

    def _on_message(self, berth: Berth, data: bytes) -> None:
        """The server has woken us, or somebody wants a task cancelled."""
        call = read_call(data)
        if isinstance(call, Recall):
            self._recall(berth, *call)
        elif isinstance(call, Handed):
            if self._quiet or berth.must_ask(call.claim):
                self._handed.append((berth, call))  # for the greenlet, which can wait
                self._news.set()
            else:
                self._take_over([(berth, call)])
        else:
            berth.wake()
            self._news.set()

    def _take_over(self, handed: list[tuple[Berth, Handed]]) -> None:
        """Take in what was handed to us."""
        jobs = []
        for berth, (claim, room) in handed:
            job = berth.take_over(claim, room)
            if job is None:
                self._news.set()  # there may be something to be told
            elif self._quiet:
                self.refund([job])
            else:
                jobs.append(job)
        self._bring_in(jobs)

    def _on_again(self, berth: Berth) -> None:
        """The connection was away: a call may have been missed."""
        berth.wake()
        self._next_beat = 0.0
        self._news.set()

    def _on_due(self, berth: Berth) -> None:
        """A delayed task may begin."""
        berth.wake()
        self._news.set()

    def _recall(self, berth: Berth, task_id: str, token: int, reason: str) -> None:
        job = berth.held.get(task_id)
        if job is not None and job.token == token:
            self._listener.on_recalled(job, reason)

    def _watch(self) -> None:
        """Be called when a lease may be about to end."""
        at = min(each.good_until for each in self._berths) - self._grace
        self._fence.set(max(0.0, at - time.monotonic()), self._on_fence)

    def _on_fence(self) -> None:
        """No heartbeat has got through for almost a lease: if others may be served, tasks stop.

        What becomes of them the server is told when it is back, if the lease holds then.
        """
        self._fence.set(min(1.0, self._grace / _CHECKS), self._on_fence)
        now = time.monotonic()
        late = [
            berth for berth in self._berths if berth.held and berth.good_until - self._grace <= now
        ]
        if late and self._is_cut_off():
            for berth in late:
                log.error(
                    "the server has not answered for %.1f s: the tasks of %s are stopped before"
                    " its lease ends",
                    berth.lease - (berth.good_until - now),
                    berth.ledger.base,
                )
                jobs = list(berth.held.values())
                settlements = [job.interrupted() for job in jobs]
                self._let_go(berth, jobs)
                berth.outbox.extend(settlements)

    def _is_cut_off(self) -> bool:
        """Whether the server may be giving our tasks to others, for all that is known."""
        cut_off = self._queue.cut_off
        if cut_off is not None:
            return cut_off
        if self._failing:
            return True
        # Perhaps this process stood still, and not the server: a heartbeat will tell.
        self._doubts += 1
        self._next_beat = 0.0
        self._news.set()
        return self._doubts > _DOUBTS

    def _flush(self) -> None:
        """Tell progress, in a greenlet of its own: no heartbeat waits for it."""
        if self._flusher is None or self._flusher.dead:
            written, self._written = self._written, {}
            self._flusher = gevent.spawn(self._tell_progress, list(written.values()))

    def _tell_progress(self, jobs: list[RedisJob]) -> None:
        try:
            for berth in self._berths:
                updates = [
                    (job.id, job.token, progress)
                    for job in jobs
                    if job.berth is berth
                    and berth.held.get(job.id) is job
                    and (progress := _progress_of(job)) is not None
                ]
                for at in range(0, len(updates), BATCH):
                    berth.ledger.progress(berth.owner, updates[at : at + BATCH])
        except GTaskmanError as error:
            log.warning("the progress of %d tasks could not be told: %s", len(jobs), error)


def _progress_of(job: RedisJob) -> bytes | None:
    """How far it is, for the server; None if it has written what cannot be sent."""
    try:
        return end_of(job.report())
    except Exception as error:
        log.warning("the progress of task %s cannot be told: %s", job.id, error)
        return None
