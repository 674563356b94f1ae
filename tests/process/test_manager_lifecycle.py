"""A manager under concurrent starts and stops, interrupted submits, and late failures."""

from __future__ import annotations

import os
import threading

import gevent
import pytest
from gevent import monkey
from scenarios import tasks
from worlds import PATIENCE, descendants_of, wait_until

import gtaskman
from gtaskman.latch import Latch
from gtaskman.queues import InMemoryTaskQueue

CONFIG = {"max_processes": 1}
start_thread = monkey.get_original("_thread", "start_new_thread")


@pytest.fixture
def made(no_leaks):
    """Managers that are stopped afterwards."""
    managers = []

    def make(queue="memory://", **config):
        config = gtaskman.Configuration(**{**CONFIG, **config})
        manager = gtaskman.TaskManager(queue, config)
        managers.append(manager)
        return manager

    yield make
    for manager in managers:
        manager.stop(0)


def templates():
    """Processes that this one started itself: a manager's template, one each."""
    return [each for each in descendants_of(os.getpid()) if each.parent == os.getpid()]


@pytest.mark.parametrize("background", [False, True])
def test_first_submits_of_several_greenlets_start_it_once(made, background):
    before = len(templates())
    manager = made(background=background)
    submits = [gevent.spawn(manager.submit, abs, -number) for number in range(5)]
    handles = [submit.get(timeout=PATIENCE) for submit in submits]
    assert [handle.get(PATIENCE) for handle in handles] == list(range(5))
    assert len(templates()) == before + 1


def test_first_submits_of_several_threads_start_it_once(made):
    before = len(templates())
    manager = made(background=True)
    results, barrier = [], threading.Barrier(6)

    def submit(number):
        barrier.wait()
        results.append(manager.submit(abs, -number).get(PATIENCE))

    for number in range(6):
        start_thread(submit, (number,))
    wait_until(lambda: len(results) == 6)
    assert sorted(results) == list(range(6))
    assert len(templates()) == before + 1


def test_a_start_that_fails_fails_for_each_and_can_be_tried_again(made, monkeypatch):
    manager = made(background=True)
    errors = [OSError("on purpose")]
    original = manager._set_up

    def set_up():
        if errors:
            raise errors.pop()
        original()

    monkeypatch.setattr(manager, "_set_up", set_up)
    starts = [gevent.spawn(manager.start) for _ in range(3)]
    gevent.joinall(starts, timeout=PATIENCE)
    assert sorted(type(each.exception).__name__ for each in starts) == [
        "NoneType",
        "NoneType",
        "OSError",
    ]
    assert manager.submit(abs, -1).get(PATIENCE) == 1


def test_a_stop_during_the_start_stops_it(made):
    manager = made(background=True)
    start = gevent.spawn(manager.start)
    gevent.sleep(0)
    manager.stop(0)
    start.join(PATIENCE)
    with pytest.raises(gtaskman.ManagerStopped):
        manager.submit(abs, -1)


class Waits:
    """An argument that waits cooperatively while it is pickled."""

    def __init__(self, gate):
        self.gate = gate

    def __reduce__(self):
        self.gate.wait(PATIENCE)
        return (int, ())


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("unique", [False, True])
def test_a_task_whose_encoding_outlives_the_manager_is_refused(made, background, unique):
    manager = made(background=background).start()
    gate = Latch()
    task = tasks.echo.with_options(unique="key") if unique else tasks.echo
    submit = gevent.spawn(manager.submit, task, Waits(gate))
    gevent.sleep(0)
    manager.stop(0)
    gate.open()
    submit.join(PATIENCE)
    assert isinstance(submit.exception, gtaskman.ManagerStopped)


def test_a_task_of_another_thread_that_meets_a_destroyed_loop_is_refused(made, monkeypatch):
    manager = made(background=True).start()
    assert manager.submit(abs, -1).get(PATIENCE) == 1
    manager.stop(0)
    # as for a thread that looked at the state just before the stop
    monkeypatch.setattr(manager, "_state", type(manager._state).RUNNING)
    for terms in ({}, {"priority": 1}):
        with pytest.raises(gtaskman.ManagerStopped):
            manager.submit(tasks.echo.with_options(**terms), 1)
    assert manager._jobs == {}
    monkeypatch.undo()


def test_a_killed_submitter_of_a_unique_task_leaves_no_key_behind(made):
    manager = made(background=True).start()
    assert manager.wait_ready(PATIENCE)
    assert manager.submit(tasks.echo, 0).get(PATIENCE) == 0
    task = tasks.echo.with_options(unique="key")
    for _ in range(20):
        submitter = gevent.spawn(manager.submit, task, 1)
        gevent.sleep(0)
        submitter.kill(block=False)
        busy = threading.Event()
        start_thread(busy.set, ())
        busy.wait(0.01)  # this thread's hub stands still while the manager's runs
        submitter.join()
    wait_until(lambda: not manager._jobs)
    assert manager.submit(task, 2).get(PATIENCE) == 2
    assert manager.queue.info()["running"] == 0


def test_a_submit_that_times_out_waiting_for_room_has_submitted_nothing(made, tmp_path):
    manager = made(max_pending_bytes=1).start()
    manager.pause()
    first = manager.submit(abs, -1)
    ran = tmp_path / "ran"
    with pytest.raises(gevent.Timeout), gevent.Timeout(0.05):
        manager.submit(ran.touch)
    manager.resume()
    assert first.get(PATIENCE) == 1
    assert manager.submit(abs, -2).get(PATIENCE) == 2
    assert not ran.exists()
    assert manager.stats()["pool"]["total_tasks"] == 2


