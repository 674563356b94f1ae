"""What a pool does when it cannot do what it should: nothing is lost, and it recovers by itself."""

from __future__ import annotations

import errno
import logging
import os
import signal

import pytest
from scenarios import work
from worlds import PATIENCE, wait_until

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
