"""``stop``: finish, then cancel, then kill; every handle settles, and nothing is left."""

import gevent
import pytest
from scenarios import stopping, work
from worlds import PATIENCE, START_METHODS, alive, wait_until

KINDS = [{"kind": "sync"}, {"kind": "async"}]
UNPATCHED = pytest.mark.parametrize("world", ["unpatched"], indirect=True)


def play(world, story, cases):
    world.run(stopping.each, timeout=60, story=story.__name__, cases=cases)


@pytest.mark.parametrize("start_method", START_METHODS)
def test_what_waits_and_runs_is_finished_first(world, start_method):
    world.run(stopping.gracefully, start_method=start_method)


def test_what_takes_too_long_is_cancelled(world):
    play(world, stopping.then_cancelling, KINDS)


def test_what_does_not_heed_that_is_killed(world):
    play(world, stopping.then_killing, KINDS)


@UNPATCHED
@pytest.mark.parametrize("start_method", START_METHODS)
def test_every_handle_settles_once(world, start_method):
    world.run(stopping.with_everything_at_once, start_method=start_method)


@UNPATCHED
def test_it_is_stopped_while_it_starts(world):
    world.run(stopping.before_it_is_ready)


def test_it_may_be_stopped_twice_or_before_it_is_started(world):
    world.run(stopping.twice_and_never_started)


def test_several_greenlets_stop_it(world):
    world.run(stopping.from_two_greenlets)


@UNPATCHED
def test_a_second_stop_ends_what_a_killed_one_has_begun(world):
    world.run(stopping.a_stopper_that_is_killed)


def test_another_thread_stops_it(world):
    world.run(stopping.from_another_thread)


@UNPATCHED
def test_a_callback_stops_it(world):
    world.run(stopping.from_a_callback)


def test_an_exception_leaves_it_without_draining(world):
    world.run(stopping.leaving_by_exception)


@UNPATCHED
def test_whoever_waits_is_woken(world):
    world.run(stopping.waiters_are_woken)


def test_the_default_manager_is_stopped_and_made_again(world):
    world.run(stopping.the_default_manager)


@pytest.mark.parametrize("how", ["nap", "spin", "stubborn"])
def test_nothing_is_left_when_the_interpreter_ends(world, how):
    # That the world ends in time and leaves no process is checked by ``run`` itself.
    pids = world.run(stopping.exit_with_the_default_manager_at_work, how=how)

    assert len(pids) == 2
    assert not any(map(alive, pids))


@pytest.mark.parametrize("part", ["_begin_drain", "_drain", "_give_up"])
def test_stop_ends_whatever_raises_in_it(manager, monkeypatch, caplog, part):
    # given a manager with a task that runs and one that waits
    running, waiting = manager.submit(work.nap), manager.submit(work.nap)
    wait_until(lambda: running.report.message)

    def fail(*_args):
        raise PermissionError("not allowed")

    monkeypatch.setattr(manager, part, fail)
    # when it is stopped
    pids = manager.pids()
    with gevent.Timeout(PATIENCE):
        manager.stop(0)
    # then it is stopped, says what was raised, and both tasks have ended; nothing lives on
    assert any("stopping a manager" in each.getMessage() for each in caplog.records)
    assert running.done() and waiting.done()
    wait_until(lambda: not any(map(alive, pids)))
