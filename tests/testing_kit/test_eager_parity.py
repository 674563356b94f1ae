"""What holds for a manager holds for an eager one: the same tests with both."""

from __future__ import annotations

import gc
import threading
import weakref

import kit_tasks as tasks
import pytest
from worlds import PATIENCE, wait_until

import gtaskman
from gtaskman import FailureKind, TaskStatus
from gtaskman.testing import EagerManager

EVENTS = ("task-progress", "task-completed", "task-failed", "task-cancelled")


@pytest.fixture(params=["eager", "real"])
def manager(request):
    """One of either make, with two workers at most."""
    config = gtaskman.Configuration(max_processes=2)
    if request.param == "eager":
        with EagerManager(config=config) as manager:
            yield manager
    else:
        yield request.getfixturevalue("make_manager")(max_processes=2)


def failure(manager, *call):
    """What the handle of such a call raises."""
    with pytest.raises(gtaskman.TaskFailed) as info:
        manager.submit(*call).get(PATIENCE)
    return info.value


# --- values --------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(len(tasks.VALUES)))
def test_values_arrive_equal_and_of_the_same_type(manager, number):
    value = tasks.VALUES[number]

    found = manager.submit(tasks.same, value).get(PATIENCE)

    assert found == value
    assert type(found) is type(value)


def test_arguments_and_results_are_copies(manager):
    values = [1]

    changed = manager.submit(tasks.change, values).get(PATIENCE)

    assert (values, changed) == ([1], [1, "changed"])


def test_arguments_that_cannot_travel_are_refused(manager):
    with pytest.raises(gtaskman.PayloadError, match=r"kit_tasks\.same cannot travel: TypeError"):
        manager.submit(tasks.same, threading.Lock())


@pytest.mark.parametrize("kind", [LookupError, SystemExit])
def test_arguments_that_do_not_arrive_fail_the_task(manager, kind):
    error = failure(manager, tasks.same, tasks.NotHere(kind("no")))

    assert error.exc_type == kind.__name__
    assert "the arguments of task kit_tasks.same cannot be decoded in its worker" in error.message
    assert type(error.__cause__) is kind


def test_results_that_cannot_travel_fail_the_task(manager):
    error = failure(manager, tasks.a_lock)

    assert error.exc_type == "gtaskman.errors.PayloadError"
    assert "the result of kit_tasks.a_lock cannot travel" in error.message
    assert type(error.__cause__) is gtaskman.PayloadError


@pytest.mark.parametrize("kind", [LookupError, SystemExit])
def test_results_that_do_not_arrive_fail_the_task(manager, kind):
    error = failure(manager, tasks.make_not_here, kind("no"))

    assert "the result of task kit_tasks.make_not_here cannot be decoded" in error.message
    assert f"{kind.__name__}: no" in error.message
    assert manager.submit(tasks.double, 1).get(PATIENCE) == 2


def test_context_variables_stay_behind(manager):
    token = tasks.VARIABLE.set("of the caller")
    try:
        assert manager.submit(tasks.variable).get(PATIENCE) == "as it was defined"
    finally:
        tasks.VARIABLE.reset(token)


# --- failures ------------------------------------------------------------------------------------


def test_a_failure_has_its_own_exception_as_its_cause(manager):
    error = failure(manager, tasks.odd, 7)

    assert type(error) is gtaskman.TaskFailed
    assert type(error.__cause__) is tasks.Odd
    assert (error.__cause__.code, error.__cause__.args) == (7, (7, "odd"))
    assert error.exc_type == "kit_tasks.Odd"
    lines = error.traceback.splitlines()
    assert "kit_tasks.py" in lines[1] and lines[-1] == "kit_tasks.Odd: (7, 'odd')"
    assert error.traceback in str(error.__cause__.__cause__)
    report = error.report
    assert report.status is TaskStatus.FAILED
    assert report.error.kind is FailureKind.ERROR
    assert report.finished_at >= report.started_at >= report.created_at


def test_an_exception_that_cannot_travel_is_told_in_words(manager):
    error = failure(manager, tasks.unportable)

    assert (error.exc_type, error.message) == ("kit_tasks.Unportable", "1 and 2")
    assert type(error.__cause__).__name__ == "RemoteTraceback"


def test_a_task_that_leaves_has_failed(manager):
    error = failure(manager, tasks.leave)

    assert type(error.__cause__) is SystemExit
    assert error.__cause__.code == 3


def test_a_task_that_stops_itself_is_cancelled(manager):
    handle = manager.submit(tasks.stop_itself)

    with pytest.raises(gtaskman.TaskCancelled):
        handle.get(PATIENCE)


# --- tasks ---------------------------------------------------------------------------------------


