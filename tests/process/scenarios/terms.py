"""What users expect of a queue, through a manager and its workers."""

from __future__ import annotations

import datetime
import os
import time

import gevent
from gevent import monkey

import gtaskman
from gtaskman.report import FailureKind
from gtaskman.task import Definition
from scenarios import stage, work
from scenarios.control import assert_cancelled, assert_empty, fate, lines, play, running, scratch
from scenarios.stage import PATIENCE, wait_until

SHORT = 0.2  # seconds: long enough to look at what waits
LONG = 1000.0


def each(story, cases, **common):
    """:func:`play` for a scenario of this module, by its name."""
    play(globals()[story], cases, **common)


def one_worker(**config):
    return stage.manager(max_processes=1, **config)


@gtaskman.task
def fail_first(path, data):
    """Fail the first time, and give the sum of what came the next time."""
    work.mark(path)
    if len(lines(path)) == 1:
        raise ValueError("the first time")
    return sum(data[:1000])


class Import(gtaskman.Task, unique=True, priority=3):
    source: str
    rows: int = 10

    def run(self, progress):
        progress.update(0, message=str(os.getpid()))
        gevent.sleep(60)


# --- delays


def a_delayed_task(kind, how):
    with one_worker() as manager:
        begin = time.time()
        moment = datetime.datetime.fromtimestamp(begin + SHORT, datetime.UTC)
        options = {"delay": SHORT} if how == "delay" else {"eta": moment}
        handle = manager.submit(work.of(kind, "add").with_options(**options), 1, 2)
        assert handle.report.status is gtaskman.TaskStatus.WAITING
        assert manager.stats()["queue"]["current_tasks"] == 1
        # Those that are due do not wait for it.
        assert manager.submit(work.of(kind, "add"), 2, 2).get(timeout=PATIENCE) == 4
        assert handle.get(timeout=PATIENCE) == 3
        assert handle.report.started_at >= begin + SHORT - 0.01
        assert_empty(manager)


def many_delays(kind):
    """Each waits for its own time, and none for another's."""
    with one_worker() as manager:
        handles = {
            wait: manager.submit(work.of(kind, "add").with_options(delay=wait), 1, 1)
            for wait in (LONG, 0.3, 0.1, 0.2, 0.0)
        }
        last = handles.pop(LONG)
        for wait, handle in handles.items():
            assert handle.get(timeout=PATIENCE) == 2
            assert handle.report.started_at >= handle.report.created_at + wait - 0.01
        assert not last.done()
        assert manager.stats()["queue"]["current_tasks"] == 1
        assert last.cancel()
        assert_empty(manager)


def cancelling_a_delayed_task(kind):
    path = scratch()
    with one_worker() as manager:
        handle = manager.submit(work.of(kind, "leave_mark").with_options(delay=LONG), path)
        assert handle.cancel("not needed")
        assert_cancelled(handle, "not needed")
        assert handle.report.started_at is None
        assert lines(path) == []
        assert_empty(manager)


def delays_from_other_threads(background):
    """Whoever submits from another thread waits for nothing but the result."""
    with one_worker(background=background) as manager:
        results = []

        def use():
            handle = manager.submit(work.add.with_options(delay=0.05), 1, 2)
            results.append(handle.get(timeout=PATIENCE))

        threads = monkey.get_original("_thread", "start_new_thread")
        for _ in range(5):
            threads(use, ())
        wait_until(lambda: len(results) == 5)
        assert results == [3] * 5


# --- priority


def priorities(kind):
    """What waits is begun by priority, and by its age within one."""
    path = scratch()
    with one_worker(prefetch=1, max_jobs_per_process=1) as manager:
        manager.pause()
        handles = []
        for number, priority in enumerate((0, -5, 5, 0, 100, 5)):
            marking = work.of(kind, "leave_mark").with_options(priority=priority)
            handles.append(manager.submit(marking, path, f"{priority}/{number}"))
        manager.resume()
        gevent.wait(handles, timeout=PATIENCE)
        assert lines(path) == ["100/4", "5/2", "5/5", "0/0", "0/3", "-5/1"]


# --- unique


def refused(submit):
    try:
        submit()
    except gtaskman.DuplicateTaskError as error:
        return error
    raise AssertionError("it was not refused")


def a_unique_task(kind):
    with stage.manager() as manager:
        nap = work.of(kind, "nap").with_options(unique="one nap")
        first = manager.submit(nap)
        running(first)
        error = refused(lambda: manager.submit(nap))
        assert (error.id, error.key) == (first.id, "one nap")
        # What was refused has left nothing.
        assert manager.stats()["queue"]["total_tasks"] == 1
        assert manager.storage.count() == 1
        other = manager.submit(nap.with_options(unique="another"), 0.01)
        assert other.get(timeout=PATIENCE) == "rested"
        first.cancel()
        assert_cancelled(first, "")
        assert manager.submit(nap, 0.01).get(timeout=PATIENCE) == "rested"
        assert_empty(manager)


