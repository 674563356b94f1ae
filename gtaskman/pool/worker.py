"""One worker, as its manager sees it: its state, and the runs that are in its process.

::

    STARTING --READY--> OPEN --limit, restart--> DRAINING --nothing left--> STOPPING --> DEAD
        |  |             ^ '--TTL, scale-down----------------------------------^         ^
        |  '--> STANDBY -'                                                               |
        '--refused, too late, crash------------------------------------------------------'
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from gtaskman.errors import FrameError
from gtaskman.job import Job
from gtaskman.pool.listener import Completion
from gtaskman.pool.process import Process
from gtaskman.pool.verdict import Traces, Verdict, judge
from gtaskman.reference import Reference
from gtaskman.wire import messages
from gtaskman.wire.frames import Frame, head
from gtaskman.wire.messages import DONE, FAIL, SPAN, VOID, VOIDS, Why, order_frame

_WEIGHT = 0.2  # of the newest task in the mean of their durations
_OUTLIER = 2.0  # durations beyond so many means are taken for so many
_AHEAD = 2e-3  # seconds of work that a worker holds ahead of time
_NO_LIMIT = 1 << 62


class State(enum.Enum):
    """Where a worker is in its life."""

    STARTING = enum.auto()  # left on READY; on a refusal, an exit or start_timeout: DEAD
    STANDBY = enum.auto()  # ready to replace another one, and opened when that runs no sync task
    OPEN = enum.auto()  # takes tasks; a crash leaves its jobs to be judged
    DRAINING = enum.auto()  # takes none, finishes what it has begun
    STOPPING = enum.auto()  # has nothing left and was told to end; killed if it does not
    DEAD = enum.auto()  # its jobs are judged, its capacity is free


# A run that has ended: its job, the frame that says how, its start and end (monotonic).
End = tuple[Job, Frame, float, float]


class Worker(Process):
    """The parent's end of one child. It carries out; the pool decides."""

    def __init__(
        self,
        number: int,
        loop: Any,
        limit: int,
        on_frames: Callable[[Worker, list[Frame]], None],
        on_gone: Callable[[Worker, FrameError | None], None],
    ) -> None:
        super().__init__(number, loop, limit, on_frames, on_gone)
        self.state = State.STARTING
        self.open = False  # the state as assign() asks for it
        self.reserved = False
        self.sync = 0
        self.asyncs = 0
        self.depths = (1, 1)  # how many sync tasks it may hold, at the least and at the most
        self.stuck = False  # it gave back what stood behind a long task, which has not ended yet
        self.budget = _NO_LIMIT
        self.jobs: dict[int, Job] = {}
        self.idle_since = self.started_at
        self.mean = 0.0  # seconds that its sync tasks take; 0 while unknown
        self.done = 0
        self.rss_checked = self.started_at
        self.recalled = False  # it was asked to give back what has not started
        self.sent = 0  # tasks that it was ever given, less those that came back
        self.worn = False  # it has reached a limit, and is to be replaced
        self.replaced = False  # another worker has its place
        self.culprits: set[int] = set()  # the runs for whose sake it is being killed
        self.nonsense: Exception | None = None  # what it said last could not be understood
        self.ordered = False  # whoever starts it has been told to
        self.unsendable: list[tuple[Job, Exception]] = []  # jobs that could not be handed over
        self._defined: set[int] = set()
        self._progress: tuple[int, ...] = ()  # what had been done when it was last looked at
        self._progress_at = self.started_at

    # --- predicates

    @property
    def idle(self) -> bool:
        """Whether it takes tasks and has none."""
        return self.open and not self.jobs

    @property
    def depth(self) -> int:
        """How many sync tasks it may hold at once: some milliseconds' worth, within limits."""
        if self.stuck:
            return 1
        least, most = self.depths
        return max(least, min(most, int(_AHEAD / self.mean))) if self.mean else least

    @property
    def alive(self) -> bool:
        """Whether it counts as a process of the pool."""
        return self.state is not State.DEAD

    def has_stalled(self, now: float, grace: float) -> bool:
        """Whether it has done nothing for ``grace`` seconds, though it was at no run.

        To read a large order is work as well, and so is to send a large result.
        """
        progress = self.sent, self._slate.begun(), self.channel.total, self.done
        if progress != self._progress or self._slate.arriving() > self._slate.received():
            self._progress, self._progress_at = progress, now
        return now - self._progress_at > grace

    def running_number(self) -> int:
        """The sync run that the child is at, by its slate (0: none)."""
        return self._slate.running().number if self.alive else 0

    def running_since(self) -> tuple[int, float]:
        """That run and the monotonic time at which it began."""
        return self._slate.running() if self.alive else (0, 0.0)

    def judge(self) -> list[tuple[Job, Verdict]]:
        """It has died: what has become of each of its jobs."""
        slate = self._slate
        traces = Traces(self.running_number(), slate.begun(), slate.received(), slate.arriving())
        return judge(self.jobs.values(), traces, self.culprits)

    # --- the process

    def become(self, state: State) -> None:
        """Move to ``state``."""
        self.state = state
        self.open = state is State.OPEN

    def kill(self, reason: str, culprits: set[int] | None = None) -> None:
        """End the process at once; ``culprits`` are the runs it is done for."""
        self.culprits |= culprits or set()
        self.open = False
        self.end(reason)

    # --- what it is told

    def run(
        self,
        jobs: Iterable[Job],
        numbers: Iterator[int],
        reference: Callable[[Job], Reference],
    ) -> list[Job]:
        """Take over jobs, each under the next of ``numbers``; they go with the next flush.

        A hot loop: once for every task. Gives those that are async or have a time limit. Those of
        which no order can be made are left out, and put into ``unsendable`` with the error.
        """
        parts, mine, defined = self.channel.parts, self.jobs, self._defined
        special: list[Job] = []
        sync = asyncs = 0
        for job in jobs:
            definition = job.definition
            try:
                if definition.number not in defined:
                    self._define(job, reference(job))
                load, body, buffers = job.payload
                flags, limit = job.flags | load | definition.flags, definition.timeout or 0.0
                code, attempt, task_id = definition.number, job.attempt, job.id
                number = next(numbers)
                frame = order_frame(flags, number, code, attempt, task_id, limit, body, buffers)
                order: Iterable[bytes | memoryview] = (frame,)
                if buffers:
                    order = [frame, *[raw for raw in buffers if raw.nbytes]]
            except Exception as error:
                self.unsendable.append((job, error))
                continue
            if definition.is_async:
                asyncs += 1
                special.append(job)
            else:
                sync += 1
                if definition.is_limited:
                    special.append(job)
            # No signal handler can raise in these: an order of a job goes with its place in here.
            job.number, job.worker = number, self
            mine[number] = job
            parts += order
        self.sync += sync
        self.asyncs += asyncs
        self.sent += sync + asyncs
        return special

    def _define(self, job: Job, reference: Reference) -> None:
        definition = job.definition
        # Should a signal handler raise in between, the worker is told once more.
        self.put(messages.DEFINE, definition.number, messages.pack((definition.name, reference)))
        self._defined.add(definition.number)

    def cancel(self, number: int, why: Why) -> None:
        """Ask for the end of one run, now."""
        self.channel.put(head(messages.CANCEL, why, number, 0))
        self.channel.flush()
        self.ring()

    def recall(self) -> None:
        """Ask for what has not started, now."""
        self.recalled = True
        self.put(messages.RECALL, 0)
        self.channel.flush()
        self.ring()

    def ping(self, number: int) -> None:
        """Ask what it is doing, now."""
        self.put(messages.PING, number)
        self.channel.flush()
        self.ring()

    def stop(self) -> None:
        """Tell it to end: it has nothing left to do."""
        self.become(State.STOPPING)
        self.put(messages.STOP, 0)
        self.channel.flush()

    def recount(self) -> None:
        """Count what it has: a signal handler may have raised before that was noted."""
        self.asyncs = sum(job.definition.is_async for job in self.jobs.values())
        self.sync = len(self.jobs) - self.asyncs

    # --- what it has done

    def take_ended(
        self,
        frames: list[Frame],
        on_word: Callable[[Worker, Frame], None],
        completed: list[Completion],
        ended: list[End],
    ) -> None:
        """The runs that have ended, of what the child said; all else goes to ``on_word``, in order.

        Those that returned nothing are added to ``completed``, those of which a frame says how to
        ``ended``. A signal handler may raise in here: called again with the same frames, it goes
        on where it was. Runs that are not known (any more) are left out, and so is all that follows
        something that cannot be understood, which ``nonsense`` then says. A hot loop: once for
        every task.
        """
        before = len(completed) + len(ended)
        jobs, span, mean = self.jobs, SPAN.unpack_from, self.mean
        runs: Iterable[tuple[int, float, float]]
        how: Frame | None
        try:
            for frame in frames:
                kind, _, number, body, _ = frame
                if kind == VOIDS:
                    how, runs = None, VOID.iter_unpack(body)
                elif kind in (DONE, FAIL):
                    if number not in jobs:
                        continue
                    how, runs = frame, ((number, *span(body)),)
                else:
                    on_word(self, frame)
                    continue
                for number, started, finished in runs:
                    if number not in jobs:
                        continue
                    job = jobs[number]
                    is_async = job.definition.is_async
                    if not is_async:
                        took = finished - started
                        if not started:
                            pass  # cancelled before it began: it says nothing about durations
                        elif mean:
                            # One long task among short ones does not make the short ones long.
                            mean += (min(took, _OUTLIER * mean + _AHEAD) - mean) * _WEIGHT
                        else:
                            mean = took
                    # From here to append no handler can run: a run is in one of the two lists.
                    if is_async:
                        self.asyncs -= 1
                    else:
                        self.sync -= 1
                    del jobs[number]
                    if how is None:
                        completed.append((job, None, 0, started, finished))
                    else:
                        ended.append((job, how, started, finished))
        except Exception as error:
            self.nonsense = error
        self.done += len(completed) + len(ended) - before
        self.mean = mean
        if len(completed) + len(ended) > before:
            self.stuck = False

    def give_back(self, number: int) -> Job | None:
        """A run has not begun and will not: its job."""
        job = self.jobs.pop(number, None)
        if job is not None:
            self.sent -= 1
            self.sync -= 1
        return job

    def __repr__(self) -> str:
        return (
            f"<Worker {self.number} pid={self.pid} {self.state.name.lower()}"
            f" sync={self.sync} async={self.asyncs} done={self.done}>"
        )
