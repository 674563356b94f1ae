"""A worker that is reserved for a sync task that has waited for too long: for how long it is."""

from __future__ import annotations

import pytest
from scenarios import work
from scenarios.control import running
from worlds import PATIENCE, wait_until


@pytest.fixture
def manager(make_manager):
    return make_manager(max_processes=1, max_jobs_per_process=4, sync_patience=0.05)


def held_back(manager):
    """A long async task, a sync one that has waited for too long, and an async one behind it."""
    long = manager.submit(work.nap_async)
    running(long)
    sync = manager.submit(work.add, 1, 1)
    (worker,) = manager._pool._workers.values()
    probes = []

    def reserved():
        probes.append(manager.submit(work.add_async, 1, 1))
        return worker.reserved

    wait_until(reserved, every=0.02)
    behind = manager.submit(work.add_async, 2, 2)
    return long, sync, behind


def test_it_takes_no_async_tasks_until_the_sync_task_has_begun(manager):
    long, sync, behind = held_back(manager)
    assert not behind.wait(0.1)
    long.cancel()
    assert sync.get(timeout=PATIENCE) == 2
    assert behind.get(timeout=PATIENCE) == 4
    assert behind.report.started_at >= sync.report.finished_at


def test_it_takes_async_tasks_again_when_the_sync_task_is_cancelled(manager):
    long, sync, behind = held_back(manager)
    sync.cancel()
    # No sync task waits: the async one runs beside the long one, which goes on.
    assert behind.get(timeout=PATIENCE) == 4
    assert not long.done()
    long.cancel()


def test_a_stream_of_async_tasks_that_leaves_slots_free_starves_no_sync_task(manager):
    # given async tasks of which one always begins before the last one has ended
    last = [manager.submit(work.nap_async, 0.05)]
    running(last[0])
    sync = manager.submit(work.add, 1, 1)
    # then the sync task gets its turn all the same
    for _ in range(600):
        last.append(manager.submit(work.nap_async, 0.05))
        if sync.wait(0.02):
            break
    assert sync.get(timeout=0) == 2
    for each in last:
        assert each.get(timeout=PATIENCE) == "rested"
