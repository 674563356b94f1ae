"""The manager: takes tasks from a queue, gives them to the pool, tells everybody how they went.

::

    submit -> queue -> on_capacity: plan, claim, dispatch -> pool
                 ^-- _on_due: what time has changed
    handle <- events, storage <- _finish <- on_completed, on_failed, on_stopped <- pool

All of it happens on one hub: that of the thread that starts the manager, or one of its own
(``Configuration(background=True)``). Other threads hand their calls over to it.
"""

from __future__ import annotations

import contextlib
import difflib
import enum
import logging
import os
import random
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Protocol, TypeVar

import gevent
import msgspec
from gevent import getcurrent
from gevent._hub_local import get_hub_if_exists

from gtaskman import mapping, queues, storages
from gtaskman.config import Configuration
from gtaskman.definitions import Definitions
from gtaskman.errors import (
    ConfigurationError,
    DuplicateTaskError,
    ManagerStopped,
    PayloadError,
    TaskDefinitionError,
    TaskTravelError,
)
from gtaskman.events import Callback, Events
from gtaskman.fields import shown
from gtaskman.handle import TaskHandle
from gtaskman.home import Home
from gtaskman.job import Job
from gtaskman.latch import Latch
from gtaskman.pool.listener import Completion
from gtaskman.pool.pool import Pool
from gtaskman.process import refuse_at_import
from gtaskman.queues import TaskQueue
from gtaskman.report import Failure, FailureKind, Report, TaskStatus
from gtaskman.starting import Start, start_once, started
from gtaskman.storages import Archivist, TaskStorage
from gtaskman.task import Definition, Task, TaskFunction, fresh_id
from gtaskman.terms import DEFAULT, Terms
from gtaskman.timetable import Timetable
from gtaskman.wire import messages
from gtaskman.wire.messages import Why, payload_limit
from gtaskman.wire.payload import NOTHING, Payload, encode_arguments
from gtaskman.wire.resumed import Resumed

log = logging.getLogger(__name__)

T = TypeVar("T")


_ENOUGH = 64  # tasks that may wait for the loop to turn
_LAST_REPORTS = 10.0  # seconds that a storage has for the last reports when a manager stops
STOPPED = "the manager was stopped"
_EVENTS = {
    TaskStatus.COMPLETED: "task-completed",
    TaskStatus.FAILED: "task-failed",
    TaskStatus.CANCELLED: "task-cancelled",
}


TASK_EVENTS = ("task-progress", *_EVENTS.values())


def check_event(event: str) -> None:
    """Raise :class:`ConfigurationError` unless a manager emits events of that name."""
    if event == "init" or event in TASK_EVENTS:
        return
    if isinstance(event, str) and event.startswith(tuple(f"{each}-" for each in TASK_EVENTS)):
        return
    known = ("init", *TASK_EVENTS)
    close = difflib.get_close_matches(str(event), known, 1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise ConfigurationError(
        f"a manager has no event {event!r}{hint} (it has {', '.join(known)}, and those of a task"
        " followed by -<task id>)",
        "event",
    )


def check_seconds(what: str, value: object) -> None:
    """Raise :class:`TypeError` unless ``value`` is a number of seconds, or None."""
    if value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)):
        return
    raise TypeError(f"{what}: timeout takes seconds or None, not {shown(value)}")


class State(enum.Enum):
    NEW = enum.auto()  # start() moves it on
    RUNNING = enum.auto()  # takes tasks; stop() moves it on
    STOPPING = enum.auto()  # takes none, finishes or cancels what it has
    STOPPED = enum.auto()  # final: every handle is settled, every worker gone
    FORKED = enum.auto()  # final: a copy in a fork of the process that it belongs to


_RUNNING = State.RUNNING  # a member is slow to look up in its class


class Companion(Protocol):
    """What lives on a manager's hub, and ends with it."""

    def on_stopping(self) -> None:
        """The manager takes no more tasks."""

    def on_stopped(self) -> None:
        """Every task has ended; the hub is left when this returns. It may wait."""

    def forget(self) -> None:
        """This is a fork of the process: nothing of it is ours."""


