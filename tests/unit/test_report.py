"""Reports and the pen that writes them, and what ``get`` raises when a task has not succeeded."""

from __future__ import annotations

import decimal
import pickle

import numpy
import pytest

from gtaskman import (
    Failure,
    FailureKind,
    GTaskmanError,
    Progress,
    Report,
    TaskCancelled,
    TaskExpired,
    TaskFailed,
    TaskStatus,
    TaskTimedOut,
    WorkerCrashed,
)
from gtaskman.errors import RemoteTraceback
from gtaskman.handle import TaskHandle
from gtaskman.report import DEFERRED

pytestmark = pytest.mark.quick


def report(status=TaskStatus.COMPLETED, **values):
    return Report("an-id", "tests.name", "sync", status, 1000.0, **values)


# --- reports


def test_a_report_cannot_be_changed():
    made = report(error=Failure(FailureKind.ERROR, "no"))
    for thing, name in ((made, "status"), (made, "result"), (made.error, "message")):
        with pytest.raises(AttributeError):
            setattr(thing, name, None)


def test_a_first_report_knows_little_and_targets_a_hundred():
    made = report(TaskStatus.WAITING)
    assert (made.completed, made.target, made.message) == (0, 100, "")
    assert (made.result, made.error, made.started_at, made.finished_at) == (None,) * 4
    assert (made.exc_type, made.traceback, made.duration) == (None,) * 3
    assert (made.attempt, made.completion, made.finished) == (1, 0, False)


def test_a_status_says_whether_anything_follows():
    follows = {TaskStatus.WAITING: False, TaskStatus.PROCESSING: False}
    for status in TaskStatus:
        assert status.finished is report(status).finished is follows.get(status, True)


def test_a_duration_takes_a_start_and_an_end():
    assert report(started_at=1.0, finished_at=3.5).duration == 2.5
    assert report(started_at=1.0).duration is None
    assert report(finished_at=1.0).duration is None


def test_a_report_shows_the_failure_of_its_task():
    failure = Failure(FailureKind.ERROR, "no", "ValueError", "Traceback ...")
    made = report(TaskStatus.FAILED, error=failure)
    assert (made.exc_type, made.traceback) == ("ValueError", "Traceback ...")


def test_reports_are_pickled_and_compared_by_value():
    made = report(result={"a": [1]}, error=Failure(FailureKind.CRASH, "x", signal="SIGKILL"))
    again = pickle.loads(pickle.dumps(made))
    assert again == made
    assert again.status is made.status
    assert again.error.kind is FailureKind.CRASH
    assert {TaskStatus.FAILED: 1}[pickle.loads(pickle.dumps(TaskStatus.FAILED))] == 1


# --- jobs write them


def test_the_reports_of_a_job_rise_in_revision_and_tell_its_story(make_job):
    job = make_job("mine")
    # given a job that waits
    reports = [job.first_report(), job.report()]
    # if it makes progress and ends
    job.note_progress(30, 50, "under way")
    reports += [job.report(), job.completed_report({"a": 1}, 99, 5.0, 7.5)]
    # expect revisions in order, and the last report to be whole
    revisions = [each.revision for each in reports]
    assert revisions == sorted(set(revisions))
    assert reports[0].status is reports[1].status is TaskStatus.WAITING
    assert (reports[2].completed, reports[2].target, reports[2].message) == (30, 50, "under way")
    last = reports[-1]
    assert last.status is TaskStatus.COMPLETED
    assert last.completed == last.target == 50, "finishing sets completion to the target"
    assert (last.result, last.result_size) == ({"a": 1}, 99)
    assert last.duration == pytest.approx(2.5)


def test_a_failed_job_says_why_and_how_far_it_came(make_job):
    job = make_job()
    job.note_progress(30, 50, "under way")
    failure = Failure(FailureKind.ERROR, "no", "ValueError", "Traceback ...")
    last = job.failed_report(failure, 5.0, 7.5)
    assert (last.status, last.error, last.message) == (TaskStatus.FAILED, failure, "no")
    assert (last.completed, last.target) == (30, 50)
    assert last.duration == pytest.approx(2.5)