def test_delayed_tasks_hold_back_no_submit(made):
    manager = made(max_pending_bytes=4096).start()
    for _ in range(20):
        manager.submit(tasks.echo.with_options(delay=3600), 1)
    assert manager.queue.delayed_cost >= 20 * 1024
    with gevent.Timeout(PATIENCE):
        assert manager.submit(abs, -1).get(PATIENCE) == 1
    manager.stop(0)
    assert manager.queue.delayed_cost == 0


def test_one_memory_queue_serves_one_manager_at_a_time(made):
    queue = InMemoryTaskQueue()
    first = made(queue)
    with pytest.raises(gtaskman.ConfigurationError, match="another manager"):
        made(queue)
    assert first.submit(abs, -1).get(PATIENCE) == 1
    first.stop(0)
    assert made(queue).submit(abs, -2).get(PATIENCE) == 2


def test_stacks_are_asked_on_the_hub_whoever_asks(made, monkeypatch):
    manager = made(background=True).start()
    assert manager.wait_ready(PATIENCE)
    pool, hubs = manager._pool, []
    original = pool.ask_stacks

    def ask():
        hubs.append(gevent.get_hub())
        return original()

    monkeypatch.setattr(pool, "ask_stacks", ask)
    assert manager.stacks(PATIENCE).keys() == set(manager.pids())
    assert hubs == [manager.hub]
    assert not pool._pongs


@pytest.mark.parametrize("how", ["raw", "nested"])
def test_a_raw_greenlet_that_waits_for_a_failing_task_harms_nothing(made, how):
    import greenlet

    manager = made().start()
    assert manager.wait_ready(PATIENCE)
    neighbour = manager.submit(tasks.rest_async, 0.2)
    handles = [manager.submit(tasks.fail, "on purpose") for _ in range(3)]
    if how == "raw":
        for handle in handles:
            gevent.spawn_raw(handle.get)
    else:
        hub = gevent.get_hub()
        for handle in handles:
            hub.loop.run_callback(greenlet.greenlet(handle.get, hub).switch)
    waiters = [gevent.spawn(handle.wait, PATIENCE) for handle in handles]
    pids = manager.pids()
    gevent.joinall(waiters, timeout=PATIENCE)
    assert [waiter.value for waiter in waiters] == [True] * 3
    assert neighbour.get(PATIENCE) in pids
    assert manager.submit(abs, -1).get(PATIENCE) == 1
    assert manager.pids() == pids


@pytest.mark.parametrize("background", [False, True])
def test_a_task_that_fails_while_it_is_cancelled_has_had_its_last_attempt(
    made, tmp_path, background
):
    manager = made(background=background).start()
    path = tmp_path / "attempts"
    handle = manager.submit(tasks.fail_in_cleanup, str(path))
    wait_until(lambda: path.exists() and path.read_text())
    assert handle.cancel("on purpose")
    with pytest.raises((gtaskman.TaskFailed, gtaskman.TaskCancelled)):
        handle.get(PATIENCE)
    assert manager.submit(abs, -1).get(PATIENCE) == 1
    assert path.read_text() == "attempt 1\n"


def test_an_end_that_the_queue_cannot_note_still_ends_the_task(made, monkeypatch, caplog):
    manager = made().start()
    original, errors = manager.queue.settle, [UnicodeEncodeError("utf-8", "x", 0, 1, "on purpose")]

    def settle(job, report):
        if errors:
            raise errors.pop()
        original(job, report)

    monkeypatch.setattr(manager.queue, "settle", settle)
    failing = manager.submit(tasks.fail, "on purpose")
    with pytest.raises(gtaskman.TaskFailed):
        failing.get(PATIENCE)
    errors.append(ValueError("on purpose"))
    returning = manager.submit(abs, -1)
    returning.wait(PATIENCE)
    assert returning.done()
    assert manager._jobs == {}
    assert manager.submit(abs, -2).get(PATIENCE) == 2
    assert "could not be noted" in caplog.text


@pytest.mark.parametrize("ordered", [True, False])
def test_a_map_that_was_interrupted_does_not_end_as_if_it_were_complete(made, ordered):
    manager = made().start()
    results = manager.map(tasks.rest, [30, 30], ordered=ordered)
    with pytest.raises(gevent.Timeout), gevent.Timeout(0.05):
        next(results)
    for _ in range(2):
        with pytest.raises(gtaskman.MapInterrupted, match="Timeout"):
            next(results)
    wait_until(lambda: not manager._jobs)


def test_a_cancel_in_a_callback_of_another_hub_is_handed_over(made):
    manager = made(background=True).start()
    handle, answers = manager.submit(tasks.rest_async, 30), []
    gevent.get_hub().loop.run_callback(lambda: answers.append(handle.cancel("on purpose")))
    with pytest.raises(gtaskman.TaskCancelled):
        handle.get(PATIENCE)
    assert answers == [True]


def test_tasks_due_later_begin_although_something_raised_before(made, monkeypatch):
    manager = made().start()
    original, errors = manager.queue.expired, [ValueError("on purpose")]

    def expired():
        if errors:
            raise errors.pop()
        return original()

    monkeypatch.setattr(manager.queue, "expired", expired)
    handles = [manager.submit(tasks.echo.with_options(delay=d), 1) for d in (0.05, 0.2)]
    assert [handle.get(PATIENCE) for handle in handles] == [1, 1]
    assert not errors
