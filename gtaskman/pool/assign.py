"""Which worker gets how many tasks: a pure decision, without effects.

The rules, in words: an async task goes to any worker that runs no sync task and has a free slot;
a sync task to a worker with nothing to do. Where there is none and one more may live, one more is
started; else the task waits. When all is full, async tasks go first, unless a sync task has
waited for too long: then it does, and a worker takes no more async tasks until it is free for it.

Sync tasks beyond those are handed out ahead of time to workers that are busy with others, once no
more workers may be started, so that a tiny task does not cost a round trip; what turns out to
stand behind a long one is recalled.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar


class Load(Protocol):
    """What is asked of a worker.

    ``budget`` is how many tasks it may still be given before it is replaced.
    """

    open: bool
    sync: int
    asyncs: int
    budget: int
    reserved: bool

    @property
    def depth(self) -> int:
        """How many sync tasks it may hold at once."""


W = TypeVar("W", bound=Load)


@dataclasses.dataclass(slots=True)
class Plan(Generic[W]):
    """What to do: how many tasks for whom, how many workers to start, whom to reserve."""

    sync: list[tuple[W, int]] = dataclasses.field(default_factory=list)
    asyncs: list[tuple[W, int]] = dataclasses.field(default_factory=list)
    forks: int = 0
    reserve: W | None = None

    @property
    def total_sync(self) -> int:
        """Sync tasks to claim."""
        return sum(count for _, count in self.sync)

    @property
    def total_async(self) -> int:
        """Async tasks to claim."""
        return sum(count for _, count in self.asyncs)


def assign(
    workers: Sequence[W],
    sync: int,
    asyncs: int,
    *,
    slots: int,
    starting: int = 0,
    spare: int = 0,
    overdue: bool = False,
) -> Plan[W]:
    """Share out ``sync`` and ``asyncs`` waiting tasks.

    ``slots`` is how many async tasks one worker may run, ``starting`` how many workers are on
    their way, ``spare`` how many more may be started, ``overdue`` whether a sync task has waited
    for too long.
    """
    plan: Plan[W] = Plan()
    if sync == 1 and not asyncs:
        # The commonest question by far, and what a single task waits for.
        for worker in workers:
            if worker.open and not worker.sync and not worker.asyncs:
                plan.sync.append((worker, 1))
                return plan
    open_ones = [worker for worker in workers if worker.open]
    idle = [worker for worker in open_ones if not worker.sync and not worker.asyncs]
    left = asyncs
    if asyncs:
        carriers = [w for w in open_ones if w.asyncs and not w.sync and not w.reserved]
        left = _share_async(plan, carriers, idle, sync, asyncs, slots, overdue)
    taken = min(sync, len(idle))
    if taken:
        plan.sync.extend((worker, 1) for worker in idle[:taken])
    waiting = sync - taken
    wanted = waiting + -(-left // slots)
    plan.forks = max(0, min(spare, wanted - starting))
    if waiting:
        _look_ahead(plan, open_ones, waiting, starting, spare)
        if overdue and not taken:
            plan.reserve = _to_reserve(open_ones)
    return plan


def _share_async(
    plan: Plan[W],
    carriers: list[W],
    idle: list[W],
    sync: int,
    asyncs: int,
    slots: int,
    overdue: bool,
) -> int:
    """Plan the async tasks, taking idle workers as they are needed; gives how many are left.

    Sync tasks that wait keep the idle workers which the async ones can do without.
    """
    free = sum(min(slots - worker.asyncs, worker.budget) for worker in carriers)
    needed = max(0, -(-(asyncs - free) // slots))
    available = len(idle) if not overdue else max(0, len(idle) - sync)
    enlisted = min(available, max(needed, len(idle) - sync))
    chosen = carriers + [idle.pop() for _ in range(enlisted)]
    if not chosen:
        return asyncs
    return asyncs - _level(plan.asyncs, chosen, asyncs, slots)


def _level(gifts: list[tuple[W, int]], chosen: list[W], count: int, slots: int) -> int:
    """Fill the ``chosen`` up to one level, so that no worker has much more than another."""
    room = [max(0, min(slots - worker.asyncs, worker.budget)) for worker in chosen]
    count = min(count, sum(room))
    level = _level_without_limits(sorted(map(_asyncs, chosen)), count)
    while True:
        shares = [
            max(0, min(most, level - worker.asyncs))
            for worker, most in zip(chosen, room, strict=True)
        ]
        missing = count - sum(shares)
        if missing <= 0:
            break
        # Some have no room up to this level: the others share what is left.
        level += -(-missing // len(chosen))
    for at, worker in enumerate(chosen):
        if missing and shares[at] and worker.asyncs + shares[at] == level:
            shares[at] -= 1  # the last task makes no whole layer
            missing += 1
        if shares[at]:
            gifts.append((worker, shares[at]))
    return count


def _level_without_limits(loads: list[int], count: int) -> int:
    """The level to which ``count`` tasks fill workers with these loads, the lowest first."""
    total = sum(loads)
    # A worker above the level that the others come to gets nothing, and does not raise it.
    while len(loads) > 1 and loads[-1] * len(loads) >= count + total:
        total -= loads.pop()
    return -(-(count + total) // len(loads))


def _asyncs(worker: Load) -> int:
    return worker.asyncs


def _look_ahead(plan: Plan[W], workers: list[W], waiting: int, starting: int, spare: int) -> None:
    """Hand out ahead what no worker that is on its way will take."""
    surplus = waiting - starting - plan.forks
    if surplus <= 0 or spare > plan.forks:
        return
    ahead = dict.fromkeys((id(worker) for worker, _ in plan.sync), 1)
    busy = [w for w in workers if w.sync + ahead.get(id(w), 0) and not w.asyncs]
    for at, worker in enumerate(busy):
        held = worker.sync + ahead.get(id(worker), 0)
        room = min(worker.depth - held, worker.budget - ahead.get(id(worker), 0))
        share = min(room, -(-surplus // (len(busy) - at)))
        if share > 0:
            plan.sync.append((worker, share))
            surplus -= share


def _to_reserve(workers: list[W]) -> W | None:
    """The worker that shall take no more async tasks until it is free: the one with fewest."""
    if any(worker.reserved for worker in workers):
        return None
    return min((worker for worker in workers if worker.asyncs), key=_asyncs, default=None)
