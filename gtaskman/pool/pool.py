"""The pool: keeps the workers, hands them jobs, hears how they went, buries the dead.

::

    manager: plan() -> claim from the queue -> dispatch()      down
    worker's pipe -> _on_frames -> refill by the manager       up: the child first,
                               -> settle each job                  whoever waits second

Decisions are pure and stand in ``assign`` and ``verdict``; this module has the effects. It knows
neither queues nor storages nor handles: it speaks to a listener, the manager.
"""

from __future__ import annotations

import contextlib
import enum
import itertools
import logging
import pickle
import posix
import signal
import time
import weakref
from collections.abc import Iterable
from typing import Any

from greenlet import GreenletExit

from gtaskman.config import Configuration
from gtaskman.definitions import Elsewhere
from gtaskman.errors import FrameError, GTaskmanError, TaskTravelError
from gtaskman.job import Job, retune, wall
from gtaskman.latch import Latch
from gtaskman.pool import causes
from gtaskman.pool.alarm import Alarm
from gtaskman.pool.assign import Plan, assign
from gtaskman.pool.deadlines import Deadlines
from gtaskman.pool.listener import Completion, PoolListener
from gtaskman.pool.starters import Starter, make_starter
from gtaskman.pool.turnover import active, next_step
from gtaskman.pool.verdict import Verdict
from gtaskman.pool.worker import End, State, Worker
from gtaskman.reference import MAIN, MAIN_IN_WORKER, Reference, know_main, refer
from gtaskman.report import Failure
from gtaskman.task import Definition
from gtaskman.wire import messages
from gtaskman.wire.frames import Frame
from gtaskman.wire.messages import DONE, SEALED, SPAN_SIZE, Ended, Fault, Stack, Why
from gtaskman.wire.payload import as_it_came
from gtaskman.wire.resumed import Resumed

log = logging.getLogger(__name__)

_LOOK = 10e-3  # seconds after which somebody looks whether a task is no tiny one
_LONG = 3.0  # times the mean after which a task is longer than the others
_CLOSING = 0.1  # seconds after which a worker whose pipe has ended must have ended itself
_LAST_WORDS = 1.0  # seconds that a dead worker's exit status may take to be known
_BACK_OFF = 0.05  # seconds until the next start after a first failed one, doubled each time
_LONGEST_BACK_OFF = 5.0
_UNABLE = 5  # failed starts in a row after which waiting tasks are told
_RSS_EVERY = 0.25  # seconds between two looks at one worker's memory
_LASTING = (State.STARTING, State.OPEN)
_ENDING = (State.DRAINING, State.STOPPING)
_STOPPABLE = (State.OPEN, State.STANDBY, State.DRAINING)  # in which a worker heeds STOP
_loads = pickle.loads
# What may come of decoding: a class may also try to end the interpreter, but only its task's does.
_UNDECODABLE = (Exception, SystemExit, GreenletExit)


class Kill(enum.Enum):
    """The entry of a deadline that is no message to the task but the end of its worker."""

    KILL = enum.auto()


Asking = tuple[Latch, list[Stack]]  # opens when the one worker's answer is in the list


