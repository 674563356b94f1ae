"""A signal handler that raises anywhere in a manager's code: no task, slot or key is lost.

Each round of tasks is interrupted once, at a place that a seed picks. All places::

    GTASKMAN_INTERRUPTS=1 pytest tests/process/test_interrupts.py

where the number is the step from one place to the next.
"""

from __future__ import annotations

import os
import random
import sys
from collections import Counter
from pathlib import Path

import gevent
import pytest
from scenarios import tasks, work
from worlds import PATIENCE, wait_until

from gtaskman.config import Configuration
from gtaskman.pool.deadlines import Deadlines
from gtaskman.pool.template import Template
from gtaskman.taskmanager import TaskManager
from gtaskman.wire.channel import Channel
from gtaskman.wire.resumed import Resumed

STEP = int(os.environ.get("GTASKMAN_INTERRUPTS", "0"))
ROUNDS = 40  # places that are tried unless all are
ENTRIES = {  # where the loop, or the application, enters the code of a manager
    "reading": [(Channel, "read")],
    "starting": [(Template, "read"), (Deadlines, "_due")],
    "handing out": [(TaskManager, "on_capacity")],
    "returning": [(Resumed, "soon"), (TaskManager, "_recover"), (TaskManager, "_pump_when_due")],
    "submitting": [(TaskManager, "_accept"), (TaskManager, "_cancel_here")],
}


_OPENING = (  # where descriptors are opened and handed on, before they are noted
    *("Pool._fork", "Process.is_up", "Process.close", "Pool.on_up"),
    *("Template._write", "ZygoteStarter._note_up", "ZygoteStarter._not_forked"),
)


class Interrupter:
    """Raises KeyboardInterrupt at the n-th place, below some functions, where a handler may run.

    The interpreter runs handlers when a function begins and when a call of C code has returned,
    which is where a profiler is called.
    """

    def __init__(self, monkeypatch, entries) -> None:
        self.left = 0  # 0: raise nothing
        self.seen = 0
        self.places: Counter[str] = Counter()
        self._inside = False
        for owner, name in entries:
            monkeypatch.setattr(owner, name, self._watched(getattr(owner, name)))

    def _watched(self, real):
        def watched(*args):
            if not self.left or self._inside:
                return real(*args)
            self._inside = True
            sys.setprofile(self._on_event)
            try:
                return real(*args)
            finally:
                sys.setprofile(None)
                self._inside = False

        return watched

    def _on_event(self, frame, event, _arg) -> None:
        if event not in ("call", "c_return") or frame.f_code.co_name == "watched":
            return
        if not self.left or not _in_product(frame):
            return
        self.left -= 1
        if not self.left:
            self.places[frame.f_code.co_qualname] += 1
            self.place = f"{frame.f_code.co_qualname}:{frame.f_lineno}"
            raise KeyboardInterrupt(f"in {self.place}")


def _in_product(frame) -> bool:
    """Whether the code of the package is at work, and not only a test that it has switched to.

    Not where a number of a descriptor is yet to be noted.
    """
    while frame is not None:
        if frame.f_code.co_qualname in _OPENING:
            return False
        if frame.f_globals["__name__"].startswith("gtaskman."):
            return True
        frame = frame.f_back
    return False


def uninterrupted(function, *args):
    """What it gives, or the name of its error, however often it is interrupted."""
    with gevent.Timeout(PATIENCE):
        while True:
            try:
                return function(*args)
            except KeyboardInterrupt:
                continue
            except Exception as error:
                return type(error).__name__


class Round:
    """Tasks of all kinds, and what must have become of them."""

    def __init__(self, manager, directory: Path, at: int) -> None:
        self.manager = manager
        self.path = directory / f"marks-{at}"
        self.marks: list[Path] = []
        self.handles = []
        self.expected = []

    def submit(self, expected, task, *args) -> None:
        self.expected.append(expected)
        self.handles.append(uninterrupted(self.manager.submit, task, *args))

    def run(self) -> list[object]:
        """Submit them, and wait for them; gives what became of each."""
        self.submit(1, work.echo, 1)
        self.submit("rested", work.nap, 0.03)
        for number in range(4):
            self.submit(number, work.echo, number)
        self.submit("TaskFailed", tasks.fail, "on purpose")
        self.submit(2, tasks.echo.with_options(unique="key"), 2)
        self.submit("WorkerCrashed", work.die.with_options(retries=0), "exit")
        self.submit("TaskTimedOut", work.nap.with_options(timeout=0.05, retries=0))
        self.submit("TaskCancelled", tasks.rest, 30)
        uninterrupted(self.handles[-1].cancel, "on purpose")
        self.expected.append("x")
        self.handles.append(uninterrupted(self.submit_once))
        return [uninterrupted(handle.get) for handle in self.handles]

    def submit_once(self):
        """Submit a task that may run once; one whose submit was interrupted is another one."""
        self.marks.append(self.path.with_suffix(f".{len(self.marks)}"))
        return self.manager.submit(work.once, str(self.marks[-1]))

    def runs(self) -> int:
        """How often that task ran."""
        return len(self.marks[-1].read_text().split())

    def left(self) -> dict[str, object]:
        """What the manager has that it should not."""
        manager, pool = self.manager, self.manager._pool
        left = {
            "jobs": len(manager._jobs),
            "waiting": sum(manager.queue.waiting()) + manager.queue.delayed(),
            "running": manager.queue.running(),
            "keys": len(manager.queue._keys),
            "bytes": manager._pending,
            "held": len(pool.jobs()) + len(pool._judged) + len(pool._completed) + len(pool._ended),
            "counts": sum(abs(each.sync) + abs(each.asyncs) for each in pool._workers.values()),
            "dead": sum(not each.alive for each in pool._workers.values()),
        }
        return {what: much for what, much in left.items() if much}


@pytest.fixture
def bare_manager():
    """A manager whose descriptors are not counted: one that is just being opened may be lost."""
    config = Configuration(max_processes=2, max_crashes=1, kill_grace=0.2)
    with TaskManager(config=config) as manager:
        yield manager


@pytest.mark.parametrize("where", ENTRIES)
def test_an_interrupt_anywhere_loses_nothing(bare_manager, monkeypatch, tmp_path, where) -> None:
    # given a manager in whose code a signal handler raises
    interrupter = Interrupter(monkeypatch, ENTRIES[where])
    manager = bare_manager
    assert manager.wait_ready(PATIENCE)
    interrupter.left = many = 1_000_000
    Round(manager, tmp_path, 0).run()
    most = many - interrupter.left
    chance = random.Random(where)
    places = (
        range(1, most, STEP)
        if STEP
        else sorted(chance.sample(range(1, most), min(ROUNDS, most - 1)))
    )
    for at in places:
        # when tasks of all kinds are submitted and end
        interrupter.left, interrupter.place = at, "nowhere"
        a_round = Round(manager, tmp_path, at)
        outcomes = a_round.run()
        interrupter.left = 0
        # then each has ended as it should, and nothing is left of it
        what = f"interrupted at {at}, in {interrupter.place}"
        print(what, "of", most)
        assert outcomes == a_round.expected, what
        assert a_round.runs() == 1, what
        uninterrupted(wait_until, lambda: not a_round.left())  # noqa: B023
        assert a_round.left() == {}, what
    # and it is as new
    news = [manager.submit(work.echo, number) for number in range(20)]
    assert [uninterrupted(new.get, PATIENCE) for new in news] == [*range(20)]