class TaskManager:
    """Runs tasks in the workers of its pool.

    ``queue`` and ``storage`` are objects or URLs (``"memory://"``), ``config`` a
    :class:`Configuration`. As a context manager it starts on the way in and stops on the way out.
    Raises :class:`ConfigurationError` for an URL that leads nowhere.
    """

    def __init__(
        self,
        queue: TaskQueue | str = "memory://",
        config: Configuration | None = None,
        storage: TaskStorage | str | None = None,
    ) -> None:
        self.config = config if config is not None else Configuration()
        if not isinstance(self.config, Configuration):
            raise ConfigurationError(
                f"config takes a Configuration, not {shown(config)}: give Configuration(...)",
                "config",
            )
        self.queue = queues.connect(queue)
        self.events = Events()
        self._state = State.NEW
        self._starts: dict[str, Start] = {}  # the one that is under way
        self._home = Home("this manager, and every task of its,")
        self._pool: Pool | None = None
        self._timetable: Timetable | None = None
        self._jobs: dict[str, Job] = {}
        self._definitions = Definitions()
        self._known: set[int] = set()  # numbers of definitions whose code is known to travel
        self._counts = dict.fromkeys(_EVENTS, 0)
        self._pending = 0  # bytes of the tasks that wait
        self._ebb: Latch | None = None  # opens when enough of them have gone
        self._pumping = False
        self._pump_due = False
        self._pump: Resumed | None = None
        self._recovery: Resumed | None = None
        self._put_off = 0  # how often it was said since then that something waits
        self._tolerance = _ENOUGH  # and how often it may be
        self.batches = 0  # how many batches of ends are being worked off, one within the other
        self._gathered: list[TaskHandle] = []  # handles whose waiters are woken after that
        self._ready = Latch()
        self.failure: BaseException | None = None
        """Why the manager stopped by itself; None while it runs, and after an ordinary stop."""
        self._stop_at = float("inf")  # when tasks have had time enough, on the monotonic clock
        self._drained: Latch | None = None
        self._companions: list[Companion] = []
        self._line = self._make_line()
        kept = storages.connect(storage, self.config)
        self.storage = kept
        self._archive = storages.archive_of(kept)  # who is told of each report
        self._follows = self._archive.follows  # and asks for all but the last ones
        self.queue.occupy(self)
        self._line.configure(self.config)
        self._line.on_available(self._on_available)

    # --- life

    def __new__(
        cls, queue: TaskQueue | str = "memory://", *_args: Any, **_more: Any
    ) -> TaskManager:
        # A queue on a server is worked off in another way: by a manager of another make.
        if cls is TaskManager and queues.is_remote(queue):
            from gtaskman.shared import SharedManager

            return object.__new__(SharedManager)
        return object.__new__(cls)

    def _make_line(self) -> TaskQueue:
        """For subclasses: where jobs are taken from, and where they are said to have ended."""
        return self.queue

    def start(self) -> TaskManager:
        """Start the workers that are always there; returns at once. A second start does nothing.

        Raises :class:`StartMethodError` where workers cannot be started at all, and
        :class:`ManagerStopped` after a stop.
        """
        while self._state is not State.RUNNING:
            refuse_at_import()
            self._check_usable()
            start_once(self._starts, "start", "this manager", self._start_here)
        return self

    def _start_here(self) -> None:
        if self._state is not State.NEW:
            return  # another start has ended just now
        if self.config.background:
            self._home.settle_apart(self._set_up)
        else:
            self._home.settle()
            self._set_up()

    def _set_up(self) -> None:
        loop = self._home.loop
        self._pump = Resumed(loop, self._pump_when_due)
        self._recovery = Resumed(loop, self._recover)
        self._pool = Pool(self.config, loop, self)
        if isinstance(self._archive, TaskStorage):
            self._archive.follow(self._jobs)
        self._timetable = Timetable(loop, self._line, self._on_due, self._on_late)
        self._state = State.RUNNING
        _running.add(self)
        self._pool.start()
        if not self.config.min_processes:
            self.on_ready()

    def wait_ready(self, timeout: float | None = None) -> bool:
        """Wait until a first worker is ready; gives whether one is."""
        return self._ready.wait(timeout)

    def stop(self, timeout: float | None = None) -> None:
        """Let tasks finish for ``timeout`` seconds, then cancel them, then kill what is left.

        Returns when every handle is settled and every worker gone. ``None`` stands for
        ``Configuration.stop_timeout``. A manager that was never started, or stopped before, is no
        error.
        """
        check_seconds("stop", timeout)
        while (start := self._starts.get("start")) is not None:
            start.await_end()
        if self._state is State.NEW:
            self._state = State.STOPPED
            self.queue.release(self)
            self._home.left.open()
        if self._state in (State.STOPPED, State.FORKED):
            return
        self._home.post(self._begin_stop, self.config.stop_timeout if timeout is None else timeout)
        self._home.await_left()

    def _begin_stop(self, seconds: float) -> None:
        """Stop in a greenlet that nobody else can kill; a second call may shorten its time."""
        self._stop_at = min(self._stop_at, time.monotonic() + seconds)
        if self._state is State.RUNNING:
            self._state = State.STOPPING
            self._home.keep_alive()
            if self._ebb is not None:
                self._ebb.open()  # whoever waits to submit has been told too late
            for companion in self._companions:
                companion.on_stopping()
            gevent.spawn(self._stop_in_order)
        elif self._drained is not None:
            self._drained.open()

    def fail(self, error: BaseException) -> None:
        """Stop with an error, because a loop that the manager needs cannot work; on its hub.

        Running tasks get ``Configuration.stop_timeout``, as in a stop; ``failure`` keeps the error.
        """
        if self.failure is None:
            self.failure = error
            log.critical("this manager stops because of an error: %r", error)
        self._begin_stop(self.config.stop_timeout)

    def _stop_in_order(self) -> None:
        try:
            self._drain_and_close()
        except BaseException:
            log.exception("stopping a manager has failed; it stops without what was left to do")
            raise
        finally:
            self._become_stopped()

    def _drain_and_close(self) -> None:
        pool, timetable = self._pool, self._timetable
        assert pool is not None
        assert timetable is not None
        with contextlib.ExitStack() as steps:
            # The last one first, and each of them whatever those before have raised.
            for companion in reversed(self._companions):
                steps.callback(companion.on_stopped)
            steps.callback(self._flush_reports)
            steps.callback(timetable.close)
            steps.callback(self._end)
            steps.callback(pool.close, self.config.kill_grace)
            self._begin_drain()
            if not self._drain():
                # The latest first: what a worker holds ahead is cancelled before what it runs, or
                # it would begin that in between.
                for job in reversed(list(self._jobs.values())):
                    self._give_up(job)
                self._stop_at = time.monotonic() + self.config.kill_grace
                self._drain()

    def _flush_reports(self) -> None:
        if isinstance(self._archive, Archivist) and not self._archive.flush(_LAST_REPORTS):
            log.error("the storage has not taken the last reports within %.0f s", _LAST_REPORTS)

    def _become_stopped(self) -> None:
        """Be stopped, whatever has been raised: whoever waits for a task or for that goes on."""
        try:
            self._end()
        finally:
            self._state = State.STOPPED
            self.queue.release(self)
            _running.discard(self)
            self._home.leave()

    def _end(self) -> None:
        """Nothing runs any more: settle what is left."""
        for job in list(self._jobs.values()):
            job.stop_reason = STOPPED
            self.on_stopped(job, 0.0, time.monotonic())

    def _give_up(self, job: Job) -> None:
        """It has not ended in time, and we are to stop."""
        self._cancel_here(job, STOPPED)

    def _begin_drain(self) -> None:
        """Cancel what waits and cannot begin before we stop: nobody need wait for it."""
        for job in list(self._jobs.values()):
            if not job.claimed and (self._line.paused or job.ready_at > self._stop_at):
                self._cancel_here(job, STOPPED)

    def _drain(self) -> bool:
        """Wait until nothing is left to do, or it is time to stop; whether nothing is left."""
        while self._jobs and (left := self._stop_at - time.monotonic()) > 0:
            self._drained = Latch()
            self._drained.wait(left)
        return not self._jobs

    def __enter__(self) -> TaskManager:
        return started(self)

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # After an error nobody waits for results any more.
        self.stop(0 if exc_type is not None else None)

    def _check_usable(self) -> None:
        self.home()
        if self._state in (State.STOPPING, State.STOPPED):
            raise self._stopped_error()

    def _stopped_error(self) -> ManagerStopped:
        if self.failure is None:
            return ManagerStopped(
                "this manager was stopped and takes no more tasks: make a new one"
            )
        error = ManagerStopped(
            f"this manager stopped because of an error ({self.failure!r:.200}) and takes no more"
            " tasks: make a new one"
        )
        error.__cause__ = self.failure
        return error

    def forget(self) -> None:
        """In a fork of the process: be a mere copy, and disturb the original in nothing."""
        self._state = State.FORKED
        self._home.forget()
        self._pump_due = True  # a pump that was scheduled, or will be, finds nothing to do
        if self._pool is not None:
            self._pool.forget()
        if self._timetable is not None:
            self._timetable.close()
        for companion in self._companions:
            companion.forget()

    def accompany(self, companion: Companion) -> None:
        """Have something told when this manager stops."""
        self._companions.append(companion)

    # --- submitting

    def submit(self, task: Any, /, *args: Any, **kwargs: Any) -> TaskHandle:
        """Submit a task: a task function or any callable with its arguments, or a task object.

        Returns at once, but waits cooperatively while more than
        ``Configuration.max_pending_bytes`` wait already. Raises :class:`TaskOptionError`,
        :class:`TaskTravelError`, :class:`PayloadError`, :class:`DuplicateTaskError` or
        :class:`ManagerStopped` here, where the mistake was made.
        """
        if type(task) is TaskFunction:
            task.check(args, kwargs)
            return self._submit(fresh_id(), task.definition, args, kwargs, task.terms)
        return self._submit(*self._definitions.call(task, args, kwargs))

    def submit_many(self, tasks: Iterable[Task]) -> list[TaskHandle]:
        """Submit many task objects; gives their handles in the same order.

        Raises as :meth:`submit`, for the first one that is refused; those before it stay submitted.
        """
        return [self.submit(task) for task in tasks]

    def map(
        self,
        function: Callable[[Any], Any],
        iterable: Iterable[Any],
        *,
        chunksize: int | None = None,
        ordered: bool = True,
    ) -> Iterator[Any]:
        """Call ``function`` with each item, in the workers; gives an iterator of the results.

        Items are taken from ``iterable`` only as fast as results are taken from the iterator, with
        a bounded number in flight. ``chunksize`` items travel and run together (1 if None), which
        pays for tiny calls; limits such as ``timeout`` then hold for the chunk. With
        ``ordered=False`` results come as they are ready. The first failure is raised, and what is
        still on its way is cancelled.
        """
        return mapping.run(self, function, iterable, chunksize, ordered)

    @property
    def parallel(self) -> int:
        """How many workers there may be."""
        return self.config.max_processes

    def submit_chunk(self, function: Any, items: list[Any]) -> TaskHandle:
        """Submit one chunk of a :meth:`map`: the function is called with each of ``items``."""
        definition, carried = self._definitions.of(function)
        terms = function.terms if isinstance(function, TaskFunction) else DEFAULT
        return self._submit(fresh_id(), definition, (*carried, items), {}, terms, messages.CHUNK)

    def _submit(
        self,
        task_id: str,
        definition: Definition,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        terms: Terms,
        flags: int = 0,
    ) -> TaskHandle:
        if self._state is not _RUNNING:
            self.start()
        if definition.number not in self._known:
            self._make_known(definition)
        payload = self._encode(definition, args, kwargs) if args or kwargs else NOTHING
        job = Job(task_id, definition, payload)
        if flags:
            job.flags = flags
        if terms is not DEFAULT:
            job.put_under(terms, definition.unique_key(terms.unique, args, kwargs))
        if self._pending > self.config.max_pending_bytes:
            self._await_ebb()
        if self._state is not _RUNNING:
            self.start()  # it was stopped while an argument was encoded, which may wait
        handle = job.handle = TaskHandle(job, self)
        if self._jobs.setdefault(task_id, job) is not job:
            raise DuplicateTaskError(task_id)
        if terms is not DEFAULT:
            self._submit_under_terms(job)
        elif get_hub_if_exists() is self._home.hub:
            try:
                self._accept(job)
            except BaseException:
                self._withdraw(job)
                raise
        else:
            self._post_accept(job)
        return handle

    def _post_accept(self, job: Job) -> None:
        """Have a job of another thread taken in on our hub.

        Raises :class:`ManagerStopped` if that will not happen: the manager has stopped meanwhile.
        """
        posted = self._home.post(self._accept_for_other, job)
        if (not posted or self._home.left.done()) and self._jobs.get(job.key) is job:
            self._jobs.pop(job.key, None)
            self._home.check()
            raise self._stopped_error()

    def _withdraw(self, job: Job) -> None:
        """Its submitter has been interrupted and has no handle of it: it must not run; on our hub.

        One that was taken in is cancelled, which gives its unique key back.
        """
        self.recover_soon()
        if not self._cancel_here(job, "its submit was interrupted") and (
            self._jobs.get(job.key) is job
        ):
            del self._jobs[job.key]

    def _make_known(self, definition: Definition) -> None:
        if definition.kind == "service":
            raise TaskDefinitionError(
                f"{definition.name} is a service, which runs for ever: give it to a ServiceManager"
            )
        pool = self._pool
        assert pool is not None
        self._home.ask(lambda: pool.prepare(definition))
        self._known.add(definition.number)

    def _encode(
        self, definition: Definition, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Payload:
        try:
            return encode_arguments(args, kwargs, payload_limit(self.config.max_frame))
        except PayloadError as error:
            raise PayloadError(
                f"the arguments of {definition.name} cannot travel: {error}"
            ) from error.__cause__

    def _accept(self, job: Job) -> None:
        """Take a job in; on our hub."""
        pool = self._pool
        assert pool is not None
        if not self._follows:
            job.told = True
            self._archive.insert(job.first_report())
        # While the pump is due others wait, and it would have to wait behind them.
        hold = self._pump_due or self._pumping or pool.broken
        idle = None if hold else pool.first_idle()
        if idle is not None and self._line.admit(job):
            # What assign() would say of a single task: it goes to a worker that is idle.
            pool.hand(idle, (job,))
        else:
            self._pending += job.cost
            try:
                self._line.enqueue(job)
            except DuplicateTaskError:
                self._pending -= job.cost
                raise
        if not self._home.kept_alive:
            self._home.keep_alive()

    def _submit_under_terms(self, job: Job) -> None:
        """Take in a job that has terms of its own."""
        if not job.unique and not self._home.is_here():
            self._post_accept(job)
            return
        try:
            if job.unique:
                # Its key may be taken: its submitter is to know, on whichever thread.
                self._home.ask(lambda: self._accept_unique(job))
            else:
                self._accept_under_terms(job)
        except BaseException:
            if self._jobs.get(job.key) is job and not self._home.post(self._withdraw, job):
                self._jobs.pop(job.key, None)  # nothing runs there any more
            raise

    def _accept_under_terms(self, job: Job) -> None:
        self._accept(job)
        self._mind_time()

    def _accept_unique(self, job: Job) -> None:
        if self._state is not State.RUNNING:
            raise ManagerStopped(STOPPED)
        if self._jobs.get(job.id) is not job:
            return  # its submitter has given up waiting for us
        try:
            self._accept_under_terms(job)
        except DuplicateTaskError:
            self._jobs.pop(job.key, None)
            if job.told:
                self._archive.delete(job.id)
            raise

    def take_in(self, job: Job) -> None:
        """Take in a job that was made elsewhere, and has a handle already; on our hub.

        Raises what :meth:`submit` raises; it does not wait: see :meth:`ebb`.
        """
        if self._state is not State.RUNNING:
            raise ManagerStopped("this manager is stopping and takes no more tasks")
        if job.definition.number not in self._known:
            self._make_known(job.definition)
        if self._jobs.setdefault(job.id, job) is not job:
            raise DuplicateTaskError(job.id)
        try:
            if job.terms is DEFAULT:
                self._accept(job)
            elif job.unique:
                self._accept_unique(job)
            else:
                self._accept_under_terms(job)
        except BaseException:
            self._withdraw(job)
            raise

    def ebb(self) -> Latch | None:
        """While more waits than may, what opens when less does; else None."""
        if not self._has_too_much() or self._state is not State.RUNNING:
            return None
        if self._ebb is None or self._ebb.done():
            self._ebb = Latch()
        return self._ebb

    def _has_too_much(self) -> bool:
        """Whether more waits than may, without what waits for its time."""
        return self._pending - self.queue.delayed_cost > self.config.max_pending_bytes

    def _accept_for_other(self, job: Job) -> None:
        """Take in a job that another thread has submitted, and has a handle of."""
        if self._state is not State.RUNNING:
            job.stop_reason = STOPPED
            self.on_stopped(job, 0.0, time.monotonic())
            return
        try:
            self._accept_under_terms(job)
        except Exception as error:
            log.exception("task %s could not be queued", job.id)
            self._fail(job, f"it could not be queued: {type(error).__name__}: {error}")
        except BaseException:
            if not job.place:  # interrupted before it was taken in: it must not get lost
                self._home.loop.run_callback(self._accept_for_other, job)
            raise

    def _await_ebb(self) -> None:
        """Too much waits: so does whoever adds to it, unless that is a callback of a hub."""
        while (ebb := self.ebb()) is not None:
            if getcurrent() is get_hub_if_exists():
                return
            ebb.wait()

    # --- the pump

    def _on_available(self) -> None:
        """Something waits: hand it over now if a worker is idle, else when the loop turns.

        Whoever submits many in one go does not keep the workers waiting for the last of them.
        """
        if self._pump_due:
            self._put_off += 1
            if self._put_off < self._tolerance or self._pumping:
                return
            # Should the workers be full, the next try can wait for longer.
            self._tolerance *= 2
        self._put_off = 0
        assert self._pool is not None
        if not self._pumping and (self._pump_due or self._pool.first_idle() is not None):
            self.on_capacity()
        else:
            assert self._pump is not None
            self._pump.soon()
            self._pump_due = True

    def _pump_when_due(self) -> None:
        self._pump_due = False
        self._tolerance = _ENOUGH
        self.on_capacity()

    def on_ready(self) -> None:
        """A worker is ready; the first one makes the manager so."""
        if not self._ready.done():
            self._ready.open()
            self.events.emit("init", self)
        self.on_capacity()

    def on_capacity(self) -> None:
        """There may be room for more, or more to do: move what waits to where it can run."""
        pool = self._pool
        if self._pumping or pool is None or self._state is State.FORKED:
            return
        self._pumping = True
        try:
            queue = self._line
            sync, asyncs = queue.waiting() if self._pending or queue.shared else (0, 0)
            if (not sync and not asyncs) or queue.paused:
                pool.rest()
                return
            plan = pool.plan(sync, asyncs)
            count_sync, count_async = plan.total_sync, plan.total_async
            taken = 0
            if count_sync or count_async:
                jobs = self._claim(count_sync, count_async)
                taken = len(jobs)
                pool.dispatch(plan, jobs)
            pool.follow(plan, sync + asyncs - taken)
        except BaseException:
            self.recover_soon()  # claimed jobs may be in no worker yet
            raise
        finally:
            self._pumping = False

    # --- after a signal handler has raised

    def recover_soon(self) -> None:
        """Something was raised while jobs changed hands: see in the loop's next turn that each is
        in a worker, or waits, or ends."""
        if self._recovery is not None:
            self._recovery.soon()

    def _recover(self) -> None:
        pool, timetable = self._pool, self._timetable
        if pool is None or timetable is None or self._state in (State.STOPPED, State.FORKED):
            return
        pool.recover()
        held = pool.holds()
        for job in list(self._jobs.values()):
            if job.number and job not in held:
                self._take_back(job)
        waiting = self._line.restore(self._jobs, held)
        if waiting is not None:
            self._pending = sum(job.cost for job in waiting)
            for job in {*self._jobs.values()}.difference(held, waiting):
                self._conclude(job)
        if self._jobs:
            self._home.keep_alive()
        else:
            self._on_idle()
        self._lessen(0)
        timetable.recover()
        self.on_batch_end()
        self.on_capacity()

    def _take_back(self, job: Job) -> None:
        """Its run never began, or has ended, and nothing of it is left."""
        if job.stop is Why.CANCELLED:
            self.on_stopped(job, 0.0, time.monotonic())
        else:
            job.begin_again()

    def _conclude(self, job: Job) -> None:
        """It is in no queue and in no worker."""
        report = job.handle.final
        if report is not None:
            self._finish(job, report, job.handle.portable_exception)
        elif job.withdrawn:
            self.on_stopped(job, 0.0, time.monotonic())
        elif job.place:  # else it is on its way from another thread
            try:
                self._line.enqueue(job)
            except DuplicateTaskError as error:
                self._fail(job, str(error))

    def _claim(self, sync: int, asyncs: int) -> list[Job]:
        """Take so many out of the queue; those that no worker can run fail here."""
        jobs = self._line.claim(sync, asyncs)
        for job in jobs:
            self._pending -= job.cost
            if job.start_by:
                self._watch(job)
        if self._ebb is not None:
            self._lessen(0)
        assert self._pool is not None
        return self._without_broken(jobs) if self._pool.broken else jobs

    def _watch(self, job: Job) -> None:
        assert self._timetable is not None
        self._timetable.watch(job)

    def _mind_time(self) -> None:
        assert self._timetable is not None
        self._timetable.mind()

    def _on_due(self) -> None:
        """Time has changed something in the queue."""
        for job in self._line.expired():
            self._lessen(job.cost)
            self._expire(job, time.monotonic())
        self.on_capacity()

    def _on_late(self, job: Job) -> None:
        """It is in a worker, but behind another one, and was to have begun by now."""
        if self._jobs.get(job.key) is job:
            assert self._pool is not None
            job.late = True
            self._pool.cancel(job, Why.CANCELLED)

    def _expire(self, job: Job, ended: float) -> None:
        ttl = job.terms.ttl  # not known of a task from a server, which knows the moment alone
        within = f"within {ttl:g} s" if ttl is not None else "in time"
        failure = Failure(FailureKind.EXPIRED, f"it had not started {within}")
        self._finish(job, job.failed_report(failure, None, ended), None)

    def _lessen(self, cost: int) -> None:
        """So many bytes of tasks wait no more: whoever waited for that may go on."""
        self._pending -= cost
        if self._ebb is not None and not self._has_too_much():
            ebb, self._ebb = self._ebb, None
            ebb.open()

    def _without_broken(self, jobs: list[Job]) -> list[Job]:
        assert self._pool is not None
        sound = []
        for job in jobs:
            why = self._pool.broken.get(job.definition.module)
            if why is None:
                sound.append(job)
            else:
                self._fail(job, why)
        return sound

    # --- what the pool tells

    def on_started(self, job: Job) -> None:
        """The job runs, and not for a mere moment."""
        job.processing = True
        self._tell_storage(job)

    def on_progress(self, job: Job) -> None:
        """The task has written with its pen."""
        report = job.report()
        if job.told:
            self._store(report)
        job.handle.tell(report)
        if self.events.callbacks:
            self._emit("task-progress", report)

    def on_completed(self, completed: list[Completion]) -> None:
        """Tasks have returned. A hot loop: once for every task."""
        jobs, settle = self._jobs, self._line.settle
        reports: list[Report] = []
        limited: list[Job] = []  # whose reports are kept for as long as their terms say
        waited_for, listening = self._gathered, self.events.callbacks
        try:
            for job, result, size, started, ended in completed:
                if jobs.get(job.key) is not job:
                    continue  # settled already, or given up, and its task is back
                job.payload = NOTHING  # a deadline may still hold the job: let the arguments go
                report = job.completed_report(result, size, started, ended)
                try:
                    settle(job, report)
                except Exception as error:
                    self._finish(job, self._settle_plainly(job, report, error), None)
                    continue
                if job.terms is not DEFAULT:
                    limited.append(job)
                if listening:
                    self._emit_last("task-completed", job.full(report))
                handle = job.handle
                if handle.settle(report):
                    waited_for.append(handle)
                # Last of all: what raises before, such as KeyboardInterrupt, makes this one due
                # again, and nothing can come between these two.
                del jobs[job.key]
                reports.append(report)
        finally:
            count = len(reports)
            self._counts[TaskStatus.COMPLETED] += count
            self._store_last(reports)
            for job in limited:
                self._limit_report(job)
        if not jobs:
            self._on_idle()

    def on_stopped(self, job: Job, started: float, ended: float) -> None:
        """The task was cancelled, or came too late."""
        if job.late:
            self._expire(job, ended)
            return
        self._finish(job, job.cancelled_report(started or None, ended), None)

    def on_failed(
        self, job: Job, failure: Failure, exception: bytes | None, started: float, ended: float
    ) -> None:
        """The task has failed: it tries again, or that was it."""
        if self._may_try_again(job, failure):
            self._retry_later(job, job.definition.backoff.delay(job.attempt, random.random()))
            return
        if job.crashes > 1 and failure.kind is FailureKind.CRASH:
            failure = msgspec.structs.replace(
                failure,
                message=f"{failure.message}; it has taken {job.crashes} workers with it, and is"
                " given up as poison",
            )
        self._finish(job, job.failed_report(failure, started or None, ended), exception)

    def on_unsendable(self, job: Job, failure: Failure) -> None:
        """No order to a worker can be made of the job: another try would fail as well."""
        self._finish(job, job.failed_report(failure, None, time.monotonic()), None)

    def _retry_later(self, job: Job, wait: float) -> None:
        job.try_again()
        self._pending += job.cost
        self._tell_storage(job)
        self._line.retry(job, wait)
        self._mind_time() if wait else self._on_available()

    def _may_try_again(self, job: Job, failure: Failure) -> bool:
        if job.stop is Why.CANCELLED:
            return False  # it failed while it was being cancelled: that was its last attempt
        definition = job.definition
        most = definition.max_crashes or self.config.max_crashes
        if failure.kind is FailureKind.CRASH and job.crashes >= min(most, definition.retries + 1):
            return False
        return job.attempt - job.losses <= definition.retries and self._may_wait()

    def _may_wait(self) -> bool:
        """Whether a task may still wait here for its next attempt."""
        return self._state is State.RUNNING

    def on_returned(self, jobs: list[Job]) -> None:
        """They wait again."""
        if self._state is State.STOPPED:
            return
        for job in jobs:
            self._pending += job.cost
            self._tell_storage(job)
        self._line.refund(jobs)
        if any(job.start_by for job in jobs):
            self._mind_time()

    def on_unable(self, why: str) -> None:
        """Workers cannot be started: who waits for one must not wait for ever."""
        assert self._pool is not None
        broken = self._pool.broken
        kept = []
        for job in self._line.drop():
            self._lessen(job.cost)
            if broken and job.definition.module not in broken:
                kept.append(job)
            else:
                self._fail(job, why)
        for job in kept:
            self._pending += job.cost
            self._line.enqueue(job)

    def _tell_storage(self, job: Job) -> None:
        if job.told:
            self._store(job.report())

    def _fail(self, job: Job, why: str) -> None:
        failure = Failure(FailureKind.CRASH, why)
        self._finish(job, job.failed_report(failure, None, time.monotonic()), None)

    def _finish(self, job: Job, report: Report, exception: bytes | None) -> None:
        """A task has come to its end: once, and everybody is told."""
        if self._jobs.get(job.key) is not job:
            return
        # It leaves the jobs after what must not be left out: if a signal handler raises before,
        # all of this is done again.
        if job.handle.settle(report, exception):
            self._gathered.append(job.handle)
        try:
            self._line.settle(job, report)
        except Exception as error:
            report = self._settle_plainly(job, report, error)
        job.payload = NOTHING  # a deadline may still hold the job: let the arguments go
        self._store_last([report])
        self._limit_report(job)
        if self._jobs.get(job.key) is not job:
            return  # a storage that waits has let another end come first
        del self._jobs[job.key]
        self._counts[report.status] += 1
        if self.events.callbacks:
            self._emit_last(_EVENTS[report.status], report)
        if not self._jobs:
            self._on_idle()
        self.on_batch_end()

    def _settle_plainly(self, job: Job, report: Report, error: Exception) -> Report:
        """The queue does not take the last report: give it one that it can take."""
        log.error("the end of task %s could not be noted in its queue", job.id, exc_info=error)
        message = f"its end could not be noted in its queue: {type(error).__name__}"
        if report.error is not None:
            message = f"{report.error.kind.value}; {message}"
        plain = job.failed_report(Failure(FailureKind.ERROR, message), None, time.monotonic())
        try:
            self._line.settle(job, plain)
        except Exception:
            log.exception("task %s stays unsettled in its queue", job.id)
        return plain

    def _store(self, report: Report) -> None:
        """Keep a report; a storage that is down holds up no task, nor its result's waiter."""
        try:
            self._archive.update(report)
        except Exception:
            log.exception("a report of task %s could not be stored", report.id)

    def _store_last(self, reports: list[Report]) -> None:
        """Keep the last reports of tasks."""
        if self._follows:
            try:
                self._archive.finish(reports)
            except Exception:
                log.exception("the last reports of %d tasks could not be stored", len(reports))
        else:
            for report in reports:
                self._store(report)

    def _limit_report(self, job: Job) -> None:
        """Have its last report kept for as long as it is to be."""
        if job.terms.result_ttl is not None:
            try:
                self._archive.expire(job.id, job.terms.result_ttl)
            except Exception:
                log.exception("the storage does not know how long to keep task %s", job.id)

    def _on_idle(self) -> None:
        """Nothing is left to do."""
        self._home.let_go()
        if self._drained is not None:
            self._drained.open()

    def on_batch_end(self, at_once: bool = False) -> None:
        """Several tasks have ended at once, all are settled: wake whoever waits for one of them.

        Woken after each, it would find the next one not settled yet, and wait again. Not if this
        batch is part of a larger one. ``at_once``: see :meth:`Latch.wake`.
        """
        if not self.batches and self._gathered:
            gathered = self._gathered
            for handle in gathered:
                handle.wake(at_once)
            if gathered is self._gathered:
                self._gathered = []

    def _emit(self, event: str, report: Report) -> None:
        self.events.emit(event, report)
        self.events.emit(f"{event}-{report.id}", report)

    def _emit_last(self, event: str, report: Report) -> None:
        self._emit(event, report)
        self.events.forget_after(f"{each}-{report.id}" for each in TASK_EVENTS)

    # --- asking and telling

    def cancel(self, task_id: str, reason: str | None = None) -> bool:
        """Ask a task to stop, whether it waits or runs; False if no such task waits or runs."""
        job = self._find(task_id)
        if job is None:
            return False
        if not self._home.is_here() and getcurrent() is get_hub_if_exists():
            # In a callback of another hub, such as the collection of a map that was dropped there.
            return self._home.post(self._cancel_here, job, reason or "")
        return self._home.ask(lambda: self._cancel_here(job, reason or ""))

    def _find(self, task_id: str) -> Job | None:
        """The job of this id that waits or runs here, or None."""
        return self._jobs.get(task_id)

    def _cancel_here(self, job: Job, reason: str) -> bool:
        if self._jobs.get(job.key) is not job:
            return False
        try:
            return self._cancel_found(job, reason)
        except BaseException:
            self.recover_soon()
            raise

    def _cancel_found(self, job: Job, reason: str) -> bool:
        job.stop_reason = reason
        if job.number:
            assert self._pool is not None
            self._pool.cancel(job, Why.CANCELLED)
            return True
        if self._line.cancel(job.key) is not None:
            self._lessen(job.cost)
            self.on_stopped(job, 0.0, time.monotonic())
            if self._pool is not None and self._pool.reserves:
                self._on_available()  # async tasks that were held back for it may begin
            return True
        return False

    def pause(self) -> None:
        """Begin no more tasks until :meth:`resume`: those in workers go on, all others wait."""
        self._home.ask(self._line.pause)

    def resume(self) -> None:
        """Begin tasks again."""
        self._home.ask(self._line.resume)

    def dead(self, offset: int = 0, limit: int = 50) -> list[Report]:
        """The last reports of tasks that failed for good, the newest last: the dead letters."""
        return self._line.dead(offset, limit)

    def retry(self, task_id: str) -> TaskHandle | None:
        """Send a dead task back: it waits once more, under its id, with attempt 1.

        Gives its new handle (the old one has ended), or None if no such task is dead. Raises
        :class:`DuplicateTaskError` if another task has its unique key by now.
        """
        if self._state is not State.RUNNING:
            self.start()
        return self._home.ask(lambda: self._retry_here(task_id))

    def _retry_here(self, task_id: str) -> TaskHandle | None:
        job = None if task_id in self._jobs else self._line.revive(task_id)
        if job is None:
            return None
        handle = job.handle = TaskHandle(job, self)
        self._jobs[job.id] = job
        if not self._follows:
            job.told = True
            self._archive.insert(job.first_report())
        self._pending += job.cost
        self._mind_time()
        self._on_available()
        self._home.keep_alive()
        return handle

    def report(self, task_id: str) -> Report | None:
        """How a task stands, or None if it is not known (any more)."""
        job = self._find(task_id)
        return job.report() if job is not None else self.storage.report(task_id)

    def handle(self, task_id: str) -> TaskHandle | None:
        """The handle of a task that waits or runs, or None."""
        job = self._find(task_id)
        return job.handle if job is not None else None

    def on(self, event: str, callback: Callback) -> None:
        """Call ``callback(report)`` at every ``event``.

        Events: ``task-progress``, ``task-completed``, ``task-failed``, ``task-cancelled``, each
        also followed by ``-<task id>``, and ``init`` with the manager. Raises
        :class:`ConfigurationError` for another event. After a task's last report its callbacks
        ``...-<task id>`` are forgotten. Callbacks run one after the
        other in a greenlet; one that raises is logged and disturbs nothing.
        """
        check_event(event)
        self.events.on(event, callback)

    def once(self, event: str, callback: Callback) -> None:
        """:meth:`on`, for the next time only."""
        check_event(event)
        self.events.once(event, callback)

    def off(self, event: str, callback: Callback | None = None) -> None:
        """Take an :meth:`on` back; without a callback, all of that event."""
        self.events.off(event, callback)

    def stats(self) -> dict[str, dict[str, int]]:
        """Numbers, in the groups ``pool`` and ``queue``.

        In both: ``current_tasks`` (running, and waiting, delayed or not), ``completed_tasks``,
        ``failed_tasks``, ``cancelled_tasks``, ``total_tasks``, ``current_processes``,
        ``max_processes`` (the limit) and ``peak_processes`` (the most that lived at once: one more
        than the limit while a worker is being replaced).
        """
        pool = self._pool
        running, held = pool.counts() if pool is not None else (0, 0)
        shared = {
            "current_processes": pool.processes if pool is not None else 0,
            "max_processes": self.config.max_processes,
            "peak_processes": pool.peak if pool is not None else 0,
            "completed_tasks": self._counts[TaskStatus.COMPLETED],
            "failed_tasks": self._counts[TaskStatus.FAILED],
            "cancelled_tasks": self._counts[TaskStatus.CANCELLED],
            "total_tasks": sum(self._counts.values()) + len(self._jobs),
        }
        waiting = self._waiting() + held
        return {
            "pool": {**shared, "current_tasks": running},
            "queue": {**shared, "current_tasks": waiting},
        }

    def _waiting(self) -> int:
        info = self._line.info()
        return int(info["waiting"] + info["delayed"])

    def pids(self) -> list[int]:
        """The pids of the workers."""
        return self._pool.pids() if self._pool is not None else []

    def kill_workers(self, reason: str) -> None:
        """Kill every worker at once: no task can clean up.

        What had not begun waits again; what ran fails, or is tried again, as after any crash, and
        ``reason`` is part of its error and of the log. Workers that are needed are started anew.
        """
        if self._pool is not None:
            self._home.ask(lambda: self._kill_workers(reason))

    def _kill_workers(self, reason: str) -> None:
        if self._pool is not None:
            self._pool.kill(reason)

    def stacks(self, timeout: float = 1.0) -> dict[int, str]:
        """What each worker is doing right now: its stack as text, by pid."""
        self._check_usable()
        pool = self._pool
        if pool is None:
            return {}
        # Pipes are written on our hub only; the answers are waited for by who asks.
        asked = self._home.ask(pool.ask_stacks)
        return pool.take_stacks(asked, timeout)

    # --- threads and forks

    @property
    def background(self) -> bool:
        """Whether it has a thread of its own."""
        return self.config.background

    @property
    def hub(self) -> Any:
        """The hub it lives on; None before its start, and in a fork of its process."""
        return self._home.hub

    def home(self) -> Any:
        """That hub. Raises :class:`ForkedManagerError` in a fork of its process."""
        return self._home.check()

    def at_home(self, function: Callable[[], T]) -> T:
        """What ``function`` gives on that hub, whichever thread asks; here before there is one."""
        return self._home.ask(function)

    def is_stalled(self) -> bool:
        """Whether our hub has not answered since the last call of this, from another thread."""
        return self._home.is_stalled()

    def __dir__(self) -> list[str]:
        """What users call; what the pool, the queue and integrations call is left out."""
        return sorted(_PUBLIC)

    def __reduce__(self) -> Any:
        raise TaskTravelError(
            "a manager cannot be an argument or a result of a task, since it belongs to its own"
            " process: leave it out, and call gtaskman.submit in the task"
        )

    def __repr__(self) -> str:
        return (
            f"<TaskManager {self._state.name.lower()} jobs={len(self._jobs)}"
            f" processes={self._pool.processes if self._pool else 0}>"
        )


_PUBLIC = (
    *("background", "cancel", "config", "dead", "events", "failure", "handle", "hub", "map"),
    *("off", "on", "once", "pause", "pids", "queue", "report", "resume", "retry", "stacks"),
    *("start", "stats", "stop", "storage", "submit", "submit_many", "wait_ready"),
)
_running: weakref.WeakSet[TaskManager] = weakref.WeakSet()


def _after_fork() -> None:
    """A fork of the process has copies of our descriptors: were they to stay open, neither zygote
    nor workers would see the original go."""
    for manager in list(_running):
        manager.forget()
    _running.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
