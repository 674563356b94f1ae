"""Cancelling, time limits and waits: what is done to tasks, and what must come of it."""

from __future__ import annotations

import gc
import os
import random
import select
import signal
import tempfile
import time
import weakref

import gevent
from gevent import monkey

import gtaskman
from scenarios import stage, work
from scenarios.stage import PATIENCE, wait_until

LONG = (
    20.0  # seconds of grace that nobody should need: what takes so long was not asked, but killed
)
QUICK = 5.0  # seconds within which a request must be heeded; LONG is not among them


def each(story, cases, **common):
    """:func:`play` for a scenario of this module, by its name."""
    play(globals()[story], cases, **common)


def play(story, cases, **common):
    """Perform a scenario several times in one process, which saves the start of many."""
    for case in cases:
        try:
            story(**case, **common)
        except BaseException as error:
            error.add_note(f"in the case {case}")
            raise


def running(handle):
    """Wait until the task has said that it runs; gives its worker's pid."""
    if handle.report.message:
        return int(handle.report.message)
    for report in handle.progress():
        assert not report.finished, report
        return int(report.message)
    raise AssertionError("no report")


def fate(handle, timeout=PATIENCE):
    """What ``get`` gives or raises, as an object."""
    try:
        return handle.get(timeout=timeout)
    except gtaskman.WaitTimeout:
        raise
    except gtaskman.GTaskmanError as error:
        return error


def lines(path):
    """What tasks have marked there."""
    try:
        with open(path) as file:
            return file.read().split("\n")[:-1]
    except FileNotFoundError:
        return []


def scratch():
    """A path at which there is nothing yet."""
    return os.path.join(tempfile.mkdtemp(), "marks")


def assert_cancelled(handle, reason):
    error = fate(handle)
    assert isinstance(error, gtaskman.TaskCancelled), error
    assert error.reason == reason
    report = handle.report
    assert report.status is gtaskman.TaskStatus.CANCELLED
    assert report.message == reason
    assert report.finished_at is not None


def assert_empty(manager):
    """Nothing waits or runs any more, and every number adds up."""
    stats = manager.stats()
    assert stats["pool"]["current_tasks"] == stats["queue"]["current_tasks"] == 0, stats
    ended = sum(stats["pool"][f"{how}_tasks"] for how in ("completed", "failed", "cancelled"))
    assert ended == stats["pool"]["total_tasks"], stats


# --- cancelling


def cancelling_a_waiting_task(kind, start_method):
    path = scratch()
    with stage.manager(
        max_processes=1, prefetch=1, max_jobs_per_process=1, start_method=start_method
    ) as manager:
        first = manager.submit(work.of(kind, "nap"))
        running(first)
        second = manager.submit(work.of(kind, "leave_mark"), path)
        third = manager.submit(work.of(kind, "add"), 1, 2)
        gevent.sleep(0)
        assert sum(manager.queue.waiting()) == 2

        assert second.cancel("not needed")
        assert second.done()
        assert_cancelled(second, "not needed")
        assert second.report.started_at is None
        assert manager.stats()["queue"]["current_tasks"] == 1

        assert first.cancel()
        assert third.get(timeout=PATIENCE) == 3
        assert lines(path) == []
        assert_cancelled(first, "")
        assert_empty(manager)


def cancelling_a_prefetched_task(start_method):
    """It is in its worker already, behind one that computes."""
    path = scratch()
    with stage.manager(max_processes=1, start_method=start_method, kill_grace=LONG) as manager:
        first = manager.submit(work.spin, 1.0)
        pid = running(first)
        second = manager.submit(work.leave_mark, path)
        gevent.sleep(0)
        assert sum(manager.queue.waiting()) == 0, "it has not been handed out ahead"
        assert manager.stats()["queue"]["current_tasks"] == 1

        assert second.cancel("changed my mind")
        assert_cancelled(second, "changed my mind")
        assert not first.done()

        assert first.get(timeout=PATIENCE) == "spun"
        assert manager.submit(work.whoami).get(timeout=PATIENCE) == pid
        assert lines(path) == []
        assert_empty(manager)


def cancelling_a_running_task(kind, how, start_method):
    """It computes, waits cooperatively, or waits in the kernel: the request reaches it."""
    with stage.manager(max_processes=1, start_method=start_method, kill_grace=LONG) as manager:
        handle = manager.submit(work.of(kind, how))
        pid = running(handle)
        begin = time.monotonic()

        assert manager.cancel(handle.id, "enough")
        assert_cancelled(handle, "enough")
        assert time.monotonic() - begin < QUICK
        assert handle.report.worker == pid
        assert handle.report.started_at is not None

        # The worker lives, and the next tasks of both kinds are clean.
        for _ in range(3):
            assert manager.submit(work.whoami).get(timeout=PATIENCE) == pid
            assert manager.submit(work.whoami_async).get(timeout=PATIENCE) == pid
            assert manager.submit(work.rest, 0.001).get(timeout=PATIENCE) == pid
        assert_empty(manager)


