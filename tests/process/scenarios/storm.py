"""The storm: everything that can go wrong, at random, and what must be true all the same."""

from __future__ import annotations

import collections
import contextlib
import os
import random
import signal
import time

import gevent
from worlds import descendants_of, descriptors, parent_of

import gtaskman
from scenarios import stage, work
from scenarios.control import fate, lines, scratch
from scenarios.stage import PATIENCE, wait_until

CRASHED, TIMED_OUT, FAILED = gtaskman.WorkerCrashed, gtaskman.TaskTimedOut, gtaskman.TaskFailed
CONFIG = {
    "min_processes": 2,
    "max_processes": 3,
    "max_jobs_per_process": 8,
    "max_tasks_per_process": 40,
    "prefetch": 4,
    "kill_grace": 0.25,
    "ttl": 0.3,
}


class Storm:
    """One storm; ``seed`` makes what is submitted and done the same, though never its timing."""

    def __init__(self, manager, seed):
        self.manager = manager
        self.chance = random.Random(seed)
        self.handles = {}  # id -> handle, what it may come to beside a crash or its cancel
        self.live = collections.deque(maxlen=64)
        self.cancelled = set()
        self.told = collections.Counter()
        self.path = scratch()
        self.once = {}
        self.stopped = set()
        self.done = collections.Counter()
        self.number = 0
        for event in ("task-completed", "task-failed", "task-cancelled"):
            manager.on(event, lambda report: self.told.update([report.id]))

    # --- what is submitted

    def submit(self):
        kind = self.chance.choice(["sync", "async"])
        choose = self.chance.choices(
            [self.plain, self.short, self.crashing, self.limited, self.single, self.long, self.bad],
            [30, 30, 4, 8, 12, 8, 4],
        )[0]
        self.number += 1
        choose(kind)

    def keep(self, handle, *expected):
        self.handles[handle.id] = (handle, expected)
        self.live.append(handle)

    def plain(self, kind):
        a, b = self.number, self.chance.randrange(9)
        self.keep(self.manager.submit(work.of(kind, "add"), a, b), a + b)

    def short(self, kind):
        name = self.chance.choice(["compute", "rest"])
        seconds = self.chance.uniform(0, 0.02)
        retries = self.chance.choice([0, 0, 2])
        task = work.of(kind, name).with_options(retries=retries)
        self.keep(self.manager.submit(task, seconds), int)

    def crashing(self, kind):
        how = self.chance.choice(["exit", "kill", "segv"])
        self.keep(self.manager.submit(work.of(kind, "die"), how))

    def limited(self, kind):
        name = self.chance.choice(["nap", "spin", "block", "stubborn"])
        task = work.of(kind, name).with_options(timeout=self.chance.uniform(0.02, 0.1))
        self.keep(self.manager.submit(task, 60.0), TIMED_OUT)

    def single(self, kind):
        text = f"once {self.number}"
        handle = self.manager.submit(
            work.of(kind, "once"), self.path, text, self.chance.uniform(0, 0.01)
        )
        self.once[text] = handle
        self.keep(handle, text)

    def long(self, kind):
        name = self.chance.choice(["nap", "spin", "stubborn"])
        handle = self.manager.submit(work.of(kind, name), 60.0)
        self.keep(handle)
        gevent.spawn_later(self.chance.uniform(0, 0.2), self.cancel, handle)

    def bad(self, kind):
        self.keep(self.manager.submit(work.of(kind, "fail_with_attributes")), FAILED)

    # --- what is done to it

    def cancel(self, handle):
        if not handle.done():
            self.cancelled.add(handle.id)
            self.done["cancel"] += handle.cancel("storm")

    def strike(self):
        deed = self.chance.choices(
            [self.cancel_any, self.kill, self.pause, self.recall, self.kill_template],
            [40, 10, 8, 10, 1],
        )[0]
        deed()

    def cancel_any(self):
        if self.live:
            self.cancel(self.chance.choice(self.live))

    def victim(self):
        pids = self.manager.pids()
        return self.chance.choice(pids) if pids else None

    def signal(self, pid, number):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    def kill(self):
        if pid := self.victim():
            self.done["kill"] += 1
            self.signal(pid, signal.SIGKILL)

    def pause(self):
        if pid := self.victim():
            self.done["pause"] += 1
            self.signal(pid, signal.SIGSTOP)
            self.stopped.add(pid)
            gevent.spawn_later(self.chance.uniform(0.01, 0.15), self.go_on, pid)

    def go_on(self, pid):
        self.stopped.discard(pid)
        if pid in self.manager.pids():
            self.signal(pid, signal.SIGCONT)

    def recall(self):
        workers = [w for w in self.manager._pool._workers.values() if w.open and not w.recalled]
        if workers:
            self.done["recall"] += 1
            self.chance.choice(workers).recall()

    def kill_template(self):
        if pid := self.victim():
            with contextlib.suppress(AssertionError):
                parent = parent_of(pid)
                if parent not in (os.getpid(), 1):
                    self.done["kill template"] += 1
                    self.signal(parent, signal.SIGKILL)

    # --- its course

    def rage(self, seconds):
        end = time.monotonic() + seconds

        def strikes():
            while time.monotonic() < end:
                gevent.sleep(self.chance.uniform(0, 0.04))
                self.strike()

        striker = gevent.spawn(strikes)
        while time.monotonic() < end:
            for _ in range(self.chance.randrange(1, 12)):
                self.submit()
            gevent.sleep(self.chance.uniform(0, 0.03))
            # Not more on its way than can be dealt with in the end.
            while sum(self.waiting()) > 60 and time.monotonic() < end:
                gevent.sleep(0.01)
        striker.get()

    def waiting(self):
        stats = self.manager.stats()
        return stats["pool"]["current_tasks"], stats["queue"]["current_tasks"]

    def subside(self):
        for pid in list(self.stopped):
            self.go_on(pid)
        gevent.wait([handle for handle, _ in self.handles.values()], timeout=PATIENCE)
        lost = [repr(handle) for handle, _ in self.handles.values() if not handle.done()]
        assert not lost, f"{len(lost)} tasks have not settled: {lost[:10]} {self.manager!r}"

    # --- what must be true

    def verify(self):
        # Whoever is told by events hears a little later.
        wait_until(lambda: len(self.told) >= len(self.handles), timeout=5)
        assert self.told.keys() == self.handles.keys()
        assert set(self.told.values()) <= {1}, [each for each in self.told.items() if each[1] > 1]
        for handle, expected in self.handles.values():
            self.verify_outcome(handle, fate(handle), expected)
        self.verify_single()
        numbers = self.manager.stats()["pool"]
        ended = sum(numbers[f"{how}_tasks"] for how in ("completed", "failed", "cancelled"))
        assert ended == numbers["total_tasks"] == len(self.handles), numbers
        assert self.waiting() == (0, 0)

    def verify_outcome(self, handle, outcome, expected):
        if isinstance(outcome, gtaskman.TaskCancelled):
            assert handle.id in self.cancelled, f"nobody cancelled {handle!r}"
            return
        if type(outcome) is CRASHED:
            return
        for each in expected:
            if outcome == each or (isinstance(each, type) and type(outcome) is each):
                return
        raise AssertionError(f"{handle!r} came to {outcome!r}, not {expected}")

    def verify_single(self):
        runs = collections.Counter(lines(self.path))
        assert set(runs.values()) <= {1}, f"ran twice: {[r for r in runs.items() if r[1] > 1]}"
        for text, handle in self.once.items():
            assert runs[text] or not handle.successful(), f"{text} never ran, and was successful"
        self.done["once"] = len(runs)


