"""Kills, time-outs and interrupts at switches that a seed chooses: nothing hangs, nothing is lost.

Greenlets of an application submit, wait, map, follow progress and cancel; while they wait, what a
seed picks is raised into them, into callbacks of events, into the manager's own loops, and into
tasks. Afterwards the manager must be as new. A longer run::

    GTASKMAN_SEEDS=500 pytest tests/process/test_switches.py
"""

from __future__ import annotations

import itertools
import os
import random
import time

import gevent
import greenlet
import pytest
from scenarios import eruptions, tasks
from worlds import PATIENCE, wait_until

import gtaskman
from gtaskman.storages import InMemoryTaskStorage

SEEDS = int(os.environ.get("GTASKMAN_SEEDS", "16"))
FIRST = int(os.environ.get("GTASKMAN_FIRST_SEED", "0"))
GREENLETS, ACTIONS, INTERRUPTS = 5, 6, 12
ERRORS = (gevent.GreenletExit, KeyboardInterrupt, SystemExit, ValueError)
SETTLED = ("completed", "failed", "cancelled")


class SlowStorage(InMemoryTaskStorage):
    """Waits, and sometimes fails, as one that is far away does."""

    waits = True

    def __init__(self, chance: random.Random) -> None:
        super().__init__(1000)
        self.chance = chance

    def update(self, report):
        gevent.sleep(0)
        if self.chance.random() < 0.1:
            raise self.chance.choice((OSError, gevent.Timeout))("on purpose")
        return super().update(report)


class Story:
    """One round with ``manager``: greenlets that act, and interrupts at their switches."""

    def __init__(self, manager, seed: int) -> None:
        self.manager = manager
        self.random = random.Random(seed)
        self.seed = seed
        self.handles: list[gtaskman.TaskHandle] = []
        self.actors: list[gevent.Greenlet] = []
        self.harmed: list[BaseException] = []  # failures of tasks that do nothing wrong
        self.switches = 0
        self.at = set(self.random.sample(range(1, 40 * GREENLETS), INTERRUPTS))

    # --- what the application does

    def act(self):
        for _ in range(ACTIONS):
            action = self.random.choice(
                (
                    *(self.get, self.get, self.unique, self.many, self.follow, self.cancel),
                    *(self.fail, self.erupt, self.erupt),
                )
            )
            try:
                action()
            except gtaskman.TaskFailed as error:
                if action not in (self.fail, self.erupt):
                    self.harmed.append(error)
            except BaseException:
                # Whatever was raised into it, or by it: it goes on with the next action.
                continue

    def submit(self, task, *args):
        handle = self.manager.submit(task, *args)
        self.handles.append(handle)
        return handle

    def get(self):
        number = self.random.random()
        assert self.submit(tasks.echo, number).get(PATIENCE) == number

    def unique(self):
        key = self.random.choice("xyz")
        self.submit(tasks.echo.with_options(unique=key), 1).get(PATIENCE)

    def many(self):
        size = self.random.choice((None, 3))
        results = self.manager.map(abs, range(10), chunksize=size, ordered=size is None)
        assert sum(1 for _ in results) == 10

    def follow(self):
        for _ in self.submit(tasks.rest_async, 0.01).progress():
            pass

    def cancel(self):
        handle = self.submit(self.random.choice((tasks.rest, tasks.rest_async)), 30)
        try:
            gevent.sleep(self.random.random() / 50)
            handle.cancel("on purpose")
            handle.get(PATIENCE)
        finally:
            while not handle.done():
                try:
                    handle.cancel("on purpose")
                    handle.wait(1)
                except BaseException:
                    continue

    def fail(self):
        handle = self.submit(tasks.fail, "on purpose")
        gevent.spawn_raw(handle.get)
        handle.rawlink(lambda _: 1 / 0)
        handle.get(PATIENCE)

    def erupt(self):
        choice = self.random.choice
        args = (choice([*eruptions.HOW]), choice([*eruptions.ERRORS]), choice((0, 0, 1, 3)))
        handle = self.submit(
            choice((eruptions.erupt, eruptions.erupt_async)), *args, choice((0, 3))
        )
        if choice((True, False)):
            gevent.sleep(self.random.random() / 200)
            handle.cancel("on purpose")
        handle.get(PATIENCE)

    # --- what comes between

    def trace(self, _event, args):
        """Count the switches to the actors; at some of them, have one raise at its next."""
        if args[1] in self.actors:
            self.switches += 1
            if self.switches in self.at:
                victim = self.random.choice(self.actors)
                if not victim.dead:
                    error = self.random.choice((*ERRORS, gevent.Timeout))
                    victim.kill(error("on purpose"), block=False)
                for loop in self.loops():
                    if self.random.random() < 0.3 and loop._greenlet is not None:
                        self.manager._home.post(_kill, loop)

    def loops(self):
        return [self.manager.events._loop, self.manager._archive._loop]

    def heard(self, _report):
        if self.random.random() < 0.2:
            raise self.random.choice((ValueError, gevent.Timeout, gevent.GreenletExit))

    def run(self):
        self.manager.on("task-completed", self.heard)
        before = greenlet.settrace(self.trace)
        try:
            self.actors += [gevent.spawn(self.act) for _ in range(GREENLETS)]
            end = time.monotonic() + PATIENCE
            while not all(each.dead for each in self.actors) and time.monotonic() < end:
                try:
                    gevent.joinall(self.actors, timeout=1)
                except BaseException:
                    continue  # KeyboardInterrupt and SystemExit arrive here, in the main greenlet
        finally:
            greenlet.settrace(before)
            self.manager.off("task-completed", self.heard)
        assert all(each.dead for each in self.actors), "an action hangs"
        self.check()

    def check(self):
        """Nothing is left, and the manager is as new."""
        manager = self.manager
        assert not self.harmed, self.harmed
        for handle in self.handles:
            if not handle.done():
                handle.cancel("the story has ended")
        wait_until(lambda: not manager._jobs, what=f"{manager}: {manager._jobs}")
        assert all(handle.done() for handle in self.handles), "a handle is not settled"
        numbers = manager.stats()["pool"]
        assert sum(numbers[f"{how}_tasks"] for how in SETTLED) == numbers["total_tasks"]
        info = manager.queue.info()
        assert (info["waiting"], info["running"], info["delayed"]) == (0, 0, 0), info
        assert manager.queue._keys == {}, "a unique key is taken"
        assert manager._pending == 0
        news = [manager.submit(tasks.echo.with_options(unique=key), key) for key in "xyz"]
        news += [manager.submit(tasks.echo, number) for number in range(20)]
        told = []
        manager.once("task-completed", told.append)
        assert [new.get(PATIENCE) for new in news] == [*"xyz", *range(20)]
        wait_until(lambda: told, what="events are not delivered")