def test_wrong_arguments_are_refused(manager):
    with pytest.raises(gtaskman.TaskOptionError, match="number"):
        manager.submit(tasks.annotated, "one")
    with pytest.raises(gtaskman.TaskOptionError):
        manager.submit(tasks.annotated, 1, 2)
    with pytest.raises(gtaskman.TaskOptionError, match="without further arguments"):
        manager.submit(tasks.annotated.task(1), 2)
    with pytest.raises(gtaskman.TaskDefinitionError, match="task class"):
        manager.submit(tasks.Steps)
    with pytest.raises(gtaskman.TaskDefinitionError):
        manager.submit("nothing to call")
    with pytest.raises(gtaskman.TaskDefinitionError, match="service"):
        manager.submit(tasks.Service(id="web"))


def test_tasks_of_every_form(manager):
    offset = 3
    handles = [
        manager.submit(tasks.annotated, 1, more="a"),
        manager.submit(tasks.annotated.task(2)),
        manager.submit(tasks.Steps()),
        manager.submit(tasks.beside, 4),
        manager.submit(lambda number: number + offset, 5),
        manager.submit(tasks.Point(6).__eq__, tasks.Point(6)),
        manager.submit(divmod, 7, 2),
        manager.submit(tasks.nothing),
    ]

    found = [handle.get(PATIENCE) for handle in handles]

    assert found == ["1a", "2", "returned", 5, 8, True, (3, 1), None]
    assert all(handle.done() and handle.successful() for handle in handles)


def test_a_task_knows_itself(manager):
    handle = manager.submit(tasks.about_itself)

    assert handle.get(PATIENCE) == (handle.id, "kit_tasks.about_itself", 1, True)


def test_a_task_is_tried_as_often_as_it_says(manager):
    handle = manager.submit(tasks.third_time, "well")
    assert handle.get(PATIENCE) == (3, "kit_tasks.third_time", handle.id)
    assert handle.report.attempt == 3

    error = failure(manager, tasks.third_time, "never")
    assert (error.message, error.report.attempt) == ("attempt 3", 3)


@pytest.mark.parametrize(
    ("how", "value"), [("finishes", "finished"), ("defers", "deferred"), ("returns", "returned")]
)
def test_an_end_by_the_pen(manager, how, value):
    assert manager.submit(tasks.Steps(how=how)).get(PATIENCE) == value


def test_a_failure_by_the_pen(manager):
    error = failure(manager, tasks.Steps(how="fails", number=4))
    assert type(error.__cause__) is tasks.Odd and error.__cause__.code == 4
    assert failure(manager, tasks.Steps(how="fails in words")).message == "in words"


# --- reports and events --------------------------------------------------------------------------


def test_reports(manager):
    handle = manager.submit(tasks.Steps(id="mine", how="returns"))
    assert handle.get(PATIENCE) == "returned"

    report = manager.report("mine")

    assert report == handle.report
    assert (report.id, report.status, report.result) == ("mine", TaskStatus.COMPLETED, "returned")
    assert (report.completed, report.target, report.message) == (2, 2, "half")
    assert report.result_size > 0
    assert manager.report("unknown") is None
    assert [each.id for each in manager.storage.find(status=TaskStatus.COMPLETED)] == ["mine"]
    assert manager.handle("mine") is None


def test_events(manager):
    heard = []
    for event in EVENTS:
        manager.on(event, lambda report, event=event: heard.append((event, report.status.value)))
    manager.once("task-completed-mine", lambda report: heard.append(report.result))
    manager.on("task-progress-mine", lambda report: heard.append(report.message))

    manager.submit(tasks.Steps(id="mine")).get(PATIENCE)
    wait_until(lambda: len(heard) >= 4)
    manager.submit(tasks.Steps(id="mine")).get(PATIENCE)  # its own callbacks ended with the first
    manager.submit(tasks.odd, 1).wait(PATIENCE)
    wait_until(lambda: len(heard) >= 7)
    for event in EVENTS:
        manager.off(event)
    manager.submit(tasks.double, 1).get(PATIENCE)

    one = [("task-progress", "processing"), "half", ("task-completed", "completed")]
    again = [("task-progress", "processing"), ("task-completed", "completed")]
    assert heard == [*one, "returned", *again, ("task-failed", "failed")]


def test_a_callback_that_raises_disturbs_nothing(manager, caplog):
    def raise_it(report):
        raise ValueError("in a callback")

    heard = []
    manager.on("task-completed", raise_it)
    manager.on("task-completed", heard.append)

    assert manager.submit(tasks.double, 2).get(PATIENCE) == 4

    wait_until(lambda: heard)
    assert "in a callback" in caplog.text


def test_a_callback_may_ask_and_submit(manager):
    found = []

    def more(report):
        handle = manager.submit(tasks.double, report.result) if len(found) < 3 else None
        found.append((report.result, manager.report(report.id).status, handle))

    manager.on("task-completed", more)
    manager.submit(tasks.double, 1)

    wait_until(lambda: len(found) == 4)
    assert [each[0] for each in found] == [2, 4, 8, 16]
    assert all(each[1] is TaskStatus.COMPLETED for each in found)