def a_task_that_is_unique_by_its_arguments():
    with stage.manager() as manager:
        first = manager.submit(Import(source="a"))
        assert refused(lambda: manager.submit(Import(source="a", rows=10))).id == first.id
        others = [manager.submit(Import(source="b")), manager.submit(Import(source="a", rows=1))]
        nap = work.nap.with_options(unique=True, delay=LONG)
        third = manager.submit(nap, 60.0)
        assert refused(lambda: manager.submit(nap, seconds=60.0)).id == third.id
        others.append(manager.submit(nap, 61.0))
        for handle in (first, third, *others):
            assert handle.cancel()
        assert_empty(manager)


def a_unique_task_from_another_thread(background):
    with one_worker(background=background) as manager:
        nap = work.nap.with_options(unique="one nap")
        first = manager.submit(nap)
        errors = []

        def use():
            errors.append(refused(lambda: manager.submit(nap)))

        monkey.get_original("_thread", "start_new_thread")(use, ())
        wait_until(lambda: errors)
        assert (errors[0].id, errors[0].key) == (first.id, "one nap")
        assert manager.stats()["queue"]["total_tasks"] == 1
        first.cancel()


# --- ttl


def assert_expired(handle, path):
    error = fate(handle)
    assert type(error) is gtaskman.TaskExpired, error
    assert "0.2 s" in str(error)
    report = handle.report
    assert report.status is gtaskman.TaskStatus.FAILED
    assert report.error.kind is FailureKind.EXPIRED
    assert (report.started_at, report.attempt) == (None, 1)
    assert report.finished_at >= report.created_at + SHORT - 0.01
    assert lines(path) == []


def expiring_behind_another_task(how):
    """Its worker holds it already, behind one that takes long and does not suffer from that."""
    path = scratch()
    with one_worker() as manager:
        # Tasks of about the same length: nothing is recalled for the sake of the short ones.
        assert manager.submit(work.compute, 0.5).get(timeout=PATIENCE)
        first = manager.submit(work.of("sync", how), 1.5)
        running(first)
        late = manager.submit(work.leave_mark.with_options(ttl=SHORT, retries=3), path)
        in_time = manager.submit(work.leave_mark.with_options(ttl=LONG), path + ".other")
        assert_expired(late, path)
        assert not isinstance(fate(first), Exception)
        assert in_time.get(timeout=PATIENCE)
        assert_empty(manager)


def expiring_while_nobody_asks(kind):
    """In a queue that hands out nothing."""
    path = scratch()
    with one_worker() as manager:
        manager.pause()
        late = manager.submit(work.of(kind, "leave_mark").with_options(ttl=SHORT), path)
        later = manager.submit(
            work.of(kind, "leave_mark").with_options(ttl=SHORT, delay=SHORT), path
        )
        assert_expired(late, path)
        assert_expired(later, path)
        assert later.report.finished_at >= later.report.created_at + 2 * SHORT - 0.02
        assert [each.id for each in manager.dead()] == [late.id, later.id]
        assert manager.stats()["queue"]["failed_tasks"] == 2
        assert_empty(manager)


def starting_in_time(kind):
    """What has begun in time may take as long as it likes, and try again."""
    path = scratch()
    with one_worker() as manager:
        assert manager.submit(work.whoami).get(timeout=PATIENCE)  # a worker is there
        slow = manager.submit(work.of(kind, "rest").with_options(ttl=0.5), 0.6)
        assert slow.get(timeout=PATIENCE)
        backoff = gtaskman.Backoff(first=0.6, jitter=0)
        trying = work.of(kind, "fail_until").with_options(ttl=0.5, retries=1, backoff=backoff)
        assert manager.submit(trying, path, 2).get(timeout=PATIENCE) == 2
        assert_empty(manager)


# --- back-off


def a_retry_waits(kind):
    path = scratch()
    with one_worker() as manager:
        backoff = gtaskman.Backoff(first=SHORT, factor=2, jitter=0)
        trying = work.of(kind, "fail_until").with_options(retries=2, backoff=backoff)
        begin = time.monotonic()
        handle = manager.submit(trying, path, 3)
        wait_until(lambda: manager.queue.delayed() == 1)
        assert handle.report.status is gtaskman.TaskStatus.WAITING
        assert handle.report.attempt == 2
        # Others run meanwhile, and it can be cancelled like everything that waits.
        assert manager.submit(work.of(kind, "add"), 1, 1).get(timeout=PATIENCE) == 2
        assert handle.get(timeout=PATIENCE) == 3
        assert time.monotonic() - begin >= 3 * SHORT
        assert handle.report.attempt == 3

        handle = manager.submit(trying.with_options(backoff=LONG), path, 9)
        wait_until(lambda: manager.queue.delayed() == 1)
        assert handle.cancel("enough")
        assert_cancelled(handle, "enough")
        assert_empty(manager)


def a_retry_without_a_wait(kind):
    path = scratch()
    with one_worker() as manager:
        trying = work.of(kind, "fail_until").with_options(retries=2, backoff=0)
        assert manager.submit(trying, path, 3).get(timeout=PATIENCE) == 3


# --- pausing


