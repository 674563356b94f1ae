"""``stop``: finish, then cancel, then kill; every handle settles, and nothing is left."""

from __future__ import annotations

import os
import signal
import time

import gevent
from gevent import monkey
from worlds import alive, descendants_of

import gtaskman
from scenarios import stage, work
from scenarios.control import LONG, QUICK, fate, lines, play, running, scratch
from scenarios.stage import PATIENCE, wait_until


def each(story, cases, **common):
    """:func:`control.each` for the scenarios of this module."""
    play(globals()[story], cases, **common)


def started(**config):
    manager = stage.manager(**config).start()
    assert manager.wait_ready(PATIENCE)
    return manager


def assert_gone(manager, pids):
    """Nothing is left of the workers, of their template, or of anything to do."""
    assert manager.pids() == []
    assert not [pid for pid in pids if alive(pid)]
    assert descendants_of(os.getpid()) == []
    numbers = manager.stats()["pool"]
    assert numbers["current_processes"] == numbers["current_tasks"] == 0
    ended = sum(numbers[f"{how}_tasks"] for how in ("completed", "failed", "cancelled"))
    assert ended == numbers["total_tasks"]
    assert manager.stats()["queue"]["current_tasks"] == 0


def assert_refused(manager):
    try:
        manager.submit(work.add, 1, 1)
    except gtaskman.ManagerStopped:
        return
    raise AssertionError("it was taken")


def gracefully(start_method):
    """What waits and runs is finished first."""
    manager = started(start_method=start_method, prefetch=4)
    syncs = [manager.submit(work.nap, 0.2) for _ in range(6)]
    asyncs = [manager.submit(work.nap_async, 0.3) for _ in range(10)]
    running(syncs[0])
    pids = manager.pids()
    assert pids
    begin = time.monotonic()
    stopper = gevent.spawn(manager.stop, PATIENCE)
    gevent.sleep(0)
    assert_refused(manager)  # while it is stopping as well
    stopper.get()
    assert time.monotonic() - begin < PATIENCE
    for handle in syncs + asyncs:
        assert handle.done() and handle.get() == "rested"
    assert_gone(manager, pids)
    assert_refused(manager)


def then_cancelling(kind):
    """What is not finished in time is cancelled: it may still clean up."""
    path = scratch()
    manager = started(kill_grace=LONG, max_processes=1, max_jobs_per_process=1)
    handle = manager.submit(work.of(kind, "tidy"), path)
    running(handle)
    waiting = [manager.submit(work.of(kind, "add"), 1, each) for each in range(5)]
    pids = manager.pids()
    begin = time.monotonic()
    manager.stop(timeout=0.3)
    assert 0.25 < time.monotonic() - begin < QUICK
    for each in [handle, *waiting]:
        assert each.done()
        error = fate(each)
        assert type(error) is gtaskman.TaskCancelled, error
        assert error.reason == "the manager was stopped"
    assert lines(path) == ["cleaned"]
    assert_gone(manager, pids)


def then_killing(kind):
    """What does not heed that is killed, and so is a worker that stands still."""
    manager = started(kill_grace=0.3)
    handle = manager.submit(work.of(kind, "stubborn"))
    still = manager.submit(work.nap)
    pids = [running(handle), running(still)]
    assert pids[0] != pids[1]
    os.kill(pids[1], signal.SIGSTOP)
    begin = time.monotonic()
    manager.stop(timeout=0)
    assert time.monotonic() - begin < QUICK
    for each in (handle, still):
        assert type(fate(each)) is gtaskman.TaskCancelled
    assert_gone(manager, pids)


def with_everything_at_once(start_method):
    """Waiting, prefetched, running, starting: all of them settle, each once."""
    manager = stage.manager(
        max_processes=3, start_method=start_method, kill_grace=0.5, max_jobs_per_process=5
    ).start()
    settled = []
    for event in ("task-completed", "task-failed", "task-cancelled"):
        manager.on(event, lambda report: settled.append(report.id))
    names = ("add", "nap", "spin", "stubborn", "whoami", "nap_async", "spin_async", "die")
    handles = []
    for number in range(80):
        name = names[number % len(names)]
        task = getattr(work, name)
        args = {"add": (1, 2), "die": ("exit",), "whoami": ()}.get(name, (30.0,))
        handles.append(manager.submit(task, *args))
    gevent.sleep(0.2)
    pids = manager.pids()
    manager.stop(timeout=0.2)
    assert all(handle.done() for handle in handles)
    assert_gone(manager, pids)
    wait_until(lambda: len(settled) == len(handles))
    assert sorted(settled) == sorted(each.id for each in handles)


def before_it_is_ready():
    """Stopped while its first worker is on its way."""
    for pause in (None, 0, 0.02, 0.1):
        manager = stage.manager(min_processes=2).start()
        handle = manager.submit(work.add, 1, 1)
        if pause is not None:
            gevent.sleep(pause)
        manager.stop(timeout=0)
        assert handle.done()
        assert_gone(manager, [])
    # With time enough it is finished.
    manager = stage.manager(min_processes=2).start()
    handle = manager.submit(work.add, 1, 1)
    manager.stop(timeout=PATIENCE)
    assert handle.get() == 2
    assert_gone(manager, [])


