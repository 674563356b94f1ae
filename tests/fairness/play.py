"""One play: its tasks, what is done to them, and what was wrong in the end."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import resource
import signal
import tempfile
from pathlib import Path

import gevent
from worlds import parent_of, wait_until

import gtaskman
from fairness import verdict, work
from fairness.plan import MIB, Plan

_FILLERS = 4  # that wait at any time
_MEMORY = 100 * MIB  # that a worker may map beside what it has, where a task is unreadable


class Play:
    """A manager under one plan; ``limit`` is how long anything may take, in seconds."""

    def __init__(self, plan: Plan, limit: float) -> None:
        self.plan = plan
        self.limit = limit
        self.chance = random.Random(plan.seed)
        self.directory = tempfile.mkdtemp(prefix="fairness-")
        self.journal = os.path.join(self.directory, "journal")
        self.gate = os.path.join(self.directory, "gate")
        self.manager = gtaskman.TaskManager(config=gtaskman.Configuration(**plan.config))
        self.long: list[gtaskman.TaskHandle] = []
        self.short: list[gtaskman.TaskHandle] = []
        self.fillers: list[gtaskman.TaskHandle] = []
        self.poison: list[gtaskman.TaskHandle] = []
        self.delayed: list[gtaskman.TaskHandle] = []
        self.findings: list[str] = []
        self.over = False

    def run(self) -> list[str]:
        """Play it; gives what was wrong."""
        self.manager.start()
        try:
            self._play()
        finally:
            self.over = True
            Path(self.gate).touch()
            self.manager.stop(timeout=0)
        self.findings += verdict.of_numbers(self.manager.stats()["pool"], self.plan.most)
        self.findings += verdict.of_journal(self.journal, self.plan.most)
        return self.findings

    def _play(self) -> None:
        if self.plan.unreadable:
            self._limit_memory()
        self._submit_long()
        self._round()
        feeder = gevent.spawn(self._feed)
        self.manager.wait_ready(self.limit)
        for _ in range(20):
            # What a new worker holds ahead behind its first task, before it is recalled.
            gevent.sleep(0.001)
            self._cancel_ahead(self.short + self.fillers, 0.7)
        for _ in range(self.plan.rounds):
            self._round()
            gevent.sleep(self.chance.choice([0, 0, 0.001, 0.01]))
        for _ in range(self.plan.kills):
            self._kill()
        self._await(self.short + self.poison, "while the long ones are held")
        self.over = True
        Path(self.gate).touch()
        feeder.get(timeout=self.limit)
        for handle in self.delayed:
            if not handle.cancel():
                self.findings.append(f"a delayed task could not be cancelled: {handle.report}")
        self._await(self.long + self.fillers + self.delayed, "after the gate was opened")
        self._judge()

    # --- what is submitted

    def _submit_long(self) -> None:
        for _ in range(self.plan.delayed):
            task = self.chance.choice([work.held, work.held_async])
            later = task.with_options(delay=3600, priority=100)
            self.delayed.append(self.manager.submit(later, self.journal, self.gate))
        for _ in range(self.plan.held):
            first = work.held.with_options(priority=50)
            self.long.append(self.manager.submit(first, self.journal, self.gate))
        for _ in range(self.plan.held_async):
            self.long.append(self.manager.submit(work.held_async, self.journal, self.gate))

    def _feed(self) -> None:
        """Keep something waiting that any other task goes before."""
        live: list[gtaskman.TaskHandle] = []
        while not self.over:
            live = [each for each in live if not each.done()]
            while len(live) < _FILLERS * self.plan.most:
                live.append(self._short(-100))
                self.fillers.append(live[-1])
            gevent.sleep(0.001)
            self._cancel_ahead(live, 0.5)

    def _short(self, priority: int) -> gtaskman.TaskHandle:
        kind = self.chance.choice(self.plan.kinds)
        task = work.short if kind == "sync" else work.short_async
        seconds = self.chance.choice([0.0, 0.0, 0.001, 0.02])
        return self.manager.submit(task.with_options(priority=priority), self.journal, seconds)

    def _round(self) -> None:
        made = []
        for _ in range(self.chance.randint(1, 8)):
            if self.chance.random() < self.plan.poison:
                self.poison.append(self.manager.submit(work.poison, self.journal))
            made.append(self._short(self.chance.randint(-10, 10)))
        if self.plan.unreadable and not self.poison:
            self.poison.append(self.manager.submit(work.swallow, bytes(2 * _MEMORY)))
        self.short += made
        gevent.sleep(0)
        for handle in made:
            if self.chance.random() < 0.25:
                handle.cancel("the play")

    # --- what is done to it

    def _cancel_ahead(self, handles: list[gtaskman.TaskHandle], share: float) -> None:
        for handle in handles:
            if _is_ahead(handle) and self.chance.random() < share:
                handle.cancel("the play")

    def _limit_memory(self) -> None:
        """Have workers from now on no memory for the unreadable task."""
        self.manager.submit(work.short, self.journal, 0.0).get(timeout=self.limit)
        template = parent_of(wait_until(self.manager.pids, self.limit)[0])
        with open(f"/proc/{template}/statm") as file:
            mapped = int(file.read().split()[0]) * resource.getpagesize()
        _, hard = resource.prlimit(template, resource.RLIMIT_AS)
        resource.prlimit(template, resource.RLIMIT_AS, (mapped + _MEMORY, hard))
        for pid in self.manager.pids():
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_AS, (mapped + _MEMORY, hard))

    def _kill(self) -> None:
        """Kill the worker of a long sync task; what it held ahead has not begun."""
        held = [each.report for each in self.long if each.report.kind == "sync"]
        pids = [report.worker for report in held if report.worker]
        if pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.chance.choice(pids), signal.SIGKILL)

    # --- what must hold

    def _await(self, handles: list[gtaskman.TaskHandle], when: str) -> None:
        gevent.wait(handles, timeout=self.limit)
        for handle in itertools.islice((each for each in handles if not each.done()), 3):
            self.findings.append(f"not within {self.limit} s, {when}: {handle.report}")

    def _judge(self) -> None:
        for handle in self.short + self.fillers:
            self.findings += verdict.of_bystander(handle)
        for handle in self.poison:
            # Whether a worker has memory for that one depends on when it was started.
            if handle.report.name != work.swallow.definition.name:
                self.findings += verdict.of_poison(handle)


def _is_ahead(handle: gtaskman.TaskHandle) -> bool:
    """Whether a worker holds the task ahead, behind another one."""
    job = handle._job
    if job is None or not job.number or job.worker is None:
        return False
    return job.worker.sync > 1 and not job.running
