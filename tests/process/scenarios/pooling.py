"""How many workers there are, who gets what, and when a worker is replaced."""

from __future__ import annotations

import collections
import time

import gevent
from worlds import alive, children_of, parent_of

import gtaskman
from scenarios import stage, work
from scenarios.control import LONG, QUICK, assert_empty, fate, lines, play, running, scratch
from scenarios.stage import PATIENCE, wait_until


def each(story, cases, **common):
    """:func:`control.each` for the scenarios of this module."""
    play(globals()[story], cases, **common)


def results(handles):
    return [handle.get(timeout=PATIENCE) for handle in handles]


# --- how many


def growth_and_shrinkage(start_method):
    """One at first, as many as there are sync tasks, and back when they have been idle for long."""
    with stage.manager(
        min_processes=1, max_processes=3, ttl=0.5, start_method=start_method
    ) as manager:
        assert manager.wait_ready(PATIENCE)
        assert len(manager.pids()) == 1
        assert manager.stats()["pool"]["current_processes"] == 1
        first = manager.pids()[0]
        gate = scratch()
        held = [manager.submit(work.hold_until, gate) for _ in range(6)]
        wait_until(lambda: manager.stats()["pool"]["current_tasks"] == 3)
        stats = manager.stats()
        assert stats["pool"]["current_processes"] == stats["pool"]["max_processes"] == 3
        assert stats["queue"]["current_tasks"] == 3
        work.mark(gate)
        assert len(set(results(held))) == 3
        idle_since = time.monotonic()
        pids = manager.pids()
        wait_until(lambda: manager.stats()["pool"]["current_processes"] == 1)
        assert time.monotonic() - idle_since > 0.3
        assert len(manager.pids()) <= 3
        wait_until(lambda: len(manager.pids()) == 1)
        wait_until(lambda: sum(map(alive, pids)) == 1)
        assert manager.submit(work.whoami).get(timeout=PATIENCE) in pids
        assert first in pids
        assert_empty(manager)


def none_at_first():
    with stage.manager(min_processes=0, max_processes=2, ttl=0.2) as manager:
        assert manager.wait_ready(PATIENCE)
        assert manager.pids() == []
        assert manager.submit(work.add, 1, 2).get(timeout=PATIENCE) == 3
        assert len(manager.pids()) == 1
        wait_until(lambda: not manager.pids())
        assert manager.submit(work.add_async, 1, 2).get(timeout=PATIENCE) == 3


def min_processes_are_kept():
    with stage.manager(min_processes=3, max_processes=3, ttl=0.1) as manager:
        wait_until(lambda: len(manager.pids()) == 3)
        pids = set(manager.pids())
        gevent.sleep(0.4)  # four times as long as one beyond them would have
        assert set(manager.pids()) == pids
        # One that dies is replaced, though nobody needs it.
        handle = manager.submit(work.die, "exit")
        assert type(fate(handle)) is gtaskman.WorkerCrashed
        wait_until(lambda: len(manager.pids()) == 3)
        assert len(pids & set(manager.pids())) == 2


def waiting_until_it_is_ready():
    """With nothing else to do, and for as long as it takes."""
    with stage.manager(max_processes=1) as manager:
        assert manager.wait_ready()
        assert len(manager.pids()) == 1
        assert manager.wait_ready(0)


def the_first_word():
    with stage.manager(max_processes=1) as manager:
        heard = []
        manager.on("init", heard.append)
        assert manager.wait_ready(PATIENCE)
        wait_until(lambda: heard)
        assert heard == [manager]
        assert len(manager.pids()) == 1
        handle = manager.submit(work.add, 1, 1)
        assert handle.get(timeout=PATIENCE) == 2
        assert heard == [manager]


# --- who gets what


