"""What a pool does when it cannot do what it should: nothing is lost, and it recovers by itself."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import resource
import signal

import gevent
import pytest
from scenarios import work
from worlds import PATIENCE, wait_until

import gtaskman
from gtaskman.pool import pool as pool_module


@pytest.fixture
def descriptors(monkeypatch):
    """While its ``free`` is false, no worker's pipe can be made."""

    class Descriptors:
        free = True
        refused = 0

    def make(pool):
        if not Descriptors.free:
            Descriptors.refused += 1
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return original(pool)

    original = pool_module.Pool._make_worker
    monkeypatch.setattr(pool_module.Pool, "_make_worker", make)
    return Descriptors


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_results_arrive_though_no_further_worker_can_be_started(make_manager, descriptors, kind):
    # given one worker of two that there may be, and no descriptor for the other one
    manager = make_manager(max_processes=2, max_jobs_per_process=1)
    pid = manager.submit(work.whoami).get(timeout=PATIENCE)
    descriptors.free = False
    # when more waits than that worker takes
    handles = [manager.submit(work.of(kind, "add"), number, 1) for number in range(20)]
    # then every result arrives, and the worker is not harmed
    assert [each.get(timeout=PATIENCE) for each in handles] == list(range(1, 21))
    assert descriptors.refused
    assert manager.pids() == [pid]
    # and the other worker is started by itself as soon as there are descriptors
    first, second = (manager.submit(work.nap) for _ in range(2))
    descriptors.free = True
    wait_until(lambda: manager.stats()["pool"]["current_tasks"] == 2)
    first.cancel(), second.cancel()


def test_the_only_worker_is_replaced_when_there_are_descriptors_again(make_manager, descriptors):
    manager = make_manager(max_processes=1)
    pid = manager.submit(work.whoami).get(timeout=PATIENCE)
    # given a worker that dies while its replacement cannot be started
    descriptors.free = False
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: descriptors.refused)
    # when there are descriptors, and nothing else happens
    descriptors.free = True
    # then there is a worker again
    wait_until(manager.pids)
    assert manager.pids() != [pid]


def test_an_error_while_workers_are_given_more_loses_no_result(manager, monkeypatch, caplog):
    # given a manager whose queue is broken
    pid = manager.submit(work.whoami).get(timeout=PATIENCE)
    handle = manager.submit(work.rest, 0.05)

    def broken():
        raise RuntimeError("the queue is broken")

    monkeypatch.setattr(manager._line, "waiting", broken)
    monkeypatch.setattr(manager, "_pending", 1)
    # when a worker answers
    with caplog.at_level(logging.ERROR):
        assert handle.get(timeout=PATIENCE) == pid
    # then the error is logged, and the worker is not harmed
    assert "the queue is broken" in caplog.text
    monkeypatch.undo()
    assert manager.submit(work.whoami).get(timeout=PATIENCE) == pid


def test_a_template_that_stands_still_is_replaced(make_manager):
    # given a template that neither forks nor ends
    manager = make_manager(max_processes=1, start_timeout=5.0, preload=("scenarios.work",))
    pid = manager.submit(work.whoami).get(timeout=PATIENCE)
    os.kill(manager._pool._starter._current.pid, signal.SIGSTOP)
    before = len(work.open_files())
    # when its only worker dies
    os.kill(pid, signal.SIGKILL)
    # then tasks run in a worker of another template, and only the two descriptors of the stopped
    # one are kept: it has not told that it has no worker left
    assert manager.submit(work.whoami).get(timeout=PATIENCE) != pid
    wait_until(lambda: gevent.sleep(0.01) or len(work.open_files()) <= before + 2)


def stop_idle_worker(manager):
    """Stop a worker (SIGSTOP) that has run a task; gives its pid."""
    pid = manager.submit(work.whoami).get(timeout=PATIENCE)
    os.kill(pid, signal.SIGSTOP)
    return pid


def test_a_task_does_not_wait_for_ever_in_a_stopped_worker(make_manager):
    manager = make_manager(max_processes=1, start_timeout=5.0)
    pid = stop_idle_worker(manager)
    # when a task is given to a worker that does not begin it
    # then it runs in another one
    assert manager.submit(work.whoami).get(timeout=PATIENCE) != pid


def test_a_cancelled_task_in_a_stopped_worker_ends(make_manager):
    manager = make_manager(max_processes=1, kill_grace=0.2)
    stop_idle_worker(manager)
    handle = manager.submit(work.whoami)
    handle.cancel()
    assert handle.wait(timeout=PATIENCE)
    assert handle.report.status is gtaskman.TaskStatus.CANCELLED


def test_a_replacement_that_nothing_needs_ends_after_its_ttl(make_manager):
    # given a worker whose last task outlasts the start of its replacement
    manager = make_manager(max_processes=1, min_processes=0, ttl=0.2, max_tasks_per_process=4)
    for _ in range(2):
        manager.submit(work.whoami).get(timeout=PATIENCE)
    handle = manager.submit(work.nap)
    wait_until(lambda: gevent.sleep(0.01) or states(manager) == ["DRAINING", "STANDBY"])
    # when that task ends, and none follows
    handle.cancel()
    # then no worker is left
    wait_until(lambda: gevent.sleep(0.01) or not manager.pids())


def test_the_idle_timer_rests_while_an_old_worker_drains(make_manager, monkeypatch):
    # given as many idle workers as are kept, beside one that drains
    manager = make_manager(min_processes=1, ttl=0.05, max_tasks_per_process=1)
    looks = []
    end_idle = manager._pool._end_idle
    monkeypatch.setattr(manager._pool, "_end_idle", lambda: looks.append(1) or end_idle())
    handle = manager.submit(work.of("async", "nap"))
    wait_until(lambda: gevent.sleep(0.01) or states(manager) == ["DRAINING", "OPEN"])
    looks.clear()
    # when the idle one stays for much longer than its ttl
    gevent.sleep(0.5)
    # then the timer does not go off in every turn of the loop
    assert len(looks) < 20
    handle.cancel()


def states(manager):
    return sorted(worker.state.name for worker in manager._pool._workers.values())


def test_a_fork_works_though_a_descriptor_is_above_the_limit(make_manager):
    # given an application that has lowered its limit below a descriptor that it has
    ends = os.pipe()
    high = fcntl.fcntl(ends[0], fcntl.F_DUPFD_CLOEXEC, 500)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (400, limits[1]))
    try:
        # when it forks a worker, then that one works
        manager = make_manager(start_method="fork")
        assert manager.submit(work.add, 1, 2).get(timeout=PATIENCE) == 3
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for fd in (*ends, high):
            os.close(fd)
