"""Progress: what running tasks write, and who reads it when."""

from __future__ import annotations

import itertools
import time

import gevent

import gtaskman
from gtaskman import TaskStatus
from scenarios import stage, work
from scenarios.control import LONG, fate, play
from scenarios.stage import PATIENCE, wait_until


def each(story, cases, **common):
    """:func:`control.each` for the scenarios of this module."""
    play(globals()[story], cases, **common)


def listen(manager, *events):
    heard = []
    for event in events:
        manager.on(event, lambda report, event=event: heard.append((event, report)))
    return heard


def while_it_computes(kind):
    """What a task writes arrives while it computes without a pause."""
    with stage.manager(max_processes=1) as manager:
        handle = manager.submit(work.of(kind, "report_then_spin"), 0.5)
        seen = []
        for report in handle.progress():
            seen.append((report.completed, report.message, report.status, time.time()))
        first, second, last = seen
        assert first[:3] == (25, "a quarter", TaskStatus.PROCESSING)
        assert second[:3] == (75, "most", TaskStatus.PROCESSING)
        assert last[:3] == (100, "most", TaskStatus.COMPLETED)
        assert second[3] - first[3] > 0.3
        assert last[3] - second[3] > 0.3
        assert handle.get() == "spun"


def what_report_says(kind):
    """``handle.report`` and ``manager.report`` are never behind what was heard."""
    with stage.manager(max_processes=1, kill_grace=LONG) as manager:
        handle = manager.submit(work.of(kind, "spin"), 30)
        assert handle.report.status is TaskStatus.WAITING
        pid = int(next(handle.progress()).message)
        for report in (handle.report, manager.report(handle.id)):
            assert report.status is TaskStatus.PROCESSING
            assert report.message == str(pid)
            assert report.worker == pid
            assert report.started_at is not None
            assert report.finished_at is None
            assert (report.completed, report.target) == (0, 100)
        handle.cancel("seen enough")
        wait_until(handle.done)
        assert handle.report == manager.report(handle.id)
        assert handle.report.revision > report.revision


def a_flood(kind, updates):
    """Thousands a second do not drown the parent, and the last value is right."""
    with stage.manager(max_processes=1) as manager:
        manager.submit(work.add, 1, 1).get(timeout=PATIENCE)
        heard = listen(manager, "task-progress")
        handle = manager.submit(work.of(kind, "report_steps"), updates)
        begin, longest = time.monotonic(), 0.0
        while not handle.done():
            before = time.monotonic()
            gevent.sleep(0.001)
            longest = max(longest, time.monotonic() - before)
        taken = time.monotonic() - begin
        assert handle.get() == updates
        report = handle.report
        assert (report.completed, report.target) == (updates, updates)
        assert report.message == f"step {updates}"
        gevent.sleep(0.05)
        values = [report.completed for _, report in heard]
        assert values == sorted(values)
        assert values[0] == 1
        assert values[-1] == updates, values[-1]
        # The burst, and a thousand a second.
        assert len(values) < 200 + 1500 * taken, (len(values), taken)
        assert longest < 0.5, longest
        return len(values)


def an_iterator(kind, steps):
    with stage.manager(max_processes=1) as manager:
        handle = manager.submit(work.of(kind, "report_steps"), steps)
        reports = list(handle.progress())
        assert [each.completed for each in reports] == [*range(1, steps + 1), steps]
        assert [each.finished for each in reports] == [False] * steps + [True]
        revisions = [each.revision for each in reports]
        assert revisions == sorted(set(revisions))
        assert reports[-1] == handle.report
        # Of a task that has ended there is the last report alone.
        assert list(handle.progress()) == [handle.report]
        # Several readers hear all of it.
        handle = manager.submit(work.of(kind, "report_steps"), steps)
        feeds = [gevent.spawn(list, handle.progress()) for _ in range(3)]
        gevent.joinall(feeds, timeout=PATIENCE)
        assert all(len(each.value) == steps + 1 for each in feeds)
        # It ends for a task that fails, as well.
        handle = manager.submit(work.of(kind, "fail_with_attributes"))
        *_, last = handle.progress()
        assert last.status is TaskStatus.FAILED