def test_a_job_that_begins_again_has_nothing_left_of_its_first_run(make_job):
    job = make_job()
    job.note_progress(30, 50, "under way")
    job.number, job.started_at, job.processing = 5, 1.0, True
    before = job.report().revision
    job.begin_again()
    again = job.report()
    assert (again.status, again.completed, again.message) == (TaskStatus.WAITING, 0, "")
    assert (again.target, again.started_at, job.number) == (100, None, 0)
    assert again.revision > before


# --- the pen


@pytest.fixture
def written():
    """What came to the sink."""
    return []


@pytest.fixture
def pen(written):
    return Progress(lambda *values: written.append(values))


def test_every_update_goes_to_the_sink_and_what_is_left_out_stays(pen, written):
    pen.update(1)
    pen.update(message="two")
    pen.update(3, target=10)
    pen.update()
    pen.update(0, target=0, message="")
    assert written == [(1, 100, ""), (1, 100, "two"), (3, 10, "two"), (3, 10, "two"), (0, 0, "")]
    assert (pen.completed, pen.target, pen.message) == (0, 0, "")


def test_without_a_sink_a_pen_keeps_what_is_written():
    pen = Progress()
    pen.update(5, target=7, message="here")
    assert (pen.completed, pen.target, pen.message) == (5, 7, "here")


@pytest.mark.parametrize(
    "number", [decimal.Decimal("0.5"), numpy.float32(0.5), numpy.int64(5), True], ids=repr
)
def test_numbers_of_other_libraries_become_plain_ones(pen, written, number):
    pen.update(number, target=number)
    assert type(written[0][0]) in (int, float)
    assert written[0][:2] == (number, number)


def test_messages_become_text(pen, written):
    pen.update(message=5)
    assert written == [(0, 100, "5")]


@pytest.mark.parametrize("field", ["completed", "target"])
@pytest.mark.parametrize("value", ["half", [1], object(), 1j])
def test_what_is_no_number_is_refused_and_named(pen, written, field, value):
    with pytest.raises(TypeError, match=f"{field} takes a number"):
        pen.update(**{field: value})
    assert written == []


def test_after_its_end_a_pen_writes_nothing(pen, written):
    pen.update(1)
    pen.finish("result")
    pen.update(2, target=3, message="late")
    assert written == [(1, 100, "")]
    assert (pen.completed, pen.target, pen.message) == (1, 100, "")


@pytest.mark.parametrize(
    ("ends", "result", "error"),
    [
        ([("finish", 5), ("finish", 6)], 5, None),
        ([("finish", 5), ("fail", "no")], 5, None),
        ([("fail", "no"), ("finish", 5)], None, "no"),
        ([("fail", "no"), ("fail", "never")], None, "no"),
        ([("finish", None), ("finish", 6)], None, None),
    ],
    ids=repr,
)
def test_the_first_end_counts(pen, ends, result, error):
    for how, what in ends:
        getattr(pen, how)(what)
    assert pen.ended
    assert pen.result == result
    assert error == (None if pen.error is None else str(pen.error))


def test_a_task_fails_with_an_exception_or_with_a_text():
    error, pen = ValueError("own"), Progress()
    pen.fail(error, message="and a message")
    assert pen.error is error
    assert pen.message == "and a message"
    pen = Progress()
    pen.fail("in words")
    assert isinstance(pen.error, GTaskmanError)
    assert str(pen.error) == "in words"


def test_the_end_is_told_once():
    ends, pen = [], Progress()
    pen._on_end = lambda: ends.append(1)
    pen.finish()
    pen.fail("late")
    assert ends == [1]


def test_a_deferred_task_is_not_at_its_end(pen):
    assert pen.defer() is DEFERRED
    assert pen.deferred
    assert not pen.ended
    pen.finish(5)
    assert pen.result == 5


# --- what ``get`` raises


class Manager:
    """What a handle asks of its manager."""

    pid = -1


@pytest.fixture
def settled(make_job):
    """Makes handles of tasks that have ended."""

    def settle(last, exception=None):
        handle = TaskHandle(make_job("an-id"), Manager())
        handle.settle(last, exception)
        return handle

    return settle