def twice_and_never_started():
    manager = stage.manager()
    manager.stop()
    manager.stop(timeout=0)
    assert_refused(manager)
    manager = started()
    pids = manager.pids()
    manager.stop()
    assert_gone(manager, pids)
    manager.stop()
    manager.stop(timeout=5)
    assert_refused(manager)
    try:
        manager.start()
    except gtaskman.ManagerStopped:
        return
    raise AssertionError("it was started again")


def from_two_greenlets():
    """Both return when it is stopped, and not before."""
    manager = started(kill_grace=LONG)
    handle = manager.submit(work.nap, 0.5)
    running(handle)
    pids = manager.pids()

    def stop():
        manager.stop(timeout=PATIENCE)
        assert handle.done() and not manager.pids()
        return "stopped"

    stoppers = [gevent.spawn(stop) for _ in range(5)]
    assert [each.get(timeout=PATIENCE) for each in stoppers] == ["stopped"] * 5
    assert handle.get() == "rested"
    assert_gone(manager, pids)


def a_stopper_that_is_killed():
    """The greenlet that stops it is killed: another stop finishes what it has begun."""
    manager = started(kill_grace=LONG)
    handle = manager.submit(work.nap, 1.0)
    running(handle)
    pids = manager.pids()
    stopper = gevent.spawn(manager.stop, PATIENCE)
    gevent.sleep(0.05)
    stopper.kill()
    other = gevent.spawn(manager.stop, 0)
    other.join(QUICK)
    assert other.ready(), "the second stop waits for one that is dead"
    assert handle.done()
    assert_gone(manager, pids)


def from_another_thread():
    manager = started(kill_grace=LONG)
    handle = manager.submit(work.nap)
    running(handle)
    pids = manager.pids()
    outcome = []

    def stop():
        try:
            manager.stop(timeout=0)
            outcome.append(handle.done() and not manager.pids())
        except BaseException as error:
            outcome.append(repr(error))

    monkey.get_original("_thread", "start_new_thread")(stop, ())
    wait_until(lambda: outcome)
    assert outcome == [True]
    assert type(fate(handle)) is gtaskman.TaskCancelled
    assert_gone(manager, pids)


def from_a_callback():
    """A callback of an event stops the manager that calls it."""
    manager = started()
    pids = manager.pids()
    manager.on("task-completed", lambda report: manager.stop(timeout=0))
    handle = manager.submit(work.add, 1, 1)
    other = manager.submit(work.nap)
    assert handle.get(timeout=PATIENCE) == 2
    wait_until(other.done)
    manager.stop()
    assert_gone(manager, pids)


def leaving_by_exception():
    """Nobody waits for results any more: no draining."""
    begin, handle = None, None
    manager = stage.manager(kill_grace=LONG, stop_timeout=PATIENCE)
    try:
        with manager:
            handle = manager.submit(work.nap)
            running(handle)
            pids = manager.pids()
            begin = time.monotonic()
            raise LookupError("mine")
    except LookupError:
        pass
    assert time.monotonic() - begin < QUICK
    assert type(fate(handle)) is gtaskman.TaskCancelled
    assert_gone(manager, pids)


def waiters_are_woken():
    """Whoever waits for a task, its progress or room in the queue goes on."""
    manager = started(max_processes=1, prefetch=1, max_pending_bytes=2500, kill_grace=LONG)
    first = manager.submit(work.nap)
    running(first)
    made = []

    def feed():
        while True:
            made.append(manager.submit(work.add, 1, 1))

    def listen():
        return list(first.progress())[-1].status

    feeder, listener = gevent.spawn(feed), gevent.spawn(listen)
    waiter = gevent.spawn(fate, first)
    gevent.sleep(0.1)
    assert len(made) < 10
    manager.stop(timeout=0)
    feeder.join(QUICK)
    assert feeder.ready(), "submit waits for ever"
    assert isinstance(feeder.exception, gtaskman.ManagerStopped), feeder.exception
    assert listener.get(timeout=QUICK) is gtaskman.TaskStatus.CANCELLED
    assert type(waiter.get(timeout=QUICK)) is gtaskman.TaskCancelled
    assert all(each.done() for each in made)
    assert_gone(manager, [])


def the_default_manager():
    """``shutdown`` stops it, and the next ``submit`` makes another."""
    first = gtaskman.submit(work.whoami).get(timeout=PATIENCE)
    gtaskman.shutdown()
    assert not alive(first)
    assert descendants_of(os.getpid()) == []
    gtaskman.shutdown()
    gtaskman.configure(max_processes=1)
    second = gtaskman.submit(work.whoami).get(timeout=PATIENCE)
    assert second != first
    gtaskman.shutdown(timeout=0)
    assert descendants_of(os.getpid()) == []


def exit_with_the_default_manager_at_work(how):
    """The interpreter ends right after this; the test looks at what is left."""
    gtaskman.configure(max_processes=2, stop_timeout=0.2, kill_grace=0.3)
    handles = [gtaskman.submit(work.of(kind, how)) for kind in ("sync", "async")]
    pids = {running(each) for each in handles}
    gtaskman.submit(work.add, 1, 1)
    return sorted(pids)