def cancelling_runs_finally_blocks(kind, start_method):
    path = scratch()
    with stage.manager(max_processes=1, start_method=start_method, kill_grace=LONG) as manager:
        handle = manager.submit(work.of(kind, "tidy"), path)
        running(handle)
        assert handle.cancel("tidy up")
        assert_cancelled(handle, "tidy up")
        assert lines(path) == ["cleaned"]


def a_limit_during_the_clean_up_of_a_cancelled_task(kind):
    """Its clean-up is not interrupted, and it does not run again, whatever its retries."""
    path = scratch()
    with stage.manager(max_processes=1, kill_grace=LONG) as manager:
        task = work.of(kind, "outlast_its_limit").with_options(timeout=2.0, retries=2, backoff=0)
        handle = manager.submit(task, path)
        running(handle)
        assert handle.cancel("not needed")
        assert_cancelled(handle, "not needed")
        assert lines(path) == ["cleaned"]
        assert handle.report.attempt == 1
        assert_empty(manager)


def a_blocked_hub_and_a_task_that_stopped_in_time(kind):
    """The task's end is in the pipe when its grace is over: its worker is not killed."""
    with stage.manager(max_processes=1, kill_grace=0.2) as manager:
        handle = manager.submit(work.of(kind, "nap"))
        pid = running(handle)
        assert handle.cancel("not needed")
        (worker,) = manager._pool._workers.values()
        poll = monkey.get_original("select", "poll")()
        poll.register(worker.channel.fd, select.POLLIN)
        # The hub is blocked until the worker has answered and the grace is over.
        end = time.monotonic() + 0.4
        assert poll.poll(PATIENCE * 1000)
        work.original_sleep(max(0.0, end - time.monotonic()))
        assert_cancelled(handle, "not needed")
        assert manager.submit(work.of(kind, "whoami")).get(timeout=PATIENCE) == pid
        assert worker.kill_reason is None
        assert_empty(manager)


def cancelling_what_is_not_there(kind):
    with stage.manager(max_processes=1) as manager:
        assert manager.cancel("nobody") is False
        handle = manager.submit(work.of(kind, "add"), 1, 1)
        assert handle.get(timeout=PATIENCE) == 2
        assert handle.cancel("too late") is False
        assert manager.cancel(handle.id) is False
        assert handle.get() == 2
        assert handle.report.status is gtaskman.TaskStatus.COMPLETED


def cancelling_what_is_being_decoded(kind):
    """It has not begun, but its worker is at it already: its arguments take a while to arrive."""
    path = scratch()
    with stage.manager(max_processes=1, kill_grace=LONG) as manager:
        pid = manager.submit(work.whoami).get(timeout=PATIENCE)
        handle = manager.submit(work.of(kind, "take_slow"), work.SlowToArrive(path, 0.3))
        wait_until(lambda: lines(path))
        begin = time.monotonic()
        assert handle.cancel("before it began")
        assert_cancelled(handle, "before it began")
        assert time.monotonic() - begin < QUICK
        assert manager.submit(work.whoami).get(timeout=PATIENCE) == pid
        assert_empty(manager)


def cancelling_while_it_is_being_recalled():
    """A task is on its way back from its worker when it is cancelled: it must not run after all."""
    path = scratch()
    with stage.manager(max_processes=1, kill_grace=LONG) as manager:
        first = manager.submit(work.spin, 1.0)
        pid = running(first)
        os.kill(pid, signal.SIGSTOP)
        try:
            second = manager.submit(work.leave_mark, path)
            worker = next(iter(manager._pool._workers.values()))
            wait_until(lambda: worker.recalled)
            assert second.cancel("on the way back")
        finally:
            os.kill(pid, signal.SIGCONT)
        assert_cancelled(second, "on the way back")
        assert first.get(timeout=PATIENCE) == "spun"
        assert lines(path) == []
        assert_empty(manager)


def a_task_that_swallows_the_request(kind, start_method):
    """Its worker is killed after the grace, and nobody else suffers."""
    with stage.manager(max_processes=2, start_method=start_method, kill_grace=0.3) as manager:
        gate = scratch()
        other = manager.submit(work.stay_until, gate)
        other_pid = running(other)
        handle = manager.submit(work.of(kind, "stubborn"))
        pid = running(handle)
        assert pid != other_pid
        begin = time.monotonic()
        assert handle.cancel("now")
        assert_cancelled(handle, "now")
        taken = time.monotonic() - begin
        assert 0.25 < taken < QUICK, taken
        wait_until(lambda: pid not in manager.pids())
        work.mark(gate)
        assert other.get(timeout=PATIENCE) == other_pid
        assert other.report.attempt == 1
        assert manager.submit(work.of(kind, "add"), 2, 3).get(timeout=PATIENCE) == 5
        assert_empty(manager)


