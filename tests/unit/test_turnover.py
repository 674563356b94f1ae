"""The turnover of workers: each rule, and any course of events."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gtaskman.pool.turnover import Step, next_step
from gtaskman.pool.worker import State

pytestmark = pytest.mark.quick

STARTING, STANDBY, OPEN = State.STARTING, State.STANDBY, State.OPEN
DRAINING, STOPPING = State.DRAINING, State.STOPPING


@dataclasses.dataclass(eq=False)
class W:
    """A worker, as far as the turnover asks."""

    name: str
    state: State = OPEN
    sync: int = 0
    asyncs: int = 0
    worn: bool = False
    replaced: bool = False

    @property
    def open(self):
        return self.state is OPEN


def worn(name="old", state=OPEN, **attributes):
    return W(name, state, worn=True, **attributes)


# Each case: given these workers, if there may be two beside a replacement, expect this step.
CASES = {
    "nothing is worn": ([W("a"), W("b", sync=1)], None),
    "a replacement is started first": ([worn(sync=1), W("b")], ("fork",)),
    "and one above the limit only": ([worn(), worn("b"), W("c", STARTING)], None),
    "none is started beside one that starts": ([worn(), W("b", STARTING)], None),
    "no second one in the place of one": ([W("a", DRAINING, sync=1, replaced=True)], None),
    "one for a worker that drains": ([W("a", DRAINING, sync=1), W("b")], ("fork",)),
    "below the limit it opens at once": (
        [worn(sync=1), W("new", STANDBY)],
        ("open new", "drain old"),
    ),
    "an idle old one makes room": (
        [W("a", sync=1), worn(), W("new", STANDBY)],
        ("open new", "drain old"),
    ),
    "one with async tasks makes room": (
        [W("a", sync=1), worn(asyncs=3), W("new", STANDBY)],
        ("open new", "drain old"),
    ),
    "a busy old one takes no more tasks": (
        [worn("a", sync=2), worn("b", sync=1), W("new", STANDBY)],
        ("drain b",),
    ),
    "and the new one waits for it": (
        [W("a", sync=2), worn("b", DRAINING, sync=1), W("new", STANDBY)],
        None,
    ),
    "but not while another one is idle": (
        [worn("a"), worn("b", DRAINING, sync=1), W("new", STANDBY)],
        ("open new", "drain a"),
    ),
    "nor when its last sync task has ended": (
        [W("a", sync=2), worn("b", DRAINING, asyncs=1), W("new", STANDBY)],
        ("open new", "drain b"),
    ),
    "nor while one is about to end": (
        [W("a", STOPPING), worn("b", DRAINING, sync=1), W("new", STANDBY)],
        ("open new", "drain b"),
    ),
}


def told(step):
    if step is None:
        return None
    found = ["fork"] if step.fork else []
    found += [f"open {step.open.name}"] if step.open else []
    found += [f"drain {step.drain.name}"] if step.drain else []
    return tuple(found)


@pytest.mark.parametrize(("workers", "expected"), CASES.values(), ids=CASES)
def test_each_rule(workers, expected):
    assert told(next_step(workers, 2)) == expected


class Pool:
    """A pool in which anything may happen next; ``most`` is its limit."""

    def __init__(self, most):
        self.most = most
        self.workers = []
        self.number = 0

    def fork(self):
        self.number += 1
        self.workers.append(W(f"w{self.number}", STARTING))

    def turn(self):
        for _ in range(100):
            step = next_step(self.workers, self.most)
            if step is None:
                return
            self.take(step)
        raise AssertionError("the turnover comes to no end")

    def take(self, step: Step[W]):
        if step.fork:
            self.fork()
        if step.open is not None:
            assert step.open.state is STANDBY
            step.open.state = OPEN
        if step.drain is not None:
            step.drain.replaced = step.open is not None
            if step.drain.state is OPEN:
                step.drain.state = DRAINING
            self.rest(step.drain)

    def rest(self, worker):
        if worker.state is DRAINING and not worker.sync and not worker.asyncs:
            worker.state = STOPPING

    def happen(self, what, at):
        """One event; those that make no sense for this worker change nothing."""
        if what == "demand":
            ending = any(
                each.state in (DRAINING, STOPPING) and not each.sync for each in self.workers
            )
            if len(self.workers) < self.most + ending:
                self.fork()
        elif self.workers:
            getattr(self, what)(self.workers[at % len(self.workers)])
        self.turn()

    def ready(self, worker):
        if worker.state is STARTING:
            worker.state = STANDBY

    def sync(self, worker):
        if worker.open and not worker.asyncs:
            worker.sync += 1

    def asyncs(self, worker):
        if worker.open and not worker.sync:
            worker.asyncs += 1

    def end(self, worker):
        if worker.sync:
            worker.sync -= 1
        elif worker.asyncs:
            worker.asyncs -= 1
        self.rest(worker)

    def wear(self, worker):
        worker.worn = worker.worn or worker.open

    def spend(self, worker):
        """Its budget of tasks is spent."""
        if worker.open:
            worker.worn, worker.state = True, DRAINING
            self.rest(worker)

    def exit(self, worker):
        """It ends, or is killed."""
        self.workers.remove(worker)


EVENTS = ["demand", "ready", "sync", "asyncs", "end", "wear", "spend", "exit"]


@settings(max_examples=400)
@given(
    most=st.integers(1, 4),
    events=st.lists(st.tuples(st.sampled_from(EVENTS), st.integers(0, 5)), max_size=80),
)
def test_whatever_happens_no_more_than_the_limit(most, events):
    pool = Pool(most)
    for what, at in events:
        pool.happen(what, at)
        assert sum(each.sync > 0 for each in pool.workers) <= most
        assert len(pool.workers) <= most + 1
    # When all that starts is ready, all tasks have ended, and all that was stopped is gone,
    for _ in range(10 * most):
        for worker in list(pool.workers):
            pool.ready(worker)
            while worker.sync or worker.asyncs:
                pool.end(worker)
            if worker.state is STOPPING:
                pool.exit(worker)
            pool.turn()
    # no worker is left that is worn, on standby, or waits for one that never comes.
    assert {each.state for each in pool.workers} <= {OPEN}
    assert not any(each.worn for each in pool.workers)
    assert len(pool.workers) <= most