def sync_tasks_take_a_worker_to_themselves():
    """Async ones share the other; a sync one beside them would keep their hub from running."""
    with stage.manager(min_processes=2, max_processes=2, max_jobs_per_process=50) as manager:
        wait_until(lambda: len(manager.pids()) == 2)
        sync = manager.submit(work.nap, 1.0)
        mine = running(sync)
        asyncs = [manager.submit(work.nap_async, 0.2) for _ in range(30)]
        assert {running(each) for each in asyncs} == set(manager.pids()) - {mine}
        results(asyncs)
        assert sync.get(timeout=PATIENCE) == "rested"

        # And the other way round: where async ones run, no sync one comes.
        asyncs = [manager.submit(work.nap_async, 0.8) for _ in range(2)]
        places = {running(each) for each in asyncs}
        syncs = [manager.submit(work.whoami) for _ in range(10)]
        if len(places) == 1:
            assert not set(results(syncs)) & places
        else:
            assert not any(each.done() for each in syncs)
        results(asyncs + syncs)
        ends = [each.report.finished_at for each in asyncs if each.report.worker]
        for each in syncs:
            for other in asyncs:
                if each.report.worker == other.report.worker:
                    assert each.report.started_at >= other.report.finished_at - 0.01, ends
        assert_empty(manager)


def a_sync_task_is_not_starved():
    """A stream of async tasks fills the only worker: a sync one gets its turn all the same."""
    with stage.manager(max_processes=1, max_jobs_per_process=4, sync_patience=0.3) as manager:
        going = True

        def stream():
            while going:
                handles = [manager.submit(work.rest_async, 0.05) for _ in range(4)]
                gevent.joinall(handles, count=1, timeout=PATIENCE)

        feeder = gevent.spawn(stream)
        try:
            wait_until(lambda: manager.stats()["pool"]["current_tasks"] == 4)
            begin = time.monotonic()
            assert manager.submit(work.add, 1, 2).get(timeout=15) == 3
            assert time.monotonic() - begin < 5
        finally:
            going = False
            feeder.kill()
            manager.stop(timeout=0)


