"""``Runner``: stands where a manager has its pool, and runs each job at once, right here.

All that a task takes and gives is encoded and decoded by the way, as if it went through a pipe.
"""

from __future__ import annotations

import contextvars
import itertools
import os
import time
from types import TracebackType
from typing import Any

from greenlet import GreenletExit

from gtaskman.child import outcome
from gtaskman.child.outcome import Outcome
from gtaskman.context import Current, running
from gtaskman.definitions import Elsewhere
from gtaskman.errors import Cancelled
from gtaskman.job import Job
from gtaskman.latch import Latch
from gtaskman.pool import causes
from gtaskman.pool.listener import PoolListener
from gtaskman.reference import refer
from gtaskman.report import DEFERRED, Progress
from gtaskman.task import CLASS, Definition
from gtaskman.testing.timeouts import is_outer, watched
from gtaskman.wire import messages
from gtaskman.wire.frames import allocate, becomes
from gtaskman.wire.messages import CHUNK, DONE, Ended, Fault, Why
from gtaskman.wire.payload import Payload, decode_arguments, decode_value


class Runner:
    """Runs jobs in whichever greenlet asks for it, and tells its listener how they went.

    ``limit`` is the largest value that may travel, in bytes.
    """

    def __init__(self, listener: PoolListener, limit: int) -> None:
        self.pid = os.getpid()
        self.processes = self.peak = 0
        self.reserves = False
        self._listener = listener
        self._limit = limit
        self._numbers = itertools.count(1)
        self._running: dict[int, Job] = {}

    # --- what the manager asks of a pool

    def prepare(self, definition: Definition) -> None:
        """Raise :class:`TaskTravelError` for code that could not reach a worker."""
        if not isinstance(definition.target, Elsewhere):
            refer(definition)

    def cancel(self, job: Job, why: Why) -> None:
        """Ask a job to stop: it hears of that when it next writes with its pen."""
        job.stop = why

    def counts(self) -> tuple[int, int]:
        """How many jobs run, and how many are here without running: none."""
        return len(self._running), 0

    def pids(self) -> list[int]:
        """The pids of the workers: there are none."""
        return []

    def ask_stacks(self) -> list[Any]:
        """Ask the workers what they are doing: there are none."""
        return []

    def take_stacks(self, asked: list[Any], timeout: float) -> dict[int, str]:  # noqa: ARG002
        """What they say: nothing."""
        return {}

    def running_number(self) -> int:
        """The number of the job that began last; asked by jobs whose worker this is."""
        return next(reversed(self._running), 0)

    # --- running

    def run(self, job: Job) -> None:
        """Run a job, and once more for as long as it may try again."""
        while not job.handle.done():
            job.number = next(self._numbers)
            job.worker = self  # type: ignore[assignment] # as far as a job asks, it is one
            self._running[job.number] = job
            self._listener.on_started(job)
            started, number = time.monotonic(), job.number
            try:
                with watched() as watch:
                    ended = self._attempt(job, watch)
            except BaseException:
                # Ctrl-C, a kill of the greenlet that this runs in, or a timeout of the caller's.
                self._listener.on_stopped(job, started, time.monotonic())
                raise
            finally:
                del self._running[number]
            self._tell(job, ended, started, time.monotonic())

    def _attempt(self, job: Job, watch: int) -> Outcome:
        definition, pen = job.definition, _Pen(job, self._listener)
        try:
            args, kwargs = _received(job.payload)
        except (KeyboardInterrupt, GreenletExit):
            raise
        except BaseException as error:
            if is_outer(error, watch):
                raise
            return outcome.failed(Ended.UNDECODED, _ours_cut_off(error), self._limit)
        limit = definition.timeout
        deadline = time.time() + limit if limit else None
        here = Current(job.id, definition.name, job.attempt, deadline, pen)
        try:
            # A worker's task inherits no context variables either.
            value = contextvars.Context().run(_call, job, here, args, kwargs)
            if value is DEFERRED:
                pen.wait()
        except Cancelled:
            return outcome.stopped(Ended.CANCELLED)
        except (KeyboardInterrupt, GreenletExit):
            raise
        except BaseException as error:
            if is_outer(error, watch):
                raise
            return outcome.failed(Ended.ERROR, _ours_cut_off(error), self._limit)
        if pen.ended:
            if pen.error is not None:
                return outcome.failed(Ended.ERROR, pen.error, self._limit, pen.last_message)
            value = pen.result
        return outcome.completed(definition.name, value, self._limit)

    def _tell(self, job: Job, ended: Outcome, started: float, now: float) -> None:
        kind, flags, payload = ended
        if kind != DONE:
            if flags == Ended.CANCELLED:
                self._listener.on_stopped(job, started, now)
                return
            fault = Fault(*messages.unpack(memoryview(payload.body)))
            failure = causes.failed_run(job, Ended(flags), fault)
            if fault.last_message:
                job.last_message = fault.last_message
            self._listener.on_failed(job, failure, fault.exception, started, now)
            return
        try:
            result = decode_value(payload.flags, payload.body, _buffers(payload))
        except BaseException as error:  # whatever a reduction raises is the task's failure
            failure = causes.undecoded(job, "result", error)
            self._listener.on_failed(job, failure, None, started, now)
            return
        self._listener.on_completed([(job, result, payload.size, started, now)])


class _Pen(Progress):
    """A running task's pen; whoever writes with it hears that the task is to stop."""

    def __init__(self, job: Job, listener: PoolListener) -> None:
        super().__init__(self._write)
        self._job = job
        self._listener = listener

    def _write(self, completed: float, target: float, message: str) -> None:
        job = self._job
        if job.handle.done():
            return  # something that the task has left behind still holds it
        job.note_progress(completed, target, message)
        self._listener.on_progress(job)
        if job.stop is not None:
            raise Cancelled(job.stop.name.lower())

    def wait(self) -> None:
        """A task that goes on after its ``run``: wait until it says that it has ended."""
        if not self.ended:
            ended = Latch()
            self._on_end = ended.open
            ended.wait()


def _call(job: Job, here: Current, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    running.set(here)
    target = job.definition.target
    if job.flags & CHUNK:
        *carried, items = args
        return [target(*carried, item) for item in items]
    if job.definition.flags & CLASS:
        return target.perform(here, args, kwargs)
    return target(*args, **kwargs)


def _received(payload: Payload) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return decode_arguments(payload.flags, payload.body, _buffers(payload))


def _buffers(payload: Payload) -> list[object]:
    """Buffers as they arrive: copies, of the types that were sent."""
    received = []
    for raw in payload.buffers:
        made, view = allocate(raw.nbytes, becomes(raw))
        view[:] = raw
        received.append(made)
    return received


def _ours_cut_off(error: BaseException) -> BaseException:
    """The error without our own frames: its traceback begins in the task."""
    trace: TracebackType | None = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    return error.with_traceback(trace)
