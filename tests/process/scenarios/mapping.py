"""``map``: lazily fed, bounded in flight, in order or as they are ready."""

from __future__ import annotations

import itertools
import threading
import time

import gevent
from gevent import monkey

import gtaskman
from scenarios import stage, work
from scenarios.control import assert_empty, lines, play, scratch
from scenarios.stage import PATIENCE, wait_until


def each(story, cases, **common):
    """:func:`control.each` for the scenarios of this module."""
    play(globals()[story], cases, **common)


def everything(chunksize, ordered, length):
    with stage.manager() as manager:
        found = list(manager.map(work.double, range(length), chunksize=chunksize, ordered=ordered))
        expected = [2 * each for each in range(length)]
        assert (found if ordered else sorted(found)) == expected
        assert_empty(manager)


def order():
    with stage.manager(min_processes=2, max_processes=2) as manager:
        assert list(manager.map(work.slow_first, range(20))) == list(range(20))
        found = list(manager.map(work.slow_first, range(20), ordered=False))
        assert sorted(found) == list(range(20))
        assert found[-1] == 0, found


def laziness(chunksize, ordered):
    """An endless source is fed only as fast as results are taken, and nothing before the first."""
    with stage.manager(max_processes=2) as manager:
        taken = 0

        def source():
            nonlocal taken
            for number in itertools.count():
                taken = number + 1
                yield number

        results = manager.map(work.double, source(), chunksize=chunksize, ordered=ordered)
        first = next(results)
        assert first % 2 == 0
        gevent.sleep(0.2)
        after_one = taken
        size, in_flight = chunksize or 1, 2 * (32 if (chunksize or 1) > 1 else 16)
        assert after_one <= (in_flight + 1) * size, after_one
        for _ in range(100 * size):
            next(results)
        gevent.sleep(0.2)
        assert after_one < taken <= after_one + 110 * size
        results.close()
        wait_until(lambda: manager.stats()["pool"]["current_tasks"] == 0)
        wait_until(lambda: manager.stats()["queue"]["current_tasks"] == 0)
        ended = taken
        gevent.sleep(0.1)
        assert taken == ended
        assert_empty(manager)


def a_failure(chunksize, ordered):
    """The first is raised, and what is still on its way is cancelled, at once."""
    path = scratch()
    with stage.manager(max_processes=1, kill_grace=20.0) as manager:
        items = [(path, each) for each in range(200)]
        results = manager.map(work.refuse_first, items, chunksize=chunksize, ordered=ordered)
        caught = None
        try:
            list(results)
        except gtaskman.TaskFailed as error:
            caught = error  # it is kept, and with it the frames that it passed
        assert caught is not None
        assert type(caught.__cause__) is ValueError
        wait_until(lambda: manager.stats()["pool"]["current_tasks"] == 0, timeout=5)
        wait_until(lambda: manager.stats()["queue"]["current_tasks"] == 0, timeout=5)
        assert len(lines(path)) < 100
        assert manager.stats()["pool"]["cancelled_tasks"] > 0
        assert list(results) == []
        assert_empty(manager)


def closing():
    with stage.manager(max_processes=1, kill_grace=20.0) as manager:
        path = scratch()
        results = manager.map(work.refuse_first, ((path, each + 1) for each in range(1000)))
        assert next(results) == 1
        results.close()
        wait_until(lambda: manager.stats()["pool"]["current_tasks"] == 0, timeout=5)
        assert len(lines(path)) < 30
        assert list(results) == []
        # One that was dropped, and not closed, is the same.
        results = manager.map(work.refuse_first, ((path, each + 1) for each in range(1000)))
        assert next(results) == 1
        del results
        wait_until(lambda: manager.stats()["pool"]["current_tasks"] == 0, timeout=5)
        assert_empty(manager)


def mistakes():
    with stage.manager(max_processes=1) as manager:
        for wrong in ({"chunksize": 0}, {"chunksize": True}, {"chunksize": -5}):
            try:
                manager.map(work.double, [1], **wrong)
            except gtaskman.TaskOptionError:
                continue
            raise AssertionError(wrong)
        assert list(manager.map(work.double, [])) == []

        def broken():
            yield 1
            raise LookupError("the source")

        try:
            list(manager.map(work.double, broken()))
        except LookupError:
            pass
        else:
            raise AssertionError("it was swallowed")
        wait_until(lambda: manager.stats()["pool"]["current_tasks"] == 0)
        assert_empty(manager)


def from_a_native_thread(ordered, hub, chunksize=None):
    """A thread of its own, with and without a hub, takes the results."""
    found, errors = [], []
    start = monkey.get_original("_thread", "start_new_thread")
    with stage.manager() as manager:
        assert manager.wait_ready(PATIENCE)

        def take():
            try:
                if hub:
                    gevent.sleep(0)
                results = manager.map(work.double, range(300), ordered=ordered, chunksize=chunksize)
                found.extend(results)
            except BaseException as error:
                errors.append(error)
            finally:
                over.append(True)

        over = []
        start(take, ())
        wait_until(lambda: over, timeout=20)
        assert not errors, repr(errors)
        assert (found if ordered else sorted(found)) == [2 * each for each in range(300)]
        assert_empty(manager)


def get_from_a_native_thread(hub):
    """A handle that is not done yet is waited for from a thread, with and without a hub."""
    start = monkey.get_original("_thread", "start_new_thread")
    with stage.manager(max_processes=1) as manager:
        assert manager.wait_ready(PATIENCE)
        outcomes = []

        def wait():
            try:
                if hub:
                    gevent.sleep(0)
                outcomes.append(manager.submit(work.rest, 0.3).get(timeout=None) in manager.pids())
            except BaseException as error:
                outcomes.append(repr(error))

        start(wait, ())
        wait_until(lambda: outcomes, timeout=20)
        assert outcomes == [True]


def many_threads():
    start = monkey.get_original("_thread", "start_new_thread")
    ident = monkey.get_original("_thread", "get_ident")
    with stage.manager() as manager:
        assert manager.wait_ready(PATIENCE)
        sums, threads = [], set()

        def work_on(seed):
            try:
                threads.add(ident())
                handles = [manager.submit(work.add, seed, each) for each in range(50)]
                sums.append(sum(each.get() for each in handles) - 50 * seed)
            except BaseException as error:
                sums.append(repr(error))

        for seed in range(8):
            start(work_on, (seed,))
        wait_until(lambda: len(sums) == 8, timeout=20)
        assert sums == [sum(range(50))] * 8
        assert len(threads) == 8 and threading.get_ident() not in threads
        assert_empty(manager)


def speed(count):
    with stage.manager() as manager:
        begin = time.monotonic()
        assert sum(manager.map(work.double, range(count), chunksize=100)) == count * (count - 1)
        return count / (time.monotonic() - begin)