def bystanders_of_a_killed_task_run_again(start_method):
    """Async ones beside it are queued again, and behind a sync one the prefetched."""
    path = scratch()
    with stage.manager(max_processes=1, start_method=start_method, kill_grace=0.3) as manager:
        naps = [manager.submit(work.nap_async, 1.0) for _ in range(5)]
        pids = {running(each) for each in naps}
        once = manager.submit(work.once_async, path, "once", 60.0)
        assert {running(once)} == pids
        culprit = manager.submit(work.stubborn_async)
        assert {running(culprit)} == pids
        assert culprit.cancel("stop it")
        assert_cancelled(culprit, "stop it")
        for each in naps:
            assert each.get(timeout=PATIENCE) == "rested"
            assert each.report.worker not in pids
        # One that must not run twice is lost instead, and says why.
        error = fate(once)
        assert isinstance(error, gtaskman.WorkerCrashed), error
        assert "did not stop" in error.reason
        assert error.signal == "SIGKILL"
        assert lines(path) == ["once"]
        assert_empty(manager)


def racing_cancels(kind, rounds, seed):
    """A cancel that comes too late hits nobody (5)."""
    chance = random.Random(seed)
    with stage.manager(max_processes=1, kill_grace=LONG) as manager:
        pid = manager.submit(work.whoami).get(timeout=PATIENCE)
        task, ended = work.of(kind, "compute"), {"cancelled": 0, "completed": 0}
        for number in range(rounds):
            victim = manager.submit(task, chance.uniform(0, 0.002))
            heirs = [manager.submit(work.of(kind, "add"), number, each) for each in range(3)]
            gevent.sleep(chance.uniform(0, 0.003))
            victim.cancel("race")
            assert [each.get(timeout=PATIENCE) for each in heirs] == [
                number + each for each in range(3)
            ]
            outcome = fate(victim)
            if isinstance(outcome, gtaskman.TaskCancelled):
                ended["cancelled"] += 1
            else:
                assert outcome == pid, outcome
                ended["completed"] += 1
        assert manager.pids() == [pid]
        assert_empty(manager)
        return ended


def a_bell_that_rings_while_another_is_answered(kind, rounds):
    """A task that computes is asked for its stack and cancelled in one breath: it hears both."""
    with stage.manager(max_processes=1, kill_grace=LONG) as manager:
        pid = manager.submit(work.whoami).get(timeout=PATIENCE)
        for _ in range(rounds):
            handle = manager.submit(work.of(kind, "spin"), LONG)
            assert running(handle) == pid
            assert "in spin" in manager.stacks(timeout=QUICK)[pid]
            begin = time.monotonic()
            handle.cancel("and stop")
            assert_cancelled(handle, "and stop")
            assert time.monotonic() - begin < QUICK
        assert manager.pids() == [pid]


# --- time limits


def a_soft_limit_that_is_heeded(kind, how, start_method):
    with stage.manager(max_processes=1, start_method=start_method, kill_grace=LONG) as manager:
        task = work.of(kind, how).with_options(soft_timeout=0.2, timeout=30)
        begin = time.monotonic()
        handle = manager.submit(task)
        pid = running(handle)
        assert handle.get(timeout=PATIENCE) == "less"
        assert time.monotonic() - begin < QUICK
        assert handle.report.duration >= 0.15
        assert manager.submit(work.whoami).get(timeout=PATIENCE) == pid
        # A limit that is not reached does nothing, then or later.
        quick = work.of(kind, "rest").with_options(soft_timeout=0.2)
        assert manager.submit(quick, 0.01).get(timeout=PATIENCE) == pid
        assert manager.submit(work.rest, 0.4).get(timeout=PATIENCE) == pid
        assert manager.submit(work.compute, 0.3).get(timeout=PATIENCE) == pid


def a_soft_limit_that_is_not_caught(kind, how, start_method):
    with stage.manager(max_processes=1, start_method=start_method, kill_grace=LONG) as manager:
        handle = manager.submit(work.of(kind, how).with_options(soft_timeout=0.2))
        pid = running(handle)
        error = fate(handle)
        assert type(error) is gtaskman.TaskTimedOut, error
        assert error.report.status is gtaskman.TaskStatus.FAILED
        assert "soft" in error.message
        assert error.report.duration < QUICK
        assert manager.submit(work.whoami).get(timeout=PATIENCE) == pid