def rest(manager):
    """Wait until nothing is left but what is always there; gives the open descriptors."""
    wait_until(lambda: len(manager.pids()) == CONFIG["min_processes"], what="a pool at rest")
    wait_until(
        lambda: len(descendants_of(os.getpid())) <= CONFIG["min_processes"] + 1,
        what="no processes but those of the pool",
    )
    return descriptors()


def storm(seconds, seed):
    with stage.manager(**CONFIG) as manager:
        assert manager.wait_ready(PATIENCE)
        for _ in range(4):
            manager.submit(work.add, 1, 1).get(timeout=PATIENCE)
        before = collections.Counter(kind(each) for each in rest(manager).values())
        manager._counts = dict.fromkeys(manager._counts, 0)

        one = Storm(manager, seed)
        one.rage(seconds)
        one.subside()
        one.verify()

        # Capacity is what it was: so many run at once as at first.
        naps = [manager.submit(work.nap, 0.5) for _ in range(CONFIG["max_processes"])]
        wait_until(lambda: manager.stats()["pool"]["current_tasks"] == len(naps), timeout=10)
        assert [each.get(timeout=PATIENCE) for each in naps] == ["rested"] * len(naps)
        after = collections.Counter(kind(each) for each in rest(manager).values())
        assert not after - before, f"descriptors leaked: {after - before} ({before} before)"
        workers = manager._pool._workers.values()
        assert all(not each.jobs and not each.sync and not each.asyncs for each in workers)
        assert not manager._jobs and not manager._pending and not manager.queue.running()
    assert descendants_of(os.getpid()) == []
    counted = collections.Counter(str(each[0].report.status.value) for each in one.handles.values())
    return {**one.done, **counted, "tasks": len(one.handles)}


def kind(what):
    """A descriptor without the number that makes it unique."""
    return what.split(":[")[0]
