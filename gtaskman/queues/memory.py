"""The queue of one process: two lines of those that are ready, and what time brings."""

from __future__ import annotations

import bisect
import collections
import itertools
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from gtaskman.config import Configuration
from gtaskman.errors import ConfigurationError, DuplicateTaskError
from gtaskman.job import Job
from gtaskman.queues.base import TaskQueue
from gtaskman.queues.dead import DeadLetters
from gtaskman.queues.schedule import Schedule
from gtaskman.report import Report, TaskStatus
from gtaskman.task import Task
from gtaskman.terms import DEFAULT

_FAILED = TaskStatus.FAILED


class InMemoryTaskQueue(TaskQueue):
    """Jobs of this process, gone with it.

    A signal handler that submits or cancels may interrupt any of this, wherever a function is
    called or returns. Where a job changes its state, the check and the change therefore stand
    together, without a call between them, and before what is done about it.
    """

    shared = False

    def __init__(self) -> None:
        self._sync = _Line()
        self._async = _Line()
        self._delayed = Schedule(self._is_delayed)
        self._delayed_count = 0
        self.delayed_cost = 0
        self._manager: Any = None
        self._deadlines = Schedule(self._must_start)
        self._expired: list[Job] = []  # claimed, but nobody has asked for them yet
        self._jobs: dict[str, Job] = {}  # all that wait or run
        self._keys: dict[str, str] = {}  # unique key -> id
        self._dead = DeadLetters(Configuration.keep_finished, Configuration.keep_bytes)
        self._claimed = 0
        self._next_place = itertools.count(1).__next__
        self._available: list[Callable[[], None]] = []

    def occupy(self, manager: object) -> None:
        if self._manager not in (None, manager):
            raise ConfigurationError(
                "this InMemoryTaskQueue belongs to another manager, which has not been stopped:"
                " give each manager a queue of its own, or share one on a server",
                "queue",
            )
        self._manager = manager

    def release(self, manager: object) -> None:
        if self._manager is manager:
            self._manager = None
            self._available.clear()

    def configure(self, config: Configuration) -> None:
        self._dead.bound(config.keep_finished, config.keep_bytes)

    def on_available(self, callback: Callable[[], None]) -> None:
        self._available.append(callback)

    # --- in and out

    def enqueue(self, job: Job | Task) -> None:
        if type(job) is not Job and isinstance(job, Task):
            self._submit(job)
            return
        if job.terms is not DEFAULT or self._dead.letters:
            if job.ready_at and job.ready_at <= time.monotonic():
                job.ready_at = 0.0
            self._take_in(job)
            if not self._put_under_terms(job):
                return
        else:
            # The way of most tasks: the same as the other one, without a call.
            if job.id in self._jobs:
                raise DuplicateTaskError(job.id)
            self._jobs[job.id] = job
            job.place = self._next_place()
            (self._async if job.definition.is_async else self._sync).plain.append(job)
        for callback in self._available:
            callback()

    def _submit(self, task: Task) -> None:
        if self._manager is None:
            raise ConfigurationError(
                "this InMemoryTaskQueue has no manager yet, which would run the task: make one"
                " first, TaskManager(queue=...)",
                "queue",
            )
        self._manager.submit(task)

    def admit(self, job: Job) -> bool:
        if self.paused or job.ready_at:
            return False
        if len(self._jobs) > self._claimed and any(self.waiting()):
            return False
        self._take_in(job)
        job.claimed = True
        self._claimed += 1
        return True

    def _take_in(self, job: Job) -> None:
        """Note its id and its key, and give it a place. Raises :class:`DuplicateTaskError`."""
        if job.id in self._jobs:
            raise DuplicateTaskError(job.id)
        if job.unique:
            holder = self._keys.setdefault(job.unique, job.id)
            if holder != job.id:
                raise DuplicateTaskError(holder, job.unique)
        self._jobs[job.id] = job
        if self._dead.letters:
            self._dead.forget(job.id)
        job.place = self._next_place()

    def _put_under_terms(self, job: Job) -> bool:
        """Have a job wait as its terms say; gives whether it is ready."""
        if job.start_by:
            self._deadlines.add(job.start_by, job)
        if job.ready_at:
            self._delay(job)
            return False
        self._make_ready(job)
        return True

    def _delay(self, job: Job) -> None:
        self._delayed_count += 1
        self.delayed_cost += job.cost
        self._delayed.add(job.ready_at, job)

    def _no_longer_delayed(self, job: Job) -> None:
        self._delayed_count -= 1
        self.delayed_cost -= job.cost

    def _make_ready(self, job: Job) -> None:
        """A job waits for nothing but its turn."""
        if not job.place:
            job.place = self._next_place()
        self._line(job).add(job)

    def claim(self, sync: int, asyncs: int) -> list[Job]:
        if self.paused:
            return []
        if self._delayed or self._deadlines:
            self._catch_up()
        jobs: list[Job] = []
        if asyncs:
            self._async.take(asyncs, jobs)
        if sync:
            self._sync.take(sync, jobs)
        count = len(jobs)
        self._claimed += count
        return jobs

    def refund(self, jobs: Iterable[Job]) -> None:
        for job in jobs:
            self._release(job)
            if job.start_by:
                self._deadlines.add(job.start_by, job)
            self._line(job).add(job)

    def retry(self, job: Job, delay: float = 0.0) -> None:
        job.ready_at = time.monotonic() + delay if delay else 0.0
        job.place = 0  # it gets another one when it is ready
        self._release(job)
        if delay:
            self._delay(job)
        else:
            self._make_ready(job)

    def settle(self, job: Job, report: Report) -> None:
        if job.claimed:
            job.claimed = False
            self._claimed -= 1
        self._jobs.pop(job.id, None)
        if job.unique:
            self._free(job)
        if report.status is _FAILED:
            self._dead.add(job, report)

    def restore(self, jobs: Mapping[str, Job], held: Collection[Job]) -> list[Job]:
        self._sync, self._async = _Line(), _Line()
        self._delayed, self._deadlines = Schedule(self._is_delayed), Schedule(self._must_start)
        self._delayed_count = self.delayed_cost = self._claimed = 0
        self._expired = []
        self._jobs = {key: job for key, job in self._jobs.items() if jobs.get(key) is job}
        self._keys = {job.unique: key for key, job in self._jobs.items() if job.unique}
        waiting = []
        for job in sorted(self._jobs.values(), key=_place):
            job.claimed, job.withdrawn = job in held, False
            if job.claimed:
                self._claimed += 1
                continue
            waiting.append(job)
            if job.start_by:
                self._deadlines.add(job.start_by, job)
            if job.ready_at:
                self._delay(job)
            else:
                self._make_ready(job)
        return waiting

    def _release(self, job: Job) -> None:
        if job.claimed:
            job.claimed = False
            self._claimed -= 1

    def _free(self, job: Job) -> None:
        if self._keys.get(job.unique) == job.id:
            del self._keys[job.unique]

    def cancel(self, task_id: str) -> Job | None:
        job = self._jobs.get(task_id)
        if job is None or job.claimed or job.withdrawn:
            return None
        job.withdrawn = True
        self._withdraw(job)
        self._free(job)
        self._jobs.pop(task_id, None)
        return job

    def _withdraw(self, job: Job) -> None:
        """Take a job out of where it waits.

        Looking for it in the line would take longer the longer the line is: it is passed over when
        its turn comes.
        """
        if job.ready_at:
            self._no_longer_delayed(job)
        else:
            self._line(job).withdrawn += 1

    def drop(self) -> list[Job]:
        self._catch_up()
        jobs = [job for job in self._jobs.values() if not job.claimed and not job.ready_at]
        jobs.sort(key=_place)
        for job in jobs:
            self._free(job)
            del self._jobs[job.id]
        self._sync.clear()
        self._async.clear()
        return jobs

    def _line(self, job: Job) -> _Line:
        return self._async if job.definition.is_async else self._sync

    # --- time

    def due(self) -> float | None:
        if self._expired:
            return 0.0
        moments = [each.next() for each in (self._delayed, self._deadlines)]
        first = min((each for each in moments if each is not None), default=None)
        return None if first is None else max(0.0, first - time.monotonic())

    def expired(self) -> list[Job]:
        self._catch_up()
        jobs, self._expired = self._expired, []
        return jobs

    def _catch_up(self) -> None:
        """Do what is due by now."""
        now = time.monotonic()
        for when, job in self._delayed.take(now):
            if job.withdrawn or job.ready_at != when:
                continue
            job.ready_at = 0.0
            self._no_longer_delayed(job)
            self._make_ready(job)
        for _, job in self._deadlines.take(now):
            if job.withdrawn or job.claimed:
                continue
            job.withdrawn = job.claimed = True
            self._claimed += 1
            self._withdraw(job)
            self._expired.append(job)

    def _is_delayed(self, when: float, job: Job) -> bool:
        return job.ready_at == when and self._jobs.get(job.id) is job

    def _must_start(self, when: float, job: Job) -> bool:
        return job.start_by == when and not job.claimed and self._jobs.get(job.id) is job

    # --- pausing

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False
        if any(self.waiting()):
            for callback in self._available:
                callback()

    # --- those that failed for good

    def dead(self, offset: int = 0, limit: int = 50) -> list[Report]:
        return self._dead.reports(offset, limit)

    def revive(self, task_id: str) -> Job | None:
        job = self._dead.job(task_id)
        if job is not None:
            if job.ready_at <= time.monotonic():
                job.ready_at = 0.0
            self._take_in(job)
            self._put_under_terms(job)
        return job

    # --- numbers

    def waiting(self) -> tuple[int, int]:
        if self._delayed or self._deadlines:
            self._catch_up()
        return self._sync.count, self._async.count

    def delayed(self) -> int:
        return self._delayed_count - len(self._delayed.due(time.monotonic()))

    def running(self) -> int:
        return self._claimed

    def info(self) -> dict[str, Any]:
        # This changes nothing: another thread, or a signal handler, may ask at any moment.
        delayed, expired = self.delayed(), len(self._deadlines.due(time.monotonic()))
        running = self._claimed + expired
        return {
            "name": self.name,
            "paused": self.paused,
            "waiting": max(0, len(self._jobs) - running - delayed),
            "delayed": delayed,
            "running": running,
            "dead": len(self._dead),
        }