def a_hard_limit(kind, how, start_method):
    """The task is stopped at its limit, or killed a little later if it does not listen."""
    killed = how == "stubborn"
    grace = 0.3 if killed else LONG
    with stage.manager(max_processes=1, start_method=start_method, kill_grace=grace) as manager:
        handle = manager.submit(work.of(kind, how).with_options(timeout=0.3))
        pid = running(handle)
        error = fate(handle)
        assert type(error) is gtaskman.TaskTimedOut, error
        assert "0.3 s" in error.message
        report = handle.report
        assert report.status is gtaskman.TaskStatus.FAILED
        assert 0.25 < report.duration < QUICK, report.duration
        assert (manager.submit(work.whoami).get(timeout=PATIENCE) == pid) is not killed
        assert_empty(manager)


def a_limit_begins_with_the_task():
    """A sync task that waits in its worker behind another one has all of its time left."""
    with stage.manager(max_processes=1, kill_grace=LONG) as manager:
        first = manager.submit(work.spin, 0.8)
        running(first)
        limited = work.compute.with_options(timeout=0.5)
        second = manager.submit(limited, 0.3)
        assert first.get(timeout=PATIENCE) == "spun"
        second.get(timeout=PATIENCE)
        assert second.report.duration >= 0.3
        # And it holds when its turn has come.
        first = manager.submit(work.spin, 0.8)
        running(first)
        second = manager.submit(limited, 60.0)
        assert first.get(timeout=PATIENCE) == "spun"
        error = fate(second)
        assert type(error) is gtaskman.TaskTimedOut, error
        assert 0.4 < second.report.duration < QUICK


def a_task_knows_its_deadline(kind):
    with stage.manager(max_processes=1) as manager:
        limited = work.of(kind, "know_myself").with_options(timeout=50)
        handle = manager.submit(limited)
        task_id, name, attempt, deadline, now, left = handle.get(timeout=PATIENCE)
        assert task_id == handle.id
        assert name == limited.definition.name == handle.report.name
        assert attempt == 1
        assert 49 < deadline - now <= 50.001
        assert 49 < left <= 50
        free = manager.submit(work.of(kind, "know_myself")).get(timeout=PATIENCE)
        assert free[3] is None and free[5] is None


def stopped_workers_and_a_limit(kind):
    """A worker that does not run at all (SIGSTOP) costs its task no more than limit and grace."""
    with stage.manager(max_processes=1, kill_grace=0.3) as manager:
        handle = manager.submit(work.of(kind, "nap").with_options(timeout=0.5))
        pid = running(handle)
        os.kill(pid, signal.SIGSTOP)
        error = fate(handle, timeout=PATIENCE)
        assert type(error) is gtaskman.TaskTimedOut, error
        wait_until(lambda: pid not in manager.pids())
        assert manager.submit(work.whoami).get(timeout=PATIENCE) != pid
        assert_empty(manager)


# --- waits


def a_waiter_that_is_killed(start_method):
    """Nothing is left of it (12), and the task goes on."""
    with stage.manager(max_processes=1, start_method=start_method) as manager:
        handle = manager.submit(work.nap, 0.5)
        running(handle)
        waiters = [gevent.spawn(handle.get) for _ in range(50)]
        timed = [gevent.spawn(handle.get, 60) for _ in range(50)]
        gevent.sleep(0.01)
        gevent.killall(waiters + timed)
        assert not handle._waiters
        ghosts = [weakref.ref(each) for each in waiters + timed]
        waiters.clear()
        timed.clear()
        gevent.sleep(0)  # gevent tells their end when the loop turns
        gc.collect()
        assert not [each for each in ghosts if each() is not None]
        assert handle.get(timeout=PATIENCE) == "rested"


def a_wait_that_is_over(kind):
    """``get(timeout)`` raises TimeoutError, and the task goes on."""
    with stage.manager(max_processes=1) as manager:
        handle = manager.submit(work.of(kind, "nap"), 0.6)
        running(handle)
        begin = time.monotonic()
        try:
            handle.get(timeout=0.05)
        except TimeoutError as error:
            text = str(error)
        else:
            text = "it has not raised"
        assert handle.id in text, text
        assert time.monotonic() - begin < 0.5
        assert handle.wait(0) is False
        assert not handle.done()
        assert not handle._waiters
        assert handle.get(timeout=PATIENCE) == "rested"
        assert handle.wait(0) is True


def a_wait_under_a_gevent_timeout():
    with stage.manager(max_processes=1) as manager:
        handle = manager.submit(work.nap, 0.5)
        running(handle)
        try:
            with gevent.Timeout(0.05):
                handle.get()
        except gevent.Timeout:
            pass
        else:
            raise AssertionError("it has not raised")
        assert not handle._waiters
        assert gevent.wait([handle], timeout=PATIENCE) == [handle]
        assert handle.get() == "rested"