def events_in_order(kind):
    with stage.manager(max_processes=1, kill_grace=LONG) as manager:
        heard = listen(manager, "task-progress", "task-completed", "task-failed", "task-cancelled")
        task = work.of(kind, "report_steps").with_id("named", 3)
        mine = listen(manager, "task-progress-named", "task-completed-named", "task-failed-named")
        once = []
        manager.once("task-progress", once.append)

        def broken(report):
            raise RuntimeError("a callback that raises disturbs nothing")

        manager.on("task-progress", broken)
        manager.on("task-completed", broken)
        manager.submit(task).get(timeout=PATIENCE)
        failing = manager.submit(work.of(kind, "fail_with_attributes"))
        fate(failing)
        stopped = manager.submit(work.of(kind, "spin"))
        next(stopped.progress())
        stopped.cancel("so it is")
        fate(stopped)
        wait_until(lambda: len(heard) >= 7)
        names = [name for name, _ in heard]
        assert names == [
            *["task-progress"] * 3,
            "task-completed",
            "task-failed",
            "task-progress",
            "task-cancelled",
        ], names
        assert [(name, report.completed) for name, report in mine] == [
            ("task-progress-named", 1),
            ("task-progress-named", 2),
            ("task-progress-named", 3),
            ("task-completed-named", 3),
        ]
        assert heard[3][1].result == 3
        assert heard[4][1].error.exc_type == "scenarios.work.Custom"
        assert heard[6][1].message == "so it is"
        assert len(once) == 1
        manager.off("task-completed")
        manager.off("task-progress", broken)
        manager.submit(work.of(kind, "report_steps"), 1).get(timeout=PATIENCE)
        wait_until(lambda: len(heard) >= 8)
        gevent.sleep(0.01)
        assert [name for name, _ in heard[7:]] == ["task-progress"]


def settled_with_the_pen(kind):
    with stage.manager(max_processes=1) as manager:
        assert manager.submit(work.of(kind, "settle_with_pen"), "finish").get(PATIENCE) == "by pen"
        error = fate(manager.submit(work.of(kind, "settle_with_pen"), "fail"))
        assert type(error) is gtaskman.TaskFailed
        assert type(error.__cause__) is work.Custom and error.__cause__.code == 7
        error = fate(manager.submit(work.of(kind, "settle_with_pen"), "fail text"))
        assert error.message == "in words"
        assert manager.submit(work.of(kind, "settle_with_pen"), "not").get(PATIENCE) == "by return"


def deferred():
    """A task that ends after its ``run`` has returned keeps its place until then."""
    with stage.manager(max_processes=1, kill_grace=LONG, max_jobs_per_process=2) as manager:
        begin = time.monotonic()
        handles = [manager.submit(work.Later(seconds=0.3, how="finish")) for _ in range(4)]
        assert [each.get(timeout=PATIENCE) for each in handles] == ["later"] * 4
        assert time.monotonic() - begin > 0.55  # two after two
        error = fate(manager.submit(work.Later(seconds=0.05, how="fail")))
        assert type(error) is gtaskman.TaskFailed and error.message == "later"
        assert manager.submit(work.LaterSync(seconds=0.1)).get(timeout=PATIENCE) == "later"
        # It can be cancelled, and has its limits.
        handle = manager.submit(work.Later(seconds=60, how="finish"))
        wait_until(lambda: manager.stats()["pool"]["current_tasks"] == 1)
        gevent.sleep(0.1)
        assert handle.cancel("too long")
        assert type(fate(handle)) is gtaskman.TaskCancelled
        limited = work.Later(seconds=60, how="finish").with_options(timeout=0.3)
        assert type(fate(manager.submit(limited))) is gtaskman.TaskTimedOut


def late_reports():
    """What is written after the end changes nothing, and no report goes back in time."""
    with stage.manager(max_processes=1) as manager:
        heard = listen(manager, "task-progress", "task-completed")
        handle = manager.submit(work.keep_writing, 0.5)
        assert handle.get(timeout=PATIENCE) == "ended"
        last = handle.report
        assert manager.submit(work.rest, 0.3).get(timeout=PATIENCE)
        assert handle.report == last == manager.report(handle.id)
        of_it = [(name, report) for name, report in heard if report.id == handle.id]
        assert [name for name, _ in of_it] == ["task-progress", "task-completed"]
        revisions = [report.revision for _, report in of_it]
        assert all(one < two for one, two in itertools.pairwise(revisions))
