"""Every end of a task against every other, in orders that a seed chooses: each task ends once.

The manager is the real one, its pool is scripted: what workers and time would do is a step that
the seed picks. A longer run::

    GTASKMAN_SEEDS=20000 pytest tests/unit/test_manager_interleavings.py
"""

from __future__ import annotations

import os
import random
import time
from typing import Any, NamedTuple

import gevent
import pytest

import gtaskman
from gtaskman.report import Failure, FailureKind
from gtaskman.taskmanager import State, TaskManager
from gtaskman.timetable import Timetable
from gtaskman.wire.messages import Why
from gtaskman.wire.resumed import Resumed

pytestmark = pytest.mark.quick

SEEDS = int(os.environ.get("GTASKMAN_SEEDS", "300"))
FIRST = int(os.environ.get("GTASKMAN_FIRST_SEED", "0"))
BATCH = 50  # seeds of one test
STEPS = 120
IDS = ("a", "b", "c", "d")
KEYS = (None, "k", "l")


class Plan(NamedTuple):
    total_sync: int
    total_async: int


class ScriptedPool:
    """Takes jobs into a few slots, and does with them what :class:`Story` says."""

    broken: dict[str, str] = {}
    reserves = False
    processes = peak = 1

    def __init__(self, story: Story) -> None:
        self.story = story
        self.jobs: list[Any] = []
        self.numbers = 0

    def free(self) -> int:
        return max(0, 3 - len(self.jobs))

    def first_idle(self):
        return self if self.free() else None

    def hand(self, _idle, jobs):
        for job in jobs:
            self.numbers += 1
            job.number, job.worker = self.numbers, None
            self.jobs.append(job)
            self.story.began(job)

    def plan(self, sync, asyncs):
        count = min(self.free(), sync)
        return Plan(count, min(self.free() - count, asyncs))

    def dispatch(self, _plan, jobs):
        self.hand(None, jobs)

    def cancel(self, job, why):
        if job in self.jobs and job.stop is not Why.CANCELLED:
            job.stop = why

    def counts(self):
        return len(self.jobs), 0

    def prepare(self, _definition):
        pass

    def follow(self, _plan, _left):
        pass

    def rest(self):
        pass


class ScriptedManager(TaskManager):
    """A manager on this hub whose pool is scripted."""

    def __init__(self, story: Story) -> None:
        super().__init__()
        self.story = story

    def _set_up(self):
        self._pump = Resumed(self._home.loop, self._pump_when_due)
        self._pool = ScriptedPool(self.story)
        self._timetable = Timetable(self._home.loop, self._line, self._on_due, self._on_late)
        self._archive.follow(self._jobs)
        self._state = State.RUNNING
        self.on_ready()

    def close(self):
        """Settle what is left, as a stop does."""
        self._state = State.STOPPING
        for job in list(self._jobs.values()):
            self._give_up(job)
        self._pool.jobs.clear()
        self._end()
        self._timetable.close()
        self._state = State.STOPPED
        self._home.leave()


def nothing(_number=0):
    """A task that no worker ever sees."""