class Pool:
    """The workers of one manager."""

    def __init__(self, config: Configuration, loop: Any, listener: PoolListener) -> None:
        self._config = config
        self._loop = loop
        self._listener = listener
        self._workers: dict[int, Worker] = {}
        self._by_pid: dict[int, Worker] = {}
        self._worker_numbers = itertools.count(1)
        self._job_numbers = itertools.count(1)
        self._references: weakref.WeakKeyDictionary[Definition, Reference] = (
            weakref.WeakKeyDictionary()
        )
        self._starter: Starter = make_starter(loop, config, self)
        self._deadlines = Deadlines(loop, self._on_deadline, self._matters)
        self._look_alarm = Alarm(loop)
        self._just_begun: list[Job] = []  # async ones that the next look finds running, or not
        self._ttl_alarm = Alarm(loop)
        self._start_alarm = Alarm(loop)
        self._failures = 0  # failed starts in a row
        self._not_before = 0.0  # the next start, after failed ones
        self._sync_since: float | None = None  # since when a sync task has waited in vain
        self._reserved: Worker | None = None  # the one that is to be free for it
        self._limited = any((config.max_tasks_per_process, config.max_age, config.max_rss))
        # Runs that have ended and are yet to be settled: if a signal handler raises meanwhile, they
        # are settled with those that end next.
        self._completed: list[Completion] = []
        self._ended: list[End] = []
        # Likewise the jobs of dead workers, with the numbers of their runs.
        self._judged: list[tuple[Job, int, Verdict, Failure, tuple[int, float]]] = []
        self._turn = Resumed(loop, self._turn_over)
        self._closing = False
        self._latches: list[Latch] = []
        self._pongs: dict[int, Asking] = {}
        self._turning = False  # a step of the turnover is being taken
        self._turn_due = False  # the turnover goes on when the loop turns
        self.peak = 0  # the most processes that have lived at once
        self._held: set[str] = set()  # async tasks that were reported for blocking a worker
        self.broken: dict[str, str] = {}  # modules that no worker can import, and why

    # --- what the manager asks

    def start(self) -> None:
        """Start the workers that are always there."""
        know_main()
        self._fork(self._config.min_processes)

    def prepare(self, definition: Definition) -> None:
        """Find out how the task's code travels. Raises :class:`TaskTravelError` if it cannot."""
        if definition not in self._references:
            target = definition.target
            reference = target.reference if isinstance(target, Elsewhere) else refer(definition)
            most = messages.payload_limit(self._config.max_frame)
            if reference.value is not None and len(reference.value) > most:
                raise TaskTravelError(
                    f"the code of task {definition.name} cannot travel: with what it refers to it"
                    f" takes {len(reference.value):,} bytes, over the limit of {most:,}; give it"
                    " large values as arguments, or raise Configuration.max_frame"
                )
            self._references[definition] = reference
            if reference.value is None and reference.module != "builtins":
                self._starter.learn(reference.module)

    def first_idle(self) -> Worker | None:
        """A worker that has nothing to do: whatever waits alone goes to it."""
        for worker in self._workers.values():
            if worker.open and not worker.jobs:
                return worker
        return None

    @property
    def has_open(self) -> bool:
        """Whether any worker is ready."""
        return any(worker.open for worker in self._workers.values())

    def plan(self, sync: int, asyncs: int) -> Plan[Worker]:
        """Who shall get how many of the tasks that wait."""
        now = time.monotonic()
        if not sync:
            self._sync_since = None
        elif self._sync_since is None:
            self._sync_since = now
        if not self._is_overdue(now):
            self._release()
        return self._assign(sync, asyncs, now)

    def _is_overdue(self, now: float) -> bool:
        """Whether a sync task has waited for too long."""
        return self._sync_since is not None and now - self._sync_since > self._config.sync_patience

    @property
    def reserves(self) -> bool:
        """Whether a worker takes no async tasks, for the sake of a sync task that waits."""
        return self._reserved is not None

    def _release(self) -> None:
        """No sync task waits for the reserved worker any more."""
        if self._reserved is not None:
            self._reserved.reserved = False
            self._reserved = None

    def room(self, sync: int, asyncs: int) -> tuple[int, int]:
        """How many of so many waiting tasks of each kind it could take now.

        Workers that are on their way, or may yet be started, count; those that could take either
        kind count for both.
        """
        now = time.monotonic()
        coming, slots = self._starting(), self._config.max_jobs_per_process
        one, other = self._assign(sync, 0, now), self._assign(0, asyncs, now)
        return (
            min(sync, one.total_sync + one.forks + coming),
            min(asyncs, other.total_async + (other.forks + coming) * slots),
        )

    def free(self) -> tuple[int, int]:
        """How many tasks of each kind could begin at once; workers on their way count as idle.

        What an idle worker could take counts for both kinds.
        """
        slots = self._config.max_jobs_per_process
        idle = self._starting() + self._spare(time.monotonic())
        asyncs = 0
        for worker in self._workers.values():
            if worker.open and not worker.sync and not worker.reserved:
                if worker.asyncs:
                    asyncs += max(0, slots - worker.asyncs)
                else:
                    idle += 1
        return idle, asyncs + idle * slots

    def _assign(self, sync: int, asyncs: int, now: float) -> Plan[Worker]:
        return assign(
            list(self._workers.values()),
            sync,
            asyncs,
            slots=self._config.max_jobs_per_process,
            starting=self._starting(),
            spare=self._spare(now),
            overdue=self._is_overdue(now),
        )

    def _starting(self) -> int:
        """How many workers will take tasks as soon as they are ready."""
        starting = sum(worker.state is State.STARTING for worker in self._workers.values())
        if starting and self._limited:
            # One above the limit stays on standby until another worker is done.
            free = self._config.max_processes - active(list(self._workers.values()))
            return min(starting, max(0, free))
        return starting

    def _spare(self, now: float) -> int:
        """How many more workers may be started now."""
        if self._closing:
            return 0
        if now < self._not_before:
            self._start_later()
            return 0
        # One that takes no more tasks, and runs no sync task, may be replaced before it has ended.
        ending = any(each.state in _ENDING and not each.sync for each in self._workers.values())
        return max(0, self._config.max_processes + ending - len(self._workers))

    def dispatch(self, plan: Plan[Worker], jobs: list[Job]) -> None:
        """Hand claimed jobs to the workers that the plan gives them to."""
        if plan.reserve is not None:
            self._reserved = plan.reserve
            self._reserved.reserved = True
        sync = asyncs = iter(jobs)
        if plan.sync and plan.asyncs:
            asyncs = iter([job for job in jobs if job.definition.is_async])
            sync = iter([job for job in jobs if not job.definition.is_async])
        for gifts, line in ((plan.asyncs, asyncs), (plan.sync, sync)):
            for worker, count in gifts:
                self.hand(worker, itertools.islice(line, count))

    def hand(self, worker: Worker, jobs: Iterable[Job]) -> None:
        """Hand jobs to this worker, now."""
        self._watch(worker.run(jobs, self._job_numbers, self._reference))
        worker.channel.flush()
        if worker.unsendable:
            self._fail_unsendable(worker)
        if worker.sync:
            self._sync_since = None
            self._release()
        self._look_soon()
        if self._limited:
            self._watch_limits(worker)
            if worker.worn or not worker.open:
                # Not at once: the workers that a plan names must stay open until it is carried out.
                self._turn_over_soon()

    def _watch(self, jobs: Iterable[Job]) -> None:
        """See to what time brings to jobs that have just been handed over."""
        for job in jobs:
            if job.definition.is_limited:
                self._limit(job)
            if job.definition.is_async:
                job.started_at = time.time()
                self._just_begun.append(job)

    def _look_soon(self) -> None:
        if not self._look_alarm.armed:
            retune()  # the wall clock may have been set since the last look
            self._look_alarm.set(_LOOK, self._look)

    def _fail_unsendable(self, worker: Worker) -> None:
        unsendable, worker.unsendable = worker.unsendable, []
        for job, error in unsendable:
            self._listener.on_unsendable(job, causes.unsendable(job, error))
        # The worker may have been given less than was planned for it.
        self._loop.run_callback(self._listener.on_capacity)

    def _limit(self, job: Job) -> None:
        """See to the time limits of a job that has just been sent."""
        now = time.monotonic()
        for limit, why in (
            (job.definition.timeout, Why.TIMEOUT),
            (job.definition.soft_timeout, Why.SOFT_TIMEOUT),
        ):
            if limit:
                self._deadlines.add(now + limit, (job, job.number, why))

    def _reference(self, job: Job) -> Reference:
        return self._references[job.definition]

    def follow(self, plan: Plan[Worker], waiting: int) -> None:
        """Do what the plan says beside handing out: start, recall."""
        if plan.forks:
            self._fork(plan.forks)
        if not waiting:
            self.rest()

    def rest(self) -> None:
        """Nothing waits: whoever is idle may take over what others hold ahead."""
        self._sync_since = None
        self._release()
        for worker in self._workers.values():
            if worker.sync > 1:
                self._even_out()
                return

    def cancel(self, job: Job, why: Why) -> None:
        """Ask a job that is in a worker to stop; its worker is killed if it does not.

        A user's cancel goes before a time limit, whichever comes first: a cancelled task never
        runs again, one that reached its limit may.
        """
        worker = job.worker
        if worker is None or job.number not in worker.jobs:
            return
        if why is Why.CANCELLED or job.stop is None or job.stop is Why.SOFT_TIMEOUT:
            job.stop = why
        elif job.stop is Why.CANCELLED:
            return  # it is stopping already: a limit must not interrupt its clean-up
        worker.cancel(job.number, why)
        if why is not Why.SOFT_TIMEOUT:
            end = time.monotonic() + self._config.kill_grace
            self._deadlines.add(end, (job, job.number, Kill.KILL))

    def jobs(self) -> list[Job]:
        """Everything that is in a worker."""
        return [job for worker in self._workers.values() for job in worker.jobs.values()]

    def counts(self) -> tuple[int, int]:
        """How many jobs run, and how many are in a worker but have not begun."""
        running = held = 0
        for worker in list(self._workers.values()):  # any thread may ask
            begun = worker.asyncs + min(1, worker.sync)
            running += begun
            held += len(worker.jobs) - begun
        return running, held

    @property
    def processes(self) -> int:
        """Workers that live, those on their way included."""
        return sum(worker.state is not State.STOPPING for worker in list(self._workers.values()))

    def pids(self) -> list[int]:
        """The pids of the workers that are up."""
        return [worker.pid for worker in list(self._workers.values()) if worker.pid is not None]

    def kill(self, reason: str) -> None:
        """Kill every worker; those that are needed are replaced."""
        for worker in list(self._workers.values()):
            worker.kill(reason)

    def ask_stacks(self) -> list[tuple[int, Asking]]:
        """Ask each worker what it is doing; on our hub."""
        asked = []
        for worker in list(self._workers.values()):
            if worker.open:
                number = next(self._job_numbers)
                asking: Asking = (Latch(), [])
                self._pongs[number] = asking
                worker.ping(number)
                asked.append((number, asking))
        return asked

    def take_stacks(self, asked: list[tuple[int, Asking]], timeout: float) -> dict[int, str]:
        """What each says, by pid; those that do not answer in time are left out."""
        end = time.monotonic() + timeout
        found = {}
        try:
            for _, (latch, answers) in asked:
                if latch.wait(max(0.0, end - time.monotonic())):
                    found[answers[0].pid] = answers[0].text
        finally:
            for number, _ in asked:
                self._pongs.pop(number, None)
        return found

    # --- starting workers

    def _fork(self, count: int) -> None:
        for _ in range(count):
            worker = None
            try:
                worker = self._make_worker()
                worker.greet(self._starter.start(worker.number, *worker.take_descriptors()))
                worker.ordered = True
            except (GTaskmanError, OSError) as error:
                # Also what keeps its pipe from being made, such as too many open files.
                self._not_started(worker, str(error))
                return
            self.peak = max(self.peak, len(self._workers))

    def _make_worker(self) -> Worker:
        worker = Worker(
            next(self._worker_numbers),
            self._loop,
            self._config.max_frame,
            self._on_frames,
            self._on_gone,
        )
        worker.on_forbidden = self._starter.signal
        self._workers[worker.number] = worker
        self._deadlines.add(worker.started_at + self._config.start_timeout, worker)
        return worker

    def on_up(self, number: int, pid: int, pidfd: int) -> None:
        """A worker's process lives; READY follows."""
        worker = self._workers.get(number)
        if worker is None:
            # Nobody waits for it any more; it may even have ended already.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            posix.close(pidfd)
            return
        worker.is_up(pid, pidfd, self._on_ended)
        self._by_pid[pid] = worker

    def on_refused(self, number: int, why: str) -> None:
        """A worker could not be started."""
        worker = self._workers.get(number)
        if worker is None:
            return
        if worker.state is State.STARTING:
            self._not_started(worker, why)
            return
        # It was ready, and perhaps at work, before its template found that it cannot be watched.
        worker.kill(f"its template could not watch it: {why}")
        worker.exit = (None, 0)
        worker.channel.read_all()
        if worker.alive:
            self._bury(worker)

    def on_broken(self, module: str, why: str) -> None:
        """No worker can import this module: its tasks must not wait for one that does."""
        self.broken[MAIN if module == MAIN_IN_WORKER else module] = why
        self._listener.on_unable(why)

    def _on_ready(self, worker: Worker) -> None:
        if worker.state is not State.STARTING:
            return
        self._failures = 0
        worker.depths = self._config.prefetch, self._config.max_prefetch
        worker.idle_since = time.monotonic()
        worker.budget = self._config.max_tasks_per_process or worker.budget
        if self._limited:
            worker.become(State.STANDBY)
            if self._config.max_age is not None:
                old_at = worker.started_at + self._config.max_age
                self._deadlines.add(old_at, (worker, self._on_old))
            self._turn_over()
        else:
            worker.become(State.OPEN)
        self._mind_ttl()
        self._listener.on_ready()

    def _not_started(self, worker: Worker | None, why: str) -> None:
        self._failures += 1
        wait = min(_LONGEST_BACK_OFF, _BACK_OFF * 2 ** (self._failures - 1))
        self._not_before = time.monotonic() + wait
        log.warning("a worker could not be started (the next try is in %.2f s): %s", wait, why)
        if worker is not None:
            self._remove(worker)
        if not self._closing:
            self._start_later()
            if self._failures >= _UNABLE and not self.has_open:
                self._listener.on_unable(f"no worker could be started: {why}")

    def _start_later(self) -> None:
        if not self._start_alarm.armed:
            self._start_alarm.set(self._not_before - time.monotonic(), self._start_again)

    def _start_again(self) -> None:
        if not self._closing:
            least = self._config.min_processes
            if self._failures >= _UNABLE:
                least = max(1, least)  # the manager may fetch nothing until one is ready
            self._fork(max(0, least - len(self._workers)))
            self._turn_over()
            self._listener.on_capacity()

    # --- what workers say

    def _on_frames(self, worker: Worker, frames: list[Frame]) -> None:
        """Take note of everything, refill the child, and only then wake whoever waits."""
        completed, ended = self._completed, self._ended
        try:
            worker.take_ended(frames, self._on_word, completed, ended)
        except BaseException:
            self._listener.recover_soon()
            raise
        if completed or ended:
            try:
                self._after_jobs(worker)
                self._listener.on_capacity()
            except Exception:
                log.exception("the workers could not be given more tasks")
            except BaseException:
                self._listener.recover_soon()
                raise
            finally:
                # Whatever the refill raises: these ends are in no pipe any more.
                self._settle_batch(completed, ended)
        if worker.nonsense is not None:
            raise worker.nonsense

    def _settle_batch(self, completed: list[Completion], ended: list[End]) -> None:
        self._listener.batches += 1
        try:
            self._settle(completed, ended)
        finally:
            self._listener.batches -= 1
            self._listener.on_batch_end(at_once=True)
        completed.clear()
        ended.clear()

    def _on_word(self, worker: Worker, frame: Frame) -> None:
        if frame.kind == messages.PROGRESS:
            job = worker.jobs.get(frame.number)
            if job is not None:
                job.note_progress(*messages.unpack(frame.body))
                self._mark_started(job)
                self._listener.on_progress(job)
        elif frame.kind == messages.RETURNED:
            self._on_returned(worker, messages.unpack(frame.body))
        elif frame.kind == messages.READY:
            worker.pid = frame.number
            self._on_ready(worker)
        elif frame.kind == messages.PONG:
            asking = self._pongs.get(frame.number)
            if asking is not None:
                asking[1].append(messages.Stack(*messages.unpack(frame.body)))
                asking[0].open()
        elif frame.kind == messages.HELD:
            self._on_held(worker, frame)
        else:
            raise FrameError(f"a message of the unknown kind {frame.kind}")

    def _on_held(self, worker: Worker, frame: Frame) -> None:
        job = worker.jobs.get(frame.number)
        if job is None or job.definition.name in self._held:
            return
        self._held.add(job.definition.name)
        log.warning(
            "the async task %s blocked its worker for %.1f s: the other async tasks there had to"
            " wait. Monkey-patch the application (from gevent import monkey; monkey.patch_all(),"
            " first of all), so that waiting lets others run, or give the task kind='sync'",
            job.definition.name,
            messages.unpack(frame.body),
        )

    def _on_returned(self, worker: Worker, numbers: list[int]) -> None:
        worker.recalled = False
        worker.stuck = True
        jobs = [job for number in numbers if (job := worker.give_back(number)) is not None]
        if jobs:
            self._give_back(jobs)
        self._after_jobs(worker)
        self._listener.on_capacity()

    def _give_back(self, jobs: list[Job]) -> None:
        waiting = []
        for job in jobs:
            if job.stop is Why.CANCELLED:
                # It was on its way back when it was cancelled: there is nothing left to stop.
                self._listener.on_stopped(job, 0.0, time.monotonic())
            else:
                job.begin_again()
                waiting.append(job)
        self._listener.on_returned(waiting)

    def _after_jobs(self, worker: Worker) -> None:
        """A worker has fewer jobs than before: it may be idle now, or at its end."""
        if not worker.jobs:
            worker.idle_since = time.monotonic()
            if worker.state is State.DRAINING:
                self._stop_worker(worker)
                self._turn_over()
                return
            self._mind_ttl()
        if self._limited:
            self._watch_limits(worker)
            self._turn_over()

    def _settle(self, completed: list[Completion], ended: list[End]) -> None:
        """Decode how runs ended, and tell it, with those that are ``completed`` already.

        A hot loop: once for every task.
        """
        for job, frame, started, finished in ended:
            kind, flags, number, body, buffers = frame
            if kind != DONE:
                if job.number == number:  # else it was told already, and tries again
                    self._on_fail(job, Ended(flags), body[SPAN_SIZE:], started, finished)
            else:
                data = body[SPAN_SIZE:]
                if job.opaque:
                    carried = as_it_came(flags, data, buffers)
                    completed.append((job, carried, carried.size, started, finished))
                    continue
                if flags & SEALED:
                    completed.append((job, bytes(data), data.nbytes, started, finished))
                    continue
                try:
                    result = _loads(data, buffers=buffers) if buffers else _loads(data)
                except _UNDECODABLE as error:
                    failure = causes.undecoded(job, "result", error)
                    self._listener.on_failed(job, failure, None, started, finished)
                    continue
                size = data.nbytes + (sum(map(_bytes_in, buffers)) if buffers else 0)
                completed.append((job, result, size, started, finished))
        if completed:
            self._listener.on_completed(completed)

    def _on_fail(
        self, job: Job, how: Ended, body: memoryview, started: float, ended: float
    ) -> None:
        if how is Ended.CANCELLED:
            self._listener.on_stopped(job, started, ended)
            return
        try:
            fault = Fault(*messages.unpack(body))
        except _UNDECODABLE as error:
            failure = causes.undecoded(job, "failure", error)
            self._listener.on_failed(job, failure, None, started, ended)
            return
        failure = causes.failed_run(job, how, fault)
        if fault.last_message:
            job.last_message = fault.last_message
        self._listener.on_failed(job, failure, fault.exception, started, ended)

    def _mark_started(self, job: Job) -> None:
        if not job.processing:
            if job.started_at is None and job.worker is not None:
                number, since = job.worker.running_since()
                # It may have ended while what it wrote was on its way.
                job.started_at = wall(since) if number == job.number else time.time()
            self._listener.on_started(job)

    # --- tasks that turn out to be long

    def _look(self) -> None:
        """Recall what stands behind a long task; tell of tasks that have been running a while."""
        retune()
        begun = [*self._just_begun]
        for async_job in begun:
            if async_job.number and not async_job.processing and not async_job.handle.done():
                self._listener.on_started(async_job)
        del self._just_begun[: len(begun)]
        now = time.monotonic()
        again = False
        for worker in list(self._workers.values()):
            if not worker.sync:
                continue
            number, since = worker.running_since()
            job = worker.jobs.get(number)
            if job is None or now - since < _LOOK:
                again = True
                if job is None:
                    self._kill_if_stalled(worker, now)
                continue
            self._mark_started(job)
            if worker.sync > 1 and not worker.recalled:
                if now - since > _LONG * worker.mean:
                    worker.recall()
                else:
                    again = True
        if again:
            self._look_alarm.set(_LOOK, self._look)

    def _kill_if_stalled(self, worker: Worker, now: float) -> None:
        """Kill a worker that has sync tasks and begins none: it may be stopped (SIGSTOP)."""
        grace = self._config.start_timeout
        if not worker.has_stalled(now, grace) or worker.kill_reason is not None:
            return
        worker.channel.read()  # what it did may be in the pipe of a hub that was blocked
        if worker.alive and worker.has_stalled(now, grace):
            worker.kill(f"it began none of its tasks within {grace} s")

    def _even_out(self) -> None:
        """Nothing waits, and somebody is idle: what others hold ahead is better off there."""
        for worker in self._workers.values():
            if worker.sync < 2 or self.first_idle() is None:
                continue
            ahead = worker.sync - 1
            # Moving it takes about as long as a millisecond's worth of tiny tasks.
            if not worker.recalled and (not worker.mean or ahead * worker.mean > 1e-3):
                worker.recall()

    # --- deadlines

    def _matters(self, entry: Any) -> bool:
        if isinstance(entry, Worker):
            return entry.state in (State.STARTING, State.STOPPING)
        if len(entry) == 2:
            return bool(entry[0].alive)
        job, number, _ = entry
        return job.worker is not None and number in job.worker.jobs

    def _on_deadline(self, entry: Any) -> None:
        if isinstance(entry, Worker):
            entry.channel.read()  # READY may be in the pipe of a hub that was blocked
            if self._matters(entry):
                self._on_worker_late(entry)
            return
        if len(entry) == 2:
            worker, act = entry
            act(worker)
            return
        job, number, what = entry
        worker = job.worker
        now = time.monotonic()
        if what is Kill.KILL:
            # The hub may have been blocked for longer than the grace: the end of the run may
            # already be in the pipe.
            worker.channel.read()
            if not self._matters(entry):
                return
            why = causes.unwilling(job, self._config.kill_grace)
            if _at_work(job):
                worker.kill(why, {number})
            elif worker.running_number() in worker.jobs:
                self._deadlines.add(now + self._config.kill_grace, entry)
            else:
                worker.kill(why)  # it does nothing, and does not answer either
            return
        due = self._due(job, what, now)
        if due > now:
            self._deadlines.add(due, entry)
        else:
            self.cancel(job, what)

    def _due(self, job: Job, why: Why, now: float) -> float:
        """When the limit of a job ends: a sync one may have waited in its worker."""
        definition = job.definition
        limit = definition.timeout if why is Why.TIMEOUT else definition.soft_timeout
        assert limit is not None and job.worker is not None
        if definition.is_async:
            return now
        number, since = job.worker.running_since()
        return since + limit if number == job.number else now + limit

    def _on_worker_late(self, worker: Worker) -> None:
        grace = self._config.start_timeout
        if worker.state is State.STARTING:
            worker.kill(f"it was not ready within {grace} s")
            if worker.pid is None:
                self._starter.abandon(worker.number)
                self._not_started(worker, f"it was not ready within {grace} s")
        else:
            worker.kill("it did not end when it was told to")

    def _kill_after_grace(self, worker: Worker) -> None:
        self._deadlines.add(time.monotonic() + self._config.kill_grace, worker)

    # --- idle, old and large workers

    def _mind_ttl(self) -> None:
        """Arm the timer that ends idle workers, if there are more than must be."""
        if not self._ttl_alarm.armed and self._surplus() > 0:
            idle = [w.idle_since for w in self._workers.values() if w.idle]
            if idle:
                due = min(idle) + self._config.ttl
                self._ttl_alarm.set(due - time.monotonic(), self._end_idle)

    def _end_idle(self) -> None:
        oldest = time.monotonic() - self._config.ttl
        idle = sorted((w for w in self._workers.values() if w.idle), key=lambda w: w.idle_since)
        for worker in idle[: max(0, self._surplus())]:
            if worker.idle_since <= oldest:
                self._stop_worker(worker)
        self._mind_ttl()

    def _surplus(self) -> int:
        """How many workers there are beyond ``min_processes``; those that are ending do not count.

        What arms the timer must count as what it calls does: else it goes off again and again.
        """
        most = len(self._workers) - self._config.min_processes
        if most <= 0:
            return 0  # the usual case after a single task, which must cost nothing
        return most - sum(worker.state not in _LASTING for worker in self._workers.values())

    def _watch_limits(self, worker: Worker) -> None:
        """Note that a worker is to be replaced; it takes no more tasks once its budget is spent."""
        if worker.state is not State.OPEN:
            return
        most = self._config.max_tasks_per_process
        if most is not None:
            worker.budget = most - worker.sent
            if worker.budget <= min(most // 4, self._config.max_prefetch):
                worker.worn = True
            if worker.budget <= 0:
                self._drain(worker)
                return
        largest = self._config.max_rss
        now = time.monotonic()
        if largest is not None and now - worker.rss_checked > _RSS_EVERY:
            worker.rss_checked = now
            worker.worn = worker.worn or worker.rss() > largest

    def _on_old(self, worker: Worker) -> None:
        """A worker has reached ``max_age``."""
        worker.worn = True
        if worker.idle and self._surplus() > 0:
            self._stop_worker(worker)  # nothing needs it: it is not replaced
        else:
            self._turn_over()

    def _turn_over_soon(self) -> None:
        if not self._turn_due:
            self._turn_due = True
            self._turn.soon()

    def _turn_over(self) -> None:
        """Replace workers that have reached a limit, as far as that is possible now."""
        self._turn_due = False
        if self._turning or not self._limited:
            return
        self._turning = True
        opened = False
        try:
            while not self._closing:
                step = next_step(list(self._workers.values()), self._config.max_processes)
                if step is None or (step.fork and not self._fork_replacement()):
                    break
                if step.open is not None:
                    step.open.become(State.OPEN)
                    step.open.idle_since = time.monotonic()
                    opened = True
                if step.drain is not None:
                    step.drain.replaced = step.open is not None
                    self._drain(step.drain)
        finally:
            self._turning = False
        if opened:
            self._mind_ttl()
            # When the loop turns: this may be in the middle of handing out tasks.
            self._loop.run_callback(self._listener.on_capacity)

    def _fork_replacement(self) -> bool:
        """Start a worker, unless it is too early after one that could not be started."""
        if time.monotonic() < self._not_before:
            self._start_later()
            return False
        self._fork(1)
        return True

    def _drain(self, worker: Worker) -> None:
        if worker.state is not State.OPEN:
            return
        worker.become(State.DRAINING)
        if worker.sync > 1 and not worker.recalled and worker.budget > 0:
            worker.recall()
        if not worker.jobs:
            self._stop_worker(worker)

    def _stop_worker(self, worker: Worker) -> None:
        worker.stop()
        self._kill_after_grace(worker)

    # --- death

    def _on_gone(self, worker: Worker, error: FrameError | None) -> None:
        """A worker's pipe has ended."""
        if error is not None:
            log.error("worker %s: %s; it is killed", worker.pid, error)
            worker.kill(f"its pipe carried nonsense: {error}")
        worker.open = False
        if worker.alive:
            self._await_exit(worker)

    def _on_ended(self, worker: Worker) -> None:
        """A worker's process has ended; its status may still be on the way."""
        worker.open = False
        worker.channel.read_all()
        if worker.alive:
            self._await_exit(worker)

    def _await_exit(self, worker: Worker) -> None:
        if worker.exit is not None:
            self._bury(worker)
            return
        now = time.monotonic()
        self._deadlines.add(now + _CLOSING, (worker, self._insist))
        self._deadlines.add(now + _LAST_WORDS, (worker, self._give_up_waiting))

    def _insist(self, worker: Worker) -> None:
        if not worker.ended:
            worker.kill("it closed its pipe and lived on")

    def _give_up_waiting(self, worker: Worker) -> None:
        worker.exit = (None, 0)
        self._bury(worker)

    def on_exit(self, pid: int, status: int | None, maxrss: int) -> None:
        """A worker has ended, and this is how."""
        worker = self._by_pid.get(pid)
        if worker is None or not worker.alive:
            return
        worker.exit = (status, maxrss)
        worker.open = False
        worker.channel.read_all()
        if worker.alive:
            self._bury(worker)

    def on_condemned(self, pids: list[int], why: str) -> None:
        """These workers die together: none gets a task that another one gives back."""
        for pid in pids:
            worker = self._by_pid.get(pid)
            if worker is not None:
                worker.kill(why)

    def on_exits(self, pids: list[int], why: str) -> None:
        """These workers have died together."""
        self.on_condemned(pids, why)
        self._listener.batches += 1
        try:
            for pid in pids:
                self.on_exit(pid, None, 0)
        finally:
            self._listener.batches -= 1
            self._listener.on_batch_end()

    def _bury(self, worker: Worker) -> None:
        """Judge what was in a dead worker, and let go of it."""
        starting = worker.state is State.STARTING
        cause = causes.death(worker)
        if starting and not self._closing:
            self._not_started(worker, cause.message)
            return
        running = worker.running_since()
        unexpected = worker.state is not State.STOPPING and not self._closing
        # Whoever is woken by this finds the pool whole again: the dead replaced, the rest at work.
        self._listener.batches += 1
        try:
            judged = [(job, job.number, verdict, cause, running) for job, verdict in worker.judge()]
            # No signal handler can raise between these two: each is judged once.
            self._judged += judged
            worker.jobs = {}
            self._remove(worker)
            if unexpected:
                log.warning("worker %s has died: %s", worker.pid, cause.message)
            self._pronounce_all()
            if not self._closing:
                self._fork(max(0, self._config.min_processes - len(self._workers)))
                self._listener.on_capacity()
        except BaseException:
            self._listener.recover_soon()
            raise
        finally:
            self._listener.batches -= 1
            self._listener.on_batch_end()

    def _pronounce_all(self) -> None:
        judged = self._judged
        while judged:
            job, number, verdict, cause, running = judged[0]
            try:
                if job.number == number:  # else it was done already, before a handler raised
                    self._pronounce(job, verdict, cause, running)
            except Exception:
                log.exception("what a dead worker leaves of task %s cannot be handled", job.id)
            judged.pop(0)

    def _pronounce(
        self, job: Job, verdict: Verdict, cause: Failure, running: tuple[int, float]
    ) -> None:
        begun, now = _begin_of(job, running), time.monotonic()
        if job.stop is Why.TIMEOUT and verdict in (Verdict.CULPRIT, Verdict.SUSPECT):
            self._listener.on_failed(job, causes.timed_out(job), None, begun, now)
        elif verdict is Verdict.UNREAD:
            self._count_death(job, causes.unread(job, cause), 0.0, now)
        elif verdict is Verdict.UNTOUCHED:
            self._give_back([job])
        elif job.stop is Why.CANCELLED:
            self._listener.on_stopped(job, begun, now)
        elif verdict is Verdict.DOUBTFUL and not job.definition.at_most_once:
            self._count_death(job, cause, begun, now)
        elif verdict is Verdict.BYSTANDER and not job.definition.at_most_once:
            log.info("task %s waits again: its worker has died: %s", job.id, cause.message)
            self._give_back([job])
        else:
            job.crashes += verdict is not Verdict.BYSTANDER
            self._listener.on_failed(job, cause, None, begun, now)

    def _count_death(self, job: Job, cause: Failure, begun: float, now: float) -> None:
        """It may be what killed its worker: it waits again, unless that has happened too often."""
        job.crashes += 1
        if job.crashes < (job.definition.max_crashes or self._config.max_crashes):
            self._give_back([job])
        else:
            self._listener.on_failed(job, cause, None, begun, now)

    def _remove(self, worker: Worker) -> None:
        try:
            worker.become(State.DEAD)
            worker.close()
            if worker is self._reserved:
                self._release()
            if worker.pid is not None:
                self._by_pid.pop(worker.pid, None)
            self._workers.pop(worker.number, None)  # last: what is left in there is removed again
        except BaseException:
            self._listener.recover_soon()
            raise
        if self._closing and not self._workers:
            for latch in self._latches:
                latch.open()
        self._turn_over()

    # --- after a signal handler has raised

    def recover(self) -> None:
        """Do what was left undone when a signal handler raised; all of it may be done twice."""
        self._pronounce_all()
        watched = {entry[1] for entry in self._deadlines.entries() if isinstance(entry, tuple)}
        for worker in list(self._workers.values()):
            if not worker.alive or (worker.state is State.STARTING and not worker.ordered):
                self._remove(worker)
            else:
                self._recover_worker(worker, watched)
        if self._completed or self._ended:
            self._settle_batch(self._completed, self._ended)
        self._deadlines.arm()
        self._look_soon()
        self._turn_over()

    def _recover_worker(self, worker: Worker, watched: set[Any]) -> None:
        worker.channel.read()
        worker.recount()
        self._watch(
            [
                job
                for number, job in worker.jobs.items()
                if number not in watched
                and (job.definition.is_limited or job.definition.is_async)
                and not job.started_at
            ]
        )
        worker.channel.flush()
        if worker.unsendable:
            self._fail_unsendable(worker)
        if worker.alive:
            self._after_jobs(worker)

    def holds(self) -> set[Job]:
        """The jobs that are in a worker, or have ended there and are yet to be settled."""
        held = set(self.jobs())
        for pending in (self._completed, self._ended, self._judged):
            held.update(each[0] for each in pending)
        return held

    # --- the end

    def close(self, grace: float) -> None:
        """End all workers, asking first; returns when nothing is left of them. Not from the hub."""
        self._closing = True
        for worker in list(self._workers.values()):
            if worker.state in _STOPPABLE and not worker.jobs:
                worker.stop()
            else:
                self._end_at_once(worker)
        if self._workers:
            latch = Latch()
            self._latches.append(latch)
            if not latch.wait(grace):
                for worker in list(self._workers.values()):
                    self._end_at_once(worker)
                latch.wait(_LAST_WORDS * 2)
        for ended in self._starter.stop():
            ended.wait(_LAST_WORDS * 2)
        self._end_timers()

    def _end_at_once(self, worker: Worker) -> None:
        worker.kill("the manager was stopped")
        if worker.pid is None:
            self._remove(worker)

    def _end_timers(self) -> None:
        self._deadlines.close()
        for alarm in (self._look_alarm, self._ttl_alarm, self._start_alarm):
            alarm.cancel()

    def forget(self) -> None:
        """In a fork of the application: close our copies; the original goes on undisturbed."""
        self._end_timers()
        for worker in self._workers.values():
            worker.close()
        self._starter.forget()


def _begin_of(job: Job, running: tuple[int, float]) -> float:
    """When a run began, on the monotonic clock, of a job whose worker died while ``running``."""
    number, since = running
    if job.number == number:
        return since
    now = time.monotonic()
    return now if job.started_at is None else min(now, job.started_at - wall(0.0))


def _at_work(job: Job) -> bool:
    """Whether the worker is at this job, and not at another one before it."""
    return job.definition.is_async or (
        job.worker is not None and job.worker.running_number() == job.number
    )


def _bytes_in(buffer: Any) -> int:
    return memoryview(buffer).nbytes