def test_statistics(manager):
    for number in range(3):
        manager.submit(tasks.double, number).get(PATIENCE)
    manager.submit(tasks.odd, 1).wait(PATIENCE)
    manager.submit(tasks.stop_itself).wait(PATIENCE)

    stats = manager.stats()

    for group in ("pool", "queue"):
        numbers = stats[group]
        del numbers["current_processes"], numbers["peak_processes"]
        assert numbers == {
            "max_processes": 2,
            "current_tasks": 0,
            "completed_tasks": 3,
            "failed_tasks": 1,
            "cancelled_tasks": 1,
            "total_tasks": 5,
        }


# --- map, cancel, pause, dead letters ------------------------------------------------------------


@pytest.mark.parametrize("chunksize", [None, 3])
@pytest.mark.parametrize("ordered", [True, False])
def test_map(manager, chunksize, ordered):
    found = list(manager.map(tasks.double, range(20), chunksize=chunksize, ordered=ordered))

    assert (found if ordered else sorted(found)) == [2 * number for number in range(20)]


def test_map_of_what_has_no_name(manager):
    factor = 5
    found = list(manager.map(lambda number: number * factor, range(5), chunksize=2))

    assert found == [0, 5, 10, 15, 20]


def test_a_map_that_fails(manager):
    results = manager.map(lambda number: tasks.fail_at(number, 3), range(10))

    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(gtaskman.TaskFailed, match="ValueError: 3"):
        next(results)


def test_what_has_ended_cannot_be_cancelled(manager):
    handle = manager.submit(tasks.double, 1)
    handle.get(PATIENCE)

    assert handle.cancel() is False
    assert manager.cancel(handle.id) is False
    assert manager.cancel("unknown") is False


def test_a_pause(manager):
    manager.pause()
    handles = [manager.submit(tasks.double, number) for number in range(3)]
    assert [handle.report.status for handle in handles] == [TaskStatus.WAITING] * 3
    assert manager.stats()["queue"]["current_tasks"] == 3
    assert handles[1].cancel("not needed") is True
    with pytest.raises(gtaskman.TaskCancelled, match="not needed"):
        handles[1].get(PATIENCE)
    with pytest.raises(gtaskman.DuplicateTaskError):
        manager.submit(tasks.annotated.with_id(handles[0].id, 1))
    with pytest.raises(TimeoutError):
        handles[0].get(0.01)

    manager.resume()

    assert [handles[0].get(PATIENCE), handles[2].get(PATIENCE)] == [0, 4]
    assert manager.submit(tasks.double, 4).get(PATIENCE) == 8


def test_a_unique_key_is_held_while_its_task_waits(manager):
    manager.pause()
    first = manager.submit(tasks.annotated.with_options(unique="key"), 1)
    with pytest.raises(gtaskman.DuplicateTaskError) as info:
        manager.submit(tasks.annotated.with_options(unique="key"), 2)
    assert (info.value.id, info.value.key) == (first.id, "key")
    manager.resume()
    first.get(PATIENCE)

    assert manager.submit(tasks.annotated.with_options(unique="key"), 3).get(PATIENCE) == "3"


def test_dead_letters(manager):
    failed = manager.submit(tasks.odd, 1)
    failed.wait(PATIENCE)
    assert [report.id for report in manager.dead()] == [failed.id]

    again = manager.retry(failed.id)

    assert again is not failed and again.id == failed.id
    with pytest.raises(gtaskman.TaskFailed):
        again.get(PATIENCE)
    assert manager.retry("unknown") is None


def test_a_running_task_hears_of_a_cancel_as_it_writes(manager):
    asked = []
    manager.once("task-progress-mine", lambda report: asked.append(manager.cancel("mine", "now")))

    handle = manager.submit(tasks.Steps(id="mine", how="waits"))

    with pytest.raises(gtaskman.TaskCancelled, match="now"):
        handle.get(PATIENCE)
    assert asked == [True]


# --- life ----------------------------------------------------------------------------------------


def test_after_a_stop_nothing_is_taken(manager):
    manager.submit(tasks.double, 1).get(PATIENCE)
    manager.pause()
    waiting = manager.submit(tasks.double, 2)

    manager.stop(timeout=0)

    with pytest.raises(gtaskman.TaskCancelled, match="the manager was stopped"):
        waiting.get(PATIENCE)
    with pytest.raises(gtaskman.ManagerStopped):
        manager.submit(tasks.double, 3)
    manager.stop()


def test_init_is_told_and_it_is_ready(make_manager):
    for manager in (
        EagerManager(),
        gtaskman.TaskManager(config=gtaskman.Configuration(max_processes=1)),
    ):
        told = []
        manager.on("init", told.append)
        with manager:
            assert manager.wait_ready(PATIENCE)
            wait_until(lambda told=told: told)
            assert told == [manager]


def test_a_handle_is_let_go(manager):
    handle = manager.submit(tasks.double, 2)
    assert handle.get(PATIENCE) == 4
    reference = weakref.ref(handle)
    del handle

    wait_until(lambda: gc.collect() is not None and reference() is None)