class Story:
    """One manager, and steps that ``seed`` chooses; raises AssertionError where one goes wrong."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.cancelled: set[int] = set()  # jobs whose cancel gave True
        self.ended: dict[int, int] = {}  # by job: how often its handle was settled
        self.submitted = self.revived = 0
        self.kept: list[Any] = []  # so that no id() is used twice
        self.handles: list[Any] = []
        self.manager = ScriptedManager(self).start()
        self.pool = self.manager._pool
        self.tasks = [
            gtaskman.task(name=f"interleaved.{retries}", retries=retries, backoff=0)(nothing)
            if f"interleaved.{retries}" not in gtaskman.task.__globals__["registry"]
            else self._known(retries)
            for retries in (0, 1, 3)
        ]

    @staticmethod
    def _known(retries):
        definition = gtaskman.task.__globals__["registry"][f"interleaved.{retries}"]
        return gtaskman.TaskFunction(definition)

    def began(self, job):
        assert id(job) not in self.cancelled, "a cancelled task began another attempt"
        assert not job.handle.done(), "a task began that has ended"

    def note(self, handle):
        self.handles.append(handle)
        job, settle = handle._job, handle.settle
        self.kept.append(job)

        def count(report, exception=None):
            self.ended[id(handle)] = self.ended.get(id(handle), 0) + 1
            return settle(report, exception)

        handle.settle = count

    # --- steps

    def submit(self):
        task = self.random.choice(self.tasks)
        terms = {}
        if key := self.random.choice(KEYS):
            terms["unique"] = key
        if self.random.random() < 0.2:
            terms["priority"] = self.random.randrange(3)
        made = task.with_options(**terms).with_id(self.random.choice(IDS), 1)
        original, manager = self.manager._accept, self.manager

        def accept(job):
            self.note(job.handle)
            original(job)

        manager._accept = accept
        try:
            manager.submit(made)
        except gtaskman.DuplicateTaskError:
            if self.handles and self.handles[-1].id == made.id and not self.handles[-1].done():
                job = self.handles[-1]._job
                if manager._jobs.get(made.id) is not job:
                    self.handles.pop()  # refused: nobody has this handle
            return
        finally:
            manager._accept = original
        self.submitted += 1

    def cancel(self):
        task_id = self.random.choice(IDS)
        job = self.manager._jobs.get(task_id)
        if self.manager.cancel(task_id, "on purpose"):
            self.cancelled.add(id(job))

    def take(self):
        jobs = self.pool.jobs
        return jobs.pop(self.random.randrange(len(jobs))) if jobs else None

    def complete(self):
        if job := self.take():
            now = time.monotonic()
            # Sometimes twice: a frame that was read before a worker died, and is told again.
            for _ in range(self.random.choice((1, 1, 2))):
                self.manager.on_completed([(job, None, 0, now, now)])
            self.manager.on_batch_end()
            self.manager.on_capacity()

    def fail(self, kind=FailureKind.ERROR):
        if job := self.take():
            if kind is FailureKind.CRASH:
                job.crashes += 1
            now = time.monotonic()
            self.manager.on_failed(job, Failure(kind, "on purpose"), None, now, now)
            self.manager.on_capacity()

    def crash(self):
        self.fail(FailureKind.CRASH)

    def time_out(self):
        if self.pool.jobs:
            self.pool.cancel(self.random.choice(self.pool.jobs), Why.TIMEOUT)
        self.fail(FailureKind.TIMEOUT)

    def stop_one(self):
        stopping = [job for job in self.pool.jobs if job.stop is Why.CANCELLED]
        if stopping:
            job = self.random.choice(stopping)
            self.pool.jobs.remove(job)
            now = time.monotonic()
            self.manager.on_stopped(job, now, now)
            self.manager.on_capacity()

    def give_back(self):
        if job := self.take():
            if job.stop is Why.CANCELLED:
                self.manager.on_stopped(job, 0.0, time.monotonic())
            else:
                job.begin_again()
                self.manager.on_returned([job])
            self.manager.on_capacity()

    def revive(self):
        dead = self.manager.dead()
        if not dead:
            return
        task_id = self.random.choice(dead).id
        original = self.manager._retry_here
        try:
            handle = original(task_id)
        except gtaskman.DuplicateTaskError:
            return
        if handle is not None:
            self.revived += 1
            if not handle.done():
                self.note(handle)
                self.cancelled.discard(id(handle._job))

    def pause(self):
        (self.manager.pause if self.random.random() < 0.5 else self.manager.resume)()

    def run(self):
        steps = [self.submit] * 6 + [self.cancel] * 3 + [self.complete, self.fail, self.crash]
        steps += [self.time_out, self.stop_one, self.stop_one, self.give_back, self.revive]
        steps += [self.pause]
        for _ in range(STEPS):
            self.random.choice(steps)()
            if self.random.random() < 0.2:
                gevent.sleep(0)  # the pump that is due, and the events
            self.check_sums()
        self.manager.close()
        self.check_end()

    def check_sums(self):
        numbers = self.manager.stats()["pool"]
        assert numbers["total_tasks"] == self.submitted + self.revived, numbers
        assert all(count == 1 for count in self.ended.values()), "a task ended twice"

    def check_end(self):
        info = self.manager.queue.info()
        assert self.manager._jobs == {}
        assert (info["waiting"], info["running"], info["delayed"]) == (0, 0, 0), info
        assert self.manager.queue._keys == {}
        assert self.manager._pending == 0
        assert all(handle.done() for handle in self.handles)
        self.check_sums()


def play(seeds):
    for seed in seeds:
        try:
            Story(seed).run()
        except BaseException:
            print(f"GTASKMAN_SEEDS=1 GTASKMAN_FIRST_SEED={seed}")
            raise


@pytest.mark.parametrize("first", range(FIRST, FIRST + SEEDS, BATCH))
def test_each_task_ends_once_whatever_meets(first, registered):
    play(range(first, min(first + BATCH, FIRST + SEEDS)))


def test_the_stories_find_a_cancelled_task_that_tries_again(monkeypatch, registered):
    def may_try_again(self, job, failure):
        job.stop = None
        return original(self, job, failure)

    original = TaskManager._may_try_again
    monkeypatch.setattr(TaskManager, "_may_try_again", may_try_again)
    with pytest.raises(AssertionError, match="another attempt"):
        play(range(200))