class _Line:
    """Those of one kind that are ready: a lane for each priority, the highest first.

    In each lane they stand by their place. An empty lane stays: there are as many as priorities.
    """

    def __init__(self) -> None:
        self.plain: collections.deque[Job] = collections.deque()  # the usual priority
        self.withdrawn = 0  # how many are still in a lane and are to be passed over
        self._lanes = {DEFAULT.priority: self.plain}

    @property
    def count(self) -> int:
        """How many wait."""
        return sum(map(len, self._lanes.values())) - self.withdrawn

    def add(self, job: Job) -> None:
        """Put a job at its place: the end, as a rule, or the beginning."""
        lane = self._lane(job.terms.priority)
        if not lane or lane[-1].place < job.place:
            lane.append(job)
        elif job.place < lane[0].place:
            lane.appendleft(job)
        else:
            bisect.insort(lane, job, key=_place)

    def _lane(self, priority: int) -> collections.deque[Job]:
        while (lane := self._lanes.get(priority)) is None:
            before = self._lanes
            lanes = {**before, priority: collections.deque[Job]()}
            lanes = dict(sorted(lanes.items(), reverse=True))
            if self._lanes is before:  # else a signal handler has made one
                self._lanes = lanes
        return lane

    def take(self, most: int, jobs: list[Job]) -> None:
        """Move up to ``most`` to the end of ``jobs``; they are claimed."""
        for lane in self._lanes.values():
            while most and lane:
                job = lane.popleft()
                if job.withdrawn:
                    self.withdrawn -= 1
                    continue
                job.claimed = True
                jobs.append(job)
                most -= 1

    def clear(self) -> None:
        """Forget everything."""
        self.plain.clear()
        self._lanes = {DEFAULT.priority: self.plain}
        self.withdrawn = 0


def _place(job: Job) -> int:
    return job.place