def many_async_tasks_at_once(count):
    with stage.manager(max_processes=2, max_jobs_per_process=count // 2) as manager:
        assert manager.wait_ready(PATIENCE)
        begin = time.monotonic()
        handles = [manager.submit(work.rest_async, 1.0) for _ in range(count)]
        pids = results(handles)
        taken = time.monotonic() - begin
        assert taken < 10, taken
        # All at once: the last had begun before the first was over.
        began = [each.report.started_at for each in handles]
        ended = [each.report.finished_at for each in handles]
        shares = collections.Counter(pids)
        assert len(shares) == 2 and min(shares.values()) > count // 8, shares
        for pid in shares:
            mine = [n for n, each in enumerate(pids) if each == pid]
            assert max(began[n] for n in mine) < min(ended[n] for n in mine)
        assert_empty(manager)
        return taken


def jobs_of_one_worker_are_limited():
    with stage.manager(max_processes=1, max_jobs_per_process=3) as manager:
        handles = [manager.submit(work.nap_async, 0.2) for _ in range(9)]
        wait_until(lambda: manager.stats()["pool"]["current_tasks"])
        most = 0
        while not all(each.done() for each in handles):
            stats = manager.stats()
            most = max(most, stats["pool"]["current_tasks"])
            assert stats["pool"]["current_tasks"] <= 3
            gevent.sleep(0.005)
        assert most == 3
        results(handles)


def a_short_task_behind_a_long_one():
    """It was handed out ahead, and is brought back: it does not wait for the long one (skew)."""
    with stage.manager(min_processes=2, max_processes=2, kill_grace=LONG) as manager:
        wait_until(lambda: len(manager.pids()) == 2)
        long_ones = [manager.submit(work.spin, 3.0), manager.submit(work.spin, 0.3)]
        begin = time.monotonic()
        short = [manager.submit(work.whoami) for _ in range(10)]
        results(short)
        assert time.monotonic() - begin < 2
        assert not long_ones[0].done()
        long_ones[0].cancel()
        gevent.wait(long_ones, timeout=PATIENCE)
        assert_empty(manager)


# --- replacement


def replacement_by_tasks(kind, most, start_method="zygote"):
    """No worker is given more than its share, and none is missed meanwhile."""
    with stage.manager(
        max_processes=2, max_tasks_per_process=most, start_method=start_method, prefetch=8
    ) as manager:
        handles = [manager.submit(work.of(kind, "whoami")) for _ in range(40)]
        shares = collections.Counter(results(handles))
        assert max(shares.values()) <= most, shares
        assert sum(shares.values()) == 40
        # The last ones overlap with those that take over from them, which is soon over.
        wait_until(lambda: manager.stats()["pool"]["current_processes"] <= 2, timeout=10)
        for pid in shares:
            if pid not in manager.pids():
                wait_until(lambda gone=pid: not alive(gone))
        assert_empty(manager)


LIMITS = {
    "tasks 1": {"max_tasks_per_process": 1},
    "tasks 2": {"max_tasks_per_process": 2},
    "tasks 7": {"max_tasks_per_process": 7},
    "age": {"max_age": 0.1},
    "memory": {"max_rss": 2**20},  # less than any worker has
    "all": {"max_tasks_per_process": 3, "max_age": 0.1, "max_rss": 2**20},
}


def never_more_than_the_limit(limit, most):
    """Neither of tasks nor, but for one replacement, of processes, while workers are replaced."""
    path = scratch()
    with stage.manager(
        min_processes=1, max_processes=most, prefetch=3, max_jobs_per_process=4, **LIMITS[limit]
    ) as manager:
        template = None
        handles, alive_at_once = [], 0
        for number in range(40):
            kind = "async" if number % 4 == 3 else "sync"
            seconds = 0.3 if number % 8 in (0, 3) else 0.01
            handles.append(manager.submit(work.of(kind, "stay"), path, seconds))
        while not all(each.done() for each in handles):
            pids = manager.pids()
            template = template or (pids and parent_of(pids[0]))
            if template:
                alive_at_once = max(alive_at_once, len(children_of(template)))
            gevent.sleep(0.002)
        pids = set(results(handles))
        assert len(pids) > most, "no worker was replaced"
        assert most_at_once(lines(path)) <= most
        assert alive_at_once <= most + 1
        stats = manager.stats()["pool"]
        assert alive_at_once <= stats["peak_processes"] <= most + 1
        assert stats["max_processes"] == most
        assert_empty(manager)


def most_at_once(marks):
    """How many sync tasks ran at the same time at most, by their begins and ends."""
    now = most = 0
    moments = sorted((float(at), what) for what, at in (each.split() for each in marks))
    for _, what in moments:
        now += 1 if what == "begin" else -1
        most = max(most, now)
    return most


def an_idle_worker_reaches_its_age():
    """It is replaced although no task comes, and one beyond those that are kept just ends."""
    with stage.manager(min_processes=1, max_processes=2, max_age=1.0, ttl=60) as manager:
        naps = [manager.submit(work.nap, 0.2) for _ in range(2)]
        old = {running(each) for each in naps}
        assert len(old) == 2
        results(naps)
        wait_until(lambda: manager.pids() and not old & set(manager.pids()))
        wait_until(lambda: not any(map(alive, old)))
        assert manager.submit(work.whoami).get(timeout=PATIENCE) not in old
        wait_until(lambda: len(manager.pids()) == 1)


def replacement_overlaps():
    """While one is replaced, somebody is always there."""
    with stage.manager(max_processes=1, max_tasks_per_process=8) as manager:
        slowest, pids = 0.0, []
        manager.submit(work.whoami).get(timeout=PATIENCE)
        for _ in range(60):
            begin = time.monotonic()
            pids.append(manager.submit(work.whoami).get(timeout=PATIENCE))
            slowest = max(slowest, time.monotonic() - begin)
            gevent.sleep(0.01)
        assert len(set(pids)) >= 7
        assert max(collections.Counter(pids).values()) <= 8
        return slowest


def replacement_by_age():
    with stage.manager(max_processes=1, max_age=0.5) as manager:
        old = manager.submit(work.whoami).get(timeout=PATIENCE)
        wait_until(lambda: manager.submit(work.whoami).get(timeout=PATIENCE) != old, every=0.05)
        wait_until(lambda: not alive(old))
        assert len(manager.pids()) <= 2


def replacement_by_memory():
    with stage.manager(max_processes=1, max_rss=160 * 2**20) as manager:
        old = manager.submit(work.whoami).get(timeout=PATIENCE)
        gevent.sleep(0.3)  # the memory of one worker is looked at four times a second at most
        assert manager.submit(work.whoami).get(timeout=PATIENCE) == old
        gevent.sleep(0.3)
        assert manager.submit(work.grow, 200 * 2**20).get(timeout=PATIENCE) == old
        wait_until(lambda: manager.submit(work.whoami).get(timeout=PATIENCE) != old, every=0.05)
        wait_until(lambda: not alive(old))
        assert manager.submit(work.whoami).get(timeout=PATIENCE) != old


def a_long_task_at_the_limit_of_its_worker(kind):
    """A worker that has reached its limit finishes what it has begun.

    Its replacement runs async tasks meanwhile, but no sync task beside its own.
    """
    with stage.manager(max_processes=1, max_tasks_per_process=2, prefetch=1) as manager:
        assert manager.submit(work.of(kind, "add"), 1, 1).get(timeout=PATIENCE) == 2
        long = manager.submit(work.of(kind, "nap"), 1.0)
        old = running(long)
        short = manager.submit(work.of(kind, "whoami"))
        assert short.get(timeout=PATIENCE) != old
        assert long.get(timeout=PATIENCE) == "rested"
        assert long.report.worker == old
        if kind == "sync":
            assert short.report.started_at >= long.report.finished_at
        else:
            assert short.report.finished_at < long.report.finished_at
        wait_until(lambda: not alive(old))


# --- numbers


def numbers_at_each_moment():
    def numbers():
        stats = manager.stats()
        group = stats["pool"]
        assert {**stats["queue"], "current_tasks": 0} == {**group, "current_tasks": 0}
        return (
            group["current_tasks"],
            stats["queue"]["current_tasks"],
            group["completed_tasks"],
            group["failed_tasks"],
            group["cancelled_tasks"],
            group["total_tasks"],
        )

    manager = stage.manager(max_processes=1, max_jobs_per_process=2, kill_grace=LONG)
    assert numbers() == (0, 0, 0, 0, 0, 0)
    with manager:
        assert numbers() == (0, 0, 0, 0, 0, 0)
        first = manager.submit(work.nap, 60)
        assert numbers() == (0, 1, 0, 0, 0, 1)
        running(first)
        assert numbers() == (1, 0, 0, 0, 0, 1)
        second = manager.submit(work.add, 1, 1)
        third = manager.submit(work.fail_with_attributes)
        fourth = manager.submit(work.add, 1, 1)
        assert numbers() == (1, 3, 0, 0, 0, 4)
        gevent.sleep(0.05)  # one of them is handed out ahead and recalled
        assert numbers() == (1, 3, 0, 0, 0, 4)
        fourth.cancel()
        assert numbers() == (1, 2, 0, 0, 1, 4)
        first.cancel()
        wait_until(first.done)
        fate(second), fate(third)
        assert numbers() == (0, 0, 1, 1, 2, 4)
        asyncs = [manager.submit(work.nap_async, 0.3) for _ in range(5)]
        wait_until(lambda: manager.stats()["pool"]["current_tasks"] == 2)
        assert numbers() == (2, 3, 1, 1, 2, 9)
        results(asyncs)
        assert numbers() == (0, 0, 6, 1, 2, 9)
    stats = manager.stats()["pool"]
    assert stats["current_processes"] == 0
    assert stats["total_tasks"] == 9


def stacks_of_workers(kind):
    """What everybody is doing, computing or waiting, though a task keeps the hub from running."""
    with stage.manager(max_processes=2, kill_grace=LONG) as manager:
        handles = {name: manager.submit(work.of(kind, name)) for name in ("spin",)}
        handles["nap"] = manager.submit(work.nap)
        pids = {name: running(handle) for name, handle in handles.items()}
        found = manager.stacks()
        for name, pid in pids.items():
            assert f"in {name}" in found[pid], found
        # It disturbs nobody.
        assert not any(each.done() for each in handles.values())
        for handle in handles.values():
            handle.cancel()
        wait_until(lambda: all(each.done() for each in handles.values()), timeout=QUICK)
        assert set(manager.stacks()) <= set(manager.pids())


def a_bounded_queue():
    """``submit`` waits while too much waits already, and goes on as soon as less does."""
    with stage.manager(
        max_processes=1, prefetch=1, max_pending_bytes=3000, kill_grace=LONG
    ) as manager:
        first = manager.submit(work.nap, 60)
        running(first)
        made = []

        def feed():
            for number in range(10):
                made.append(manager.submit(work.add, number, 0))

        feeder = gevent.spawn(feed)
        gevent.sleep(0.1)  # would it not wait, it would be through long before
        assert len(made) < 5
        held = len(made)
        # Cancelling what waits makes room as well.
        made[0].cancel()
        wait_until(lambda: len(made) > held, timeout=5, what="room after a cancel")
        assert not first.done()
        first.cancel()
        feeder.join(PATIENCE)
        assert len(made) == 10
        assert [fate(each) for each in made[1:]] == list(range(1, 10))
        assert_empty(manager)