def a_pause(kind, background):
    path = scratch()
    with one_worker(background=background) as manager:
        first = manager.submit(work.of(kind, "nap"), SHORT)
        running(first)
        manager.pause()
        handle = manager.submit(work.of(kind, "leave_mark"), path)
        assert first.get(timeout=PATIENCE) == "rested"
        assert manager.submit(work.of(kind, "add"), 1, 1).wait(SHORT) is False
        assert not handle.done()
        assert manager.queue.paused
        assert manager.stats()["queue"]["current_tasks"] == 2
        assert lines(path) == []
        manager.resume()
        assert handle.get(timeout=PATIENCE)
        assert lines(path) == ["x"]


def a_manager_that_is_paused_before_it_starts():
    manager = one_worker()
    manager.pause()
    with manager:
        handle = manager.submit(work.add, 1, 2)
        assert handle.wait(SHORT) is False
        manager.resume()
        assert handle.get(timeout=PATIENCE) == 3


# --- dead letters


def a_dead_letter(background):
    path = scratch()
    with one_worker(background=background) as manager:
        data = bytearray(b"\1" * 100_000)
        first = manager.submit(fail_first, path, data)
        assert type(fate(first)) is gtaskman.TaskFailed
        data[:] = bytes(100_000)  # it is the caller's again
        (report,) = manager.dead()
        assert (report.id, report.error.message) == (first.id, "the first time")

        again = manager.retry(first.id)
        assert again.id == first.id
        assert again is not first
        found = manager.handle(first.id)
        assert found is again or (found is None and again.done())  # it may have ended by now
        assert manager.dead() == []
        assert again.get(timeout=PATIENCE) == 1000
        assert (again.report.attempt, again.report.created_at) == (1, report.created_at)
        assert manager.report(first.id).status is gtaskman.TaskStatus.COMPLETED
        assert type(fate(first)) is gtaskman.TaskFailed, "what has ended has ended"
        assert manager.retry(first.id) is None
        assert manager.retry("nobody") is None
        assert_empty(manager)


def few_dead_letters():
    with one_worker(keep_finished=2) as manager:
        handles = [manager.submit(work.fail, "value") for _ in range(5)]
        gevent.wait(handles, timeout=PATIENCE)
        assert len(manager.dead()) == 2
        assert manager.queue.info()["dead"] == 2


def a_crash_is_a_dead_letter(kind):
    with one_worker() as manager:
        handle = manager.submit(work.of(kind, "die"), "kill")
        assert type(fate(handle)) is gtaskman.WorkerCrashed
        assert [each.id for each in manager.dead()] == [handle.id]
        again = manager.retry(handle.id)
        assert type(fate(again)) is gtaskman.WorkerCrashed
        assert "poison" not in again.report.error.message
        assert_empty(manager)


# --- reports that are not kept for ever


def a_report_that_goes(kind):
    with one_worker() as manager:
        add = work.of(kind, "add")
        gone = manager.submit(add.with_options(result_ttl=SHORT), 1, 2)
        failed = manager.submit(work.of(kind, "fail").with_options(result_ttl=SHORT), "value")
        kept = manager.submit(add.with_options(result_ttl=LONG), 1, 3)
        usual = manager.submit(add, 1, 4)
        gevent.wait([gone, failed, kept, usual], timeout=PATIENCE)
        wait_until(lambda: manager.report(gone.id) is None)
        wait_until(lambda: manager.report(failed.id) is None)
        assert manager.storage.count() == 2
        assert manager.report(kept.id).result == 4
        assert manager.report(usual.id).result == 5
        assert gone.get() == 3, "whoever holds it has it"


# --- the end


def stopping_with_tasks_that_cannot_begin():
    """They are cancelled at once; what runs, and what is due in time, is waited for."""
    manager = one_worker().start()
    first = manager.submit(work.nap, SHORT)
    running(first)
    soon = manager.submit(work.add.with_options(delay=SHORT), 1, 2)
    never = manager.submit(work.add.with_options(delay=LONG), 1, 2)
    manager.stop(timeout=LONG / 2)
    assert first.get() == "rested"
    assert soon.get() == 3
    assert type(fate(never)) is gtaskman.TaskCancelled

    manager = one_worker().start()
    first = manager.submit(work.nap, SHORT)
    running(first)
    manager.pause()
    waiting = manager.submit(work.add, 1, 2)
    manager.stop(timeout=LONG)
    assert first.get() == "rested"
    assert type(fate(waiting)) is gtaskman.TaskCancelled


def terms_cost_no_definition():
    """A worker hears of a task once, under whatever terms it is submitted."""
    made = []
    init = Definition.__init__

    def counting(self, *args, **kwargs):
        made.append(self)
        init(self, *args, **kwargs)

    Definition.__init__ = counting
    try:
        with one_worker() as manager:
            handles = [
                manager.submit(
                    work.add.with_options(priority=n, delay=n / 1000, unique=str(n)), n, n
                )
                for n in range(10)
            ]
            assert [each.get(timeout=PATIENCE) for each in handles] == [2 * n for n in range(10)]
    finally:
        Definition.__init__ = init
    assert made == []
