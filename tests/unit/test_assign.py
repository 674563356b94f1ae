"""Assignment: which worker gets how many tasks, as its docstring says in words."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gtaskman.pool.assign import assign

pytestmark = pytest.mark.quick


@dataclasses.dataclass(eq=False)
class W:
    """A worker, as far as assignment asks."""

    name: str = "w"
    sync: int = 0
    asyncs: int = 0
    depth: int = 1
    budget: int = 1_000_000
    open: bool = True
    reserved: bool = False


def shares(plan):
    """A plan as plain values: what each worker gets, by name."""
    gifts = ({}, {})
    for total, planned in zip(gifts, (plan.sync, plan.asyncs), strict=True):
        for worker, count in planned:
            total[worker.name] = total.get(worker.name, 0) + count
    return {"sync": gifts[0], "asyncs": gifts[1], "forks": plan.forks}


def expect(sync=None, asyncs=None, forks=0):
    return {"sync": sync or {}, "asyncs": asyncs or {}, "forks": forks}


# Each case: given these workers, if these tasks wait, expect this.
CASES = {
    "nothing waits": ([W("a")], {"sync": 0, "asyncs": 0}, expect()),
    # --- an async task goes to any worker that runs no sync task and has a free slot
    "async to an idle worker": ([W("a")], {"sync": 0, "asyncs": 1}, expect(asyncs={"a": 1})),
    "async beside others": ([W("a", asyncs=3)], {"sync": 0, "asyncs": 1}, expect(asyncs={"a": 1})),
    "async never beside sync": (
        [W("a", sync=1, depth=5)],
        {"sync": 0, "asyncs": 1},
        expect(),
    ),
    "async up to the slots, the rest waits": (
        [W("a", asyncs=3)],
        {"sync": 0, "asyncs": 5, "slots": 5},
        expect(asyncs={"a": 2}),
    ),
    "async not into a full worker": (
        [W("a", asyncs=5)],
        {"sync": 0, "asyncs": 1, "slots": 5},
        expect(),
    ),
    "async evenly": (
        [W("a"), W("b")],
        {"sync": 0, "asyncs": 10},
        expect(asyncs={"a": 5, "b": 5}),
    ),
    "async to the one that has less": (
        [W("a", asyncs=6), W("b", asyncs=2)],
        {"sync": 0, "asyncs": 4},
        expect(asyncs={"b": 4}),
    ),
    "async beside others, whatever the budget of those that have less": (
        [W("a", asyncs=2, budget=1), W("b", asyncs=5)],
        {"sync": 0, "asyncs": 20, "slots": 50},
        expect(asyncs={"a": 1, "b": 19}),
    ),
    "async to one that has more, while the one that has less may take no more": (
        [W("a", asyncs=1, budget=0), W("b", asyncs=10), W("c", asyncs=9)],
        {"sync": 0, "asyncs": 3, "slots": 50},
        expect(asyncs={"b": 1, "c": 2}),
    ),
    # --- a sync task to a worker with nothing to do
    "sync to an idle worker": ([W("a")], {"sync": 1, "asyncs": 0}, expect(sync={"a": 1})),
    "sync never beside async": ([W("a", asyncs=1, depth=5)], {"sync": 1, "asyncs": 0}, expect()),
    "one sync task for each": (
        [W("a"), W("b"), W("c")],
        {"sync": 2, "asyncs": 0, "spare": 0},
        expect(sync={"a": 1, "b": 1}),
    ),
    "nothing for a closed worker": (
        [W("a", open=False), W("b", asyncs=1, open=False), W("c", sync=1, depth=9, open=False)],
        {"sync": 3, "asyncs": 3},
        expect(),
    ),
    "the single sync task finds the open one": (
        [W("a", open=False), W("b", sync=1), W("c", asyncs=1), W("d")],
        {"sync": 1, "asyncs": 0},
        expect(sync={"d": 1}),
    ),
    "async ones leave idle workers to sync ones where they can": (
        [W("a", asyncs=1), W("b")],
        {"sync": 1, "asyncs": 4},
        expect(sync={"b": 1}, asyncs={"a": 4}),
    ),
    "both kinds find their own": (
        [W("a"), W("b")],
        {"sync": 1, "asyncs": 3},
        expect(sync={"a": 1}, asyncs={"b": 3}),
    ),
    # --- where there is none and one more may live, one more is started; else the task waits
    "a worker for a sync task": ([], {"sync": 1, "asyncs": 0, "spare": 5}, expect(forks=1)),
    "a worker for each sync task": (
        [W("a", sync=1)],
        {"sync": 3, "asyncs": 0, "spare": 5},
        expect(forks=3),
    ),
    "no more workers than may live": (
        [W("a", sync=1)],
        {"sync": 3, "asyncs": 0, "spare": 2},
        expect(forks=2),
    ),
    "no more than are not on their way": (
        [W("a", sync=1)],
        {"sync": 3, "asyncs": 0, "spare": 5, "starting": 2},
        expect(forks=1),
    ),
    "none if enough are on their way": (
        [],
        {"sync": 1, "asyncs": 0, "spare": 5, "starting": 2},
        expect(),
    ),
    "a worker for as many async tasks as have slots": (
        [W("a", sync=1)],
        {"sync": 0, "asyncs": 11, "slots": 5, "spare": 9},
        expect(forks=3),
    ),
    "a worker for what is left over": (
        [W("a")],
        {"sync": 0, "asyncs": 6, "slots": 5, "spare": 9},
        expect(asyncs={"a": 5}, forks=1),
    ),
    "a worker for each kind": (
        [],
        {"sync": 1, "asyncs": 1, "spare": 9},
        expect(forks=2),
    ),
    # --- when all is full, async tasks go first, unless a sync task has waited for too long
    "async first": ([W("a")], {"sync": 1, "asyncs": 1}, expect(asyncs={"a": 1})),
    "sync first if overdue": (
        [W("a")],
        {"sync": 1, "asyncs": 1, "overdue": True},
        expect(sync={"a": 1}),
    ),
    "async first, with a worker for the sync one": (
        [W("a")],
        {"sync": 1, "asyncs": 1, "spare": 1},
        expect(asyncs={"a": 1}, forks=1),
    ),
    "overdue ones take what they need and no more": (
        [W("a"), W("b")],
        {"sync": 1, "asyncs": 1, "overdue": True},
        expect(sync={"a": 1}, asyncs={"b": 1}),
    ),
    "no async task for a reserved worker": (
        [W("a", asyncs=1, reserved=True), W("b", asyncs=4)],
        {"sync": 1, "asyncs": 2, "overdue": True},
        expect(asyncs={"b": 2}),
    ),
    # --- handed out ahead of time, once no more workers may be started
    "ahead, up to the depth": (
        [W("a", sync=1, depth=4)],
        {"sync": 9, "asyncs": 0},
        expect(sync={"a": 3}),
    ),
    "nothing ahead beyond the depth": (
        [W("a", sync=3, depth=2)],
        {"sync": 9, "asyncs": 0},
        expect(),
    ),
    "nothing ahead while more may be started": (
        [W("a", sync=1, depth=4)],
        {"sync": 1, "asyncs": 0, "spare": 2},
        expect(forks=1),
    ),
    "nothing ahead of workers on their way": (
        [W("a", sync=1, depth=4)],
        {"sync": 2, "asyncs": 0, "starting": 2},
        expect(),
    ),
    "ahead, what those on their way leave": (
        [W("a", sync=1, depth=4)],
        {"sync": 3, "asyncs": 0, "starting": 1, "spare": 1},
        expect(sync={"a": 1}, forks=1),
    ),
    "ahead for one that just got its first": (
        [W("a", depth=3)],
        {"sync": 9, "asyncs": 0},
        expect(sync={"a": 3}),
    ),
    "ahead evenly": (
        [W("a", sync=1, depth=9), W("b", sync=1, depth=9)],
        {"sync": 4, "asyncs": 0},
        expect(sync={"a": 2, "b": 2}),
    ),
    "nothing ahead of async tasks": (
        [W("a", asyncs=1, depth=9), W("b", sync=1, depth=2)],
        {"sync": 4, "asyncs": 0},
        expect(sync={"b": 1}),
    ),
}


@pytest.mark.parametrize(("workers", "waiting", "expected"), CASES.values(), ids=CASES)
def test_each_rule(workers, waiting, expected):
    assert shares(assign(workers, **{"slots": 100, **waiting})) == expected


# --- reservation


@pytest.mark.parametrize("asyncs", [0, 5], ids=["sync only", "both kinds"])
def test_the_soonest_free_worker_is_reserved_for_an_overdue_sync_task(asyncs):
    workers = [W("a", asyncs=3), W("b", asyncs=1), W("c", asyncs=2)]
    plan = assign(workers, 1, asyncs, slots=3, overdue=True)
    assert plan.reserve is workers[1]


RESERVED_ALREADY = [W("a", asyncs=1, reserved=True), W("b", asyncs=2)]


@pytest.mark.parametrize(
    ("workers", "sync", "overdue"),
    [
        ([W(asyncs=1)], 1, False),
        ([W(asyncs=1)], 0, True),
        ([W(asyncs=1), W()], 1, True),
        (RESERVED_ALREADY, 1, True),
        ([W(asyncs=1, open=False)], 1, True),
        ([], 1, True),
    ],
    ids=["in good time", "no sync task", "one is idle", "one is reserved", "closed", "no worker"],
)
def test_no_worker_is_reserved_without_need(workers, sync, overdue):
    assert assign(workers, sync, 0, slots=5, overdue=overdue).reserve is None


def test_a_sync_task_is_not_starved_by_async_ones_beside_a_long_sync_one():
    # given one worker with a sync task that may take for ever, and one with async tasks
    busy, shared = W("busy", sync=1), W("shared", asyncs=5)
    # if a sync task has waited for too long, and async tasks keep coming
    plan = assign([busy, shared], 1, 10, slots=100, overdue=True)
    # expect a worker to be set aside for it: the other one may never be free
    assert plan.reserve is shared


# --- for any workers and any tasks


@st.composite
def workers_of_any_kind(draw):
    workers = []
    for at in range(draw(st.integers(0, 6))):
        kind = draw(st.sampled_from(["idle", "sync", "async"]))
        workers.append(
            W(
                f"w{at}",
                sync=draw(st.integers(1, 5)) if kind == "sync" else 0,
                asyncs=draw(st.integers(1, 6)) if kind == "async" else 0,
                depth=draw(st.integers(1, 6)),
                budget=draw(st.sampled_from([1, 2, 5, 1_000_000])),
                open=draw(st.booleans()) or draw(st.booleans()),
                reserved=kind == "async" and draw(st.integers(0, 4)) == 0,
            )
        )
    return workers


@given(
    workers=workers_of_any_kind(),
    sync=st.integers(0, 12),
    asyncs=st.integers(0, 30),
    slots=st.integers(1, 6),
    starting=st.integers(0, 3),
    spare=st.integers(0, 4),
    overdue=st.booleans(),
)
def test_whatever_waits_and_whoever_is_there(
    workers, sync, asyncs, slots, starting, spare, overdue
):
    before = [dataclasses.asdict(worker) for worker in workers]
    plan = assign(
        workers, sync, asyncs, slots=slots, starting=starting, spare=spare, overdue=overdue
    )
    got_sync, got_async = shares(plan)["sync"], shares(plan)["asyncs"]

    # It decides, and does nothing.
    assert [dataclasses.asdict(worker) for worker in workers] == before
    # No more than waits is handed out, and no more is started than may live.
    assert plan.total_sync == sum(got_sync.values()) <= sync
    assert plan.total_async == sum(got_async.values()) <= asyncs
    assert 0 <= plan.forks <= spare
    assert all(count > 0 for _, count in (*plan.sync, *plan.asyncs))
    for worker in workers:
        more_sync, more_async = got_sync.get(worker.name, 0), got_async.get(worker.name, 0)
        # Only workers that take tasks get any, and never of both kinds.
        assert worker.open or not (more_sync or more_async)
        assert not (worker.sync + more_sync and worker.asyncs + more_async)
        # No more async tasks than slots, and none for a worker that is set aside.
        assert not more_async or worker.asyncs + more_async <= slots
        assert not (worker.reserved and more_async)
        # No more than it may still be given.
        assert more_sync + more_async <= worker.budget
        # No more sync tasks than the depth, but that an idle worker gets one.
        assert not more_sync or worker.sync + more_sync <= worker.depth
    # Nothing is handed out ahead while more workers may be started.
    if spare > plan.forks:
        assert not any(worker.sync for worker, _ in plan.sync)
        assert all(count == 1 for count in got_sync.values())
    idle = [each for each in workers if each.open and not each.sync and not each.asyncs]
    untouched = [each for each in idle if each.name not in {**got_sync, **got_async}]
    # No task waits while a worker that may take it has nothing to do, ...
    if untouched:
        assert plan.total_sync == sync
        assert plan.total_async == asyncs
    # ... nor while one that runs async tasks, and is not set aside, has a slot for it.
    if plan.total_async < asyncs:
        for worker in workers:
            if worker.open and worker.asyncs and not worker.reserved:
                given = got_async.get(worker.name, 0)
                assert worker.asyncs + given >= slots or given == worker.budget
    # Whoever finds no worker has one on its way, as long as one may be started.
    if spare > plan.forks:
        waiting = sync - plan.total_sync + -(-(asyncs - plan.total_async) // slots)
        assert starting + plan.forks >= waiting
    # Overdue sync tasks go first.
    if overdue:
        assert len(got_sync) >= min(sync, len(idle))
    # Workers are set aside for overdue tasks only.
    if plan.reserve is not None:
        assert overdue
        assert plan.reserve.open
        assert plan.reserve.asyncs
        assert sync > 0


@given(workers=workers_of_any_kind(), asyncs=st.integers(1, 30))
def test_async_tasks_are_shared_so_that_nobody_has_much_more_than_another(workers, asyncs):
    plan = assign(workers, 0, asyncs, slots=1000)
    got = shares(plan)["asyncs"]
    after = {each.name: each.asyncs + got[each.name] for each in workers if each.name in got}
    others = [
        each.asyncs + got.get(each.name, 0)
        for each in workers
        if each.open and not each.sync and not each.reserved
        if got.get(each.name, 0) < each.budget
    ]
    # Whoever got some has at most one more than any other that could have been given more.
    if after and others:
        assert max(after.values()) <= min(others) + 1