FAILURES = {
    FailureKind.ERROR: (TaskFailed, "task tests.name (an-id) failed: ValueError: no"),
    FailureKind.CRASH: (WorkerCrashed, "task tests.name (an-id) lost its worker: no"),
    FailureKind.TIMEOUT: (TaskTimedOut, "task tests.name (an-id) failed: ValueError: no"),
    FailureKind.EXPIRED: (TaskExpired, "task tests.name (an-id) failed: ValueError: no"),
}


@pytest.mark.parametrize("kind", FailureKind)
def test_a_failure_is_raised_as_what_it_is(settled, kind):
    error, text = FAILURES[kind]
    failure = Failure(kind, "no", "ValueError", "Traceback: here", 7, "SIGKILL")
    handle = settled(report(TaskStatus.FAILED, error=failure))
    with pytest.raises(TaskFailed) as caught:
        handle.get()
    raised = caught.value
    assert type(raised) is error
    assert str(raised) == text
    assert (raised.report, raised.exc_type) == (handle.report, "ValueError")
    assert (raised.message, raised.traceback) == ("no", "Traceback: here")
    if error is WorkerCrashed:
        assert (raised.exitcode, raised.signal, raised.reason) == (7, "SIGKILL", "no")
    assert isinstance(raised.__cause__, RemoteTraceback)
    assert "Traceback: here" in str(raised.__cause__)
    assert not handle.successful()


def test_a_failure_without_an_exception_shows_its_message():
    assert str(TaskFailed(report(TaskStatus.FAILED, message="just so"))).endswith("failed: just so")


def test_the_tasks_own_exception_is_the_cause_and_each_get_gives_a_fresh_one(settled):
    failure = Failure(FailureKind.ERROR, "no", "KeyError", "Traceback: there")
    handle = settled(report(TaskStatus.FAILED, error=failure), pickle.dumps(KeyError("no")))
    first, second = handle.exception, handle.exception
    assert isinstance(first.__cause__, KeyError)
    assert first.__cause__.args == ("no",)
    assert "Traceback: there" in str(first.__cause__.__cause__)
    assert first is not second


@pytest.mark.parametrize("exception", [b"no pickle", pickle.dumps("text")], ids=["bytes", "text"])
def test_an_exception_that_cannot_be_rebuilt_leaves_its_text(settled, exception):
    failure = Failure(FailureKind.ERROR, "no", "Odd", "Traceback: there")
    handle = settled(report(TaskStatus.FAILED, error=failure), exception)
    assert isinstance(handle.exception.__cause__, RemoteTraceback)


@pytest.mark.parametrize(("reason", "tail"), [("", "was cancelled"), ("why", "cancelled: why")])
def test_a_cancelled_task_says_why(settled, reason, tail):
    handle = settled(report(TaskStatus.CANCELLED, message=reason))
    with pytest.raises(TaskCancelled) as caught:
        handle.get()
    assert caught.value.reason == reason
    assert str(caught.value).endswith(tail)
    assert not isinstance(caught.value, TaskFailed)


def test_a_result_is_given_and_nothing_raised(settled):
    handle = settled(report(result=[5]))
    assert handle.get() == handle.get(timeout=0) == [5]
    assert handle.successful()
    assert handle.exception is None
    assert handle.done()
    assert [each.result for each in handle.progress()] == [[5]]


def test_a_result_that_is_an_exception_is_a_result(settled):
    error = ValueError("kept")
    assert settled(report(result=error)).get() is error


@pytest.mark.parametrize("error", [TaskFailed, WorkerCrashed, TaskTimedOut, TaskCancelled])
def test_what_get_raises_can_travel_on(error):
    # As when a task waits for a task of another manager, and fails with it.
    failure = Failure(FailureKind.CRASH, "no", None, None, 7, "SIGKILL")
    made = error(report(TaskStatus.FAILED, error=failure, message="no"))
    again = pickle.loads(pickle.dumps(made))
    assert type(again) is error
    assert str(again) == str(made)
    assert again.report == made.report