def _kill(loop):
    if loop._greenlet is not None:
        loop._greenlet.kill(block=False)


@pytest.mark.parametrize("background", [False, True], ids=["on this hub", "in a thread"])
def test_whatever_is_raised_at_a_switch_the_manager_is_as_new(no_leaks, background):
    manager = gtaskman.TaskManager(
        config=gtaskman.Configuration(
            max_processes=2, background=background, max_pending_bytes=8192, kill_grace=5.0
        ),
        storage=SlowStorage(random.Random(FIRST)),
    )
    try:
        for seed in range(FIRST, FIRST + max(1, SEEDS // 2)):
            print(f"GTASKMAN_SEEDS=2 GTASKMAN_FIRST_SEED={seed}")
            Story(manager, seed).run()
    finally:
        manager.stop(0)
    assert manager.pids() == []


@pytest.mark.parametrize("background", [False, True], ids=["on this hub", "in a thread"])
def test_starts_and_stops_that_are_interrupted_leave_nothing(no_leaks, background):
    for seed in range(FIRST, FIRST + max(1, SEEDS // 8)):
        chance = random.Random(seed)
        manager = gtaskman.TaskManager(
            config=gtaskman.Configuration(max_processes=1, background=background, kill_grace=0.5)
        )
        starts = [gevent.spawn(manager.submit, tasks.echo, number) for number in range(3)]
        interrupt(starts, chance)
        assert manager.submit(tasks.echo, seed).get(PATIENCE) == seed
        manager.submit(tasks.rest_async, 30)
        stops = [gevent.spawn(manager.stop, 0) for _ in range(3)]
        interrupt(stops, chance)
        manager.stop(0)
        assert manager.pids() == []
        assert manager._jobs == {}


def interrupt(greenlets, chance):
    """Raise something into some of them, each after some switches."""
    for victim in itertools.islice(greenlets, chance.randrange(len(greenlets) + 1)):
        for _ in range(chance.randrange(3)):
            gevent.sleep(0)
        victim.kill(chance.choice((gevent.GreenletExit, gevent.Timeout(1))), block=False)
    gevent.joinall(greenlets, timeout=PATIENCE)
