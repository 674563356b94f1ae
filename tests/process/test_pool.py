"""How many workers there are, who gets what, and when a worker is replaced."""

import pytest
from scenarios import pooling
from worlds import PATIENCE, START_METHODS, wait_until

from gtaskman import job

KINDS = [{"kind": "sync"}, {"kind": "async"}]
UNPATCHED = pytest.mark.parametrize("world", ["unpatched"], indirect=True)


def play(world, story, cases, **common):
    return world.run(pooling.each, timeout=90, story=story.__name__, cases=cases, **common)


@UNPATCHED
@pytest.mark.parametrize("start_method", START_METHODS)
def test_the_pool_grows_and_shrinks(world, start_method):
    world.run(pooling.growth_and_shrinkage, start_method=start_method)


@UNPATCHED
def test_there_may_be_none_at_first(world):
    world.run(pooling.none_at_first)


@UNPATCHED
def test_some_are_always_kept(world):
    world.run(pooling.min_processes_are_kept)


def test_one_may_wait_until_it_is_ready(world):
    world.run(pooling.waiting_until_it_is_ready)


def test_init_is_told_when_it_is_ready(world):
    world.run(pooling.the_first_word)


def test_a_sync_task_has_its_worker_to_itself(world):
    world.run(pooling.sync_tasks_take_a_worker_to_themselves)


@UNPATCHED
def test_a_sync_task_is_not_starved(world):
    world.run(pooling.a_sync_task_is_not_starved)


@UNPATCHED
def test_thousands_of_async_tasks_run_at_once(world):
    world.run(pooling.many_async_tasks_at_once, count=2000)


@UNPATCHED
def test_the_async_tasks_of_one_worker_are_limited(world):
    world.run(pooling.jobs_of_one_worker_are_limited)


def test_a_short_task_does_not_wait_for_a_long_one(world):
    world.run(pooling.a_short_task_behind_a_long_one)


@UNPATCHED
@pytest.mark.parametrize("most", [1, 3, 10])
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_worker_is_replaced_after_so_many_tasks(world, kind, most):
    world.run(pooling.replacement_by_tasks, kind=kind, most=most)


@UNPATCHED
@pytest.mark.parametrize("most", [1, 3])
@pytest.mark.parametrize("limit", pooling.LIMITS)
def test_no_more_tasks_and_processes_than_the_limit_while_workers_are_replaced(world, limit, most):
    world.run(pooling.never_more_than_the_limit, timeout=90, limit=limit, most=most)


@UNPATCHED
def test_an_idle_worker_is_replaced_when_it_is_old(world):
    world.run(pooling.an_idle_worker_reaches_its_age)


@UNPATCHED
def test_the_replacement_is_there_before_the_old_one_goes(world):
    slowest = world.run(pooling.replacement_overlaps)

    assert slowest < 1.0


@UNPATCHED
def test_a_worker_is_replaced_when_it_is_old(world):
    world.run(pooling.replacement_by_age)


@UNPATCHED
def test_a_worker_is_replaced_when_it_is_large(world):
    world.run(pooling.replacement_by_memory)


@UNPATCHED
def test_a_worker_finishes_what_it_has_begun_before_it_goes(world):
    play(world, pooling.a_long_task_at_the_limit_of_its_worker, KINDS)


@UNPATCHED
def test_the_numbers_are_right_at_each_moment(world):
    world.run(pooling.numbers_at_each_moment)


def test_every_worker_tells_what_it_is_doing(world):
    play(world, pooling.stacks_of_workers, KINDS)


@UNPATCHED
def test_submit_waits_while_too_much_waits(world):
    world.run(pooling.a_bounded_queue)


def test_reports_follow_a_wall_clock_that_was_set(manager, monkeypatch):
    # given an idle manager, and a wall clock that is set forward by an hour
    assert manager.submit(abs, -1).get(timeout=PATIENCE) == 1
    wait_until(lambda: not manager._pool._look_alarm.armed)
    monkeypatch.setattr(job, "_EPOCH", job._EPOCH - 3600)
    # when the next task runs
    handle = manager.submit(abs, -2)
    assert handle.get(timeout=PATIENCE) == 2
    # then all times of its report are by the clock as it is now
    report = handle.report
    assert report.created_at - 60 < report.started_at <= report.finished_at
