"""``django.tasks`` on gtaskman: what Django expects of a backend, in real workers."""

from __future__ import annotations

import dataclasses
import datetime
import os
import pickle
from pathlib import Path

import pytest

pytest.importorskip("django.tasks", reason="django.tasks came with Django 6.0")

from asgiref.sync import async_to_sync
from django.core.checks import Error, run_checks
from django.db import transaction
from django.tasks import TaskResultStatus, default_task_backend, task, task_backends
from django.tasks.exceptions import (
    InvalidTask,
    InvalidTaskBackend,
    TaskResultDoesNotExist,
    TaskResultMismatch,
)
from django.test import override_settings
from django.utils import timezone
from django_site import settings as site_settings
from django_site.library import jobs
from worlds import wait_until

import gtaskman
from gtaskman import default
from gtaskman.contrib.django import TaskBackend, backend, managers
from gtaskman.testing import eager

# The only Pythons that have it are those on which no more than the quick tests are run.
pytestmark = pytest.mark.quick
ENDING = 30  # seconds, for whatever is on its way


def ended(result):
    """The result once its task has ended."""
    manager = managers.manager_of(result.task.get_backend().settings.place)
    handle = manager.handle(result.id)
    assert handle is None or handle.wait(ENDING)
    result.refresh()
    assert result.is_finished
    return result


@pytest.fixture
def heard(site):
    """Gives what was heard of a task: its signals in order."""
    path = Path(site["DJANGO_SITE_DIRECTORY"]) / "signals"
    path.unlink(missing_ok=True)

    def tell(result):
        lines = [line.split() for line in path.read_text().splitlines()]
        mine = [line[1:] for line in lines if line[0] == result.id]
        # It may have begun before its sender came to say that it is enqueued.
        return sorted(mine, key=lambda words: words[0] != "enqueued")

    return tell


# --- enqueueing and results ----------------------------------------------------------------------


def test_it_is_the_backend_and_says_what_it_can():
    assert default_task_backend == task_backends["default"]
    assert isinstance(task_backends["default"], TaskBackend)
    assert default_task_backend.supports_defer
    assert default_task_backend.supports_priority
    assert default_task_backend.supports_async_task
    # In memory: what another process has enqueued is not to be had here.
    assert not default_task_backend.supports_get_result


def test_a_task_is_enqueued_then_runs_in_a_worker():
    result = jobs.echo.enqueue(1, two=3)
    assert result.status == TaskResultStatus.READY
    assert (result.task, result.args, result.kwargs) == (jobs.echo, [1], {"two": 3})
    assert result.enqueued_at is not None
    assert result.started_at is result.finished_at is result.last_attempted_at is None
    assert (result.attempts, result.worker_ids, result.errors) == (0, [], [])
    assert (result.backend, len(result.id) <= 64) == ("default", True)
    with pytest.raises(ValueError, match="Task has not finished yet"):
        _ = result.return_value

    ended(result)

    assert result.status == TaskResultStatus.SUCCESSFUL
    assert result.return_value == {"args": [1], "kwargs": {"two": 3}}
    assert result.enqueued_at <= result.started_at <= result.finished_at
    assert result.last_attempted_at == result.started_at
    assert result.attempts == 1
    assert os.getpid() != int(result.worker_ids[0])


def test_a_result_is_found_by_its_id():
    first = ended(jobs.echo.using(priority=5, queue_name="slow").enqueue(1, two=3))
    found = jobs.echo.get_result(first.id)
    assert dataclasses.asdict(found) == dataclasses.asdict(first)
    assert found.task == first.task
    assert (found.task.priority, found.task.queue_name) == (5, "slow")
    with pytest.raises(TaskResultMismatch):
        jobs.nothing.get_result(first.id)


def test_a_result_is_found_while_its_task_waits_and_runs():
    later = timezone.now() + datetime.timedelta(hours=1)
    waiting = jobs.echo.using(run_after=later).enqueue("a", b=None)
    found = default_task_backend.get_result(waiting.id)
    assert found.status == TaskResultStatus.READY
    assert (found.task, found.args, found.kwargs) == (waiting.task, ["a"], {"b": None})
    assert abs(found.task.run_after - later) < datetime.timedelta(milliseconds=1)

    running = jobs.hang.enqueue()
    asked = default_task_backend.get_result
    wait_until(lambda: asked(running.id).started_at is not None, ENDING)
    found = asked(running.id)
    assert found.status == TaskResultStatus.RUNNING
    assert found.attempts == 1

    gtaskman.cancel(running.id, "enough")
    ended(running)
    assert running.status == TaskResultStatus.FAILED
    assert running.errors[0].exception_class is gtaskman.TaskCancelled
    assert "enough" in running.errors[0].traceback
    with pytest.raises(ValueError, match="Task failed"):
        _ = running.return_value


@pytest.mark.parametrize("missing", ["123", 123])
def test_an_unknown_result_does_not_exist(missing):
    with pytest.raises(TaskResultDoesNotExist):
        default_task_backend.get_result(missing)


def test_a_task_of_gtaskman_alone_is_no_result_of_django():
    handle = gtaskman.submit(abs, -1)
    assert handle.get(ENDING) == 1
    with pytest.raises(TaskResultDoesNotExist):
        default_task_backend.get_result(handle.id)


def test_the_storage_of_the_manager_bounds_what_is_remembered(monkeypatch):
    monkeypatch.setattr(backend, "_FORGET_AFTER", 2)
    made = [ended(jobs.echo.using(backend="apart").enqueue(n)) for n in range(12)]
    with pytest.raises(TaskResultDoesNotExist):
        task_backends["apart"].get_result(made[0].id)
    assert task_backends["apart"].get_result(made[-1].id).args == [11]
    calls = backend.calls_of(managers.manager_of(task_backends["apart"].settings.place))
    kept = [each for each in made if calls.get(each.id) is not None]
    assert 2 <= len(kept) < 9


def test_arguments_are_json_at_once():
    result = jobs.echo.enqueue((1, 2), b"text", deep={"a": (None, True)})
    assert result.args == [[1, 2], "text"]
    assert ended(result).return_value["kwargs"] == {"deep": {"a": [None, True]}}
    for bad in (datetime.datetime.now(), object(), {1}):
        with pytest.raises(TypeError, match="Unsupported type"):
            jobs.echo.enqueue(bad)


@pytest.mark.parametrize("alias", ["default", "asynchronous"])
def test_coroutines_run_too(alias):
    made = [jobs.coroutine.using(backend=alias).enqueue(number) for number in range(3)]
    assert [ended(each).return_value for each in made] == [0, 2, 4]


def test_models_are_to_be_had(books):
    result = ended(jobs.titles.enqueue())
    assert result.return_value == ["abacus", "basics", "codes"]
    result = ended(jobs.titles_of_coroutine.enqueue())
    assert result.return_value == ["abacus", "basics", "codes"]
    # And no connection of theirs is left to the next one.
    assert ended(jobs.held.enqueue()).return_value in ([], ["default"])


def test_a_context_is_given_to_whom_takes_one():
    result = ended(jobs.context.enqueue(1))
    assert result.status == TaskResultStatus.SUCCESSFUL, result.errors
    its_id, status, args, workers, pid = result.return_value
    assert (its_id, status, args) == (result.id, "RUNNING", [1])
    assert workers == result.worker_ids == [str(pid)]


# --- failures ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("job", "error", "message"),
    [
        (jobs.fail, ValueError, "This task failed due to ValueError"),
        (jobs.leave, SystemExit, "This task failed due to SystemExit"),
    ],
    ids=["exception", "exit"],
)
def test_what_a_task_raises_is_its_error(job, error, message):
    result = ended(job.enqueue())
    assert result.status == TaskResultStatus.FAILED
    assert result.started_at <= result.finished_at
    assert result.errors[0].exception_class is error
    assert result.errors[0].traceback.endswith(f"{error.__name__}: {message}\n")
    assert "in " + job.name in result.errors[0].traceback
    assert (result.attempts, result.args, result.kwargs) == (1, [], {})
    with pytest.raises(ValueError, match="Task failed"):
        _ = result.return_value


def test_complex_exceptions_and_values_that_are_no_json_are_failures():
    result = ended(jobs.complex_exception.enqueue())
    assert result.errors[0].exception_class is ValueError
    assert 'ValueError(ValueError("This task failed"))' in result.errors[0].traceback
    result = ended(jobs.complex_return_value.enqueue())
    assert result.status == TaskResultStatus.FAILED
    assert result.errors[0].exception_class is TypeError
    assert "Unsupported type" in result.errors[0].traceback


def test_a_worker_that_dies_is_an_error_that_can_be_imported():
    result = ended(jobs.die.enqueue())
    assert result.errors[0].exception_class is gtaskman.WorkerCrashed
    assert "SIGKILL" in result.errors[0].traceback


@pytest.mark.parametrize("how", ["using", "options"])
def test_a_time_limit_of_the_task_or_the_backend(how):
    job = jobs.hang.using(backend="brief") if how == "options" else jobs.hang.using(timeout=0.3)
    result = ended(job.enqueue())
    assert result.status == TaskResultStatus.FAILED
    assert result.errors[0].exception_class is gtaskman.TaskTimedOut


def test_attempts_are_counted(tmp_path, heard):
    result = ended(jobs.flaky.using(retries=2).enqueue(str(tmp_path / "marker")))
    assert result.return_value == "in the end"
    assert result.attempts == 2
    # It is finished once.
    assert [name for name, *_ in heard(result)[1:]] == ["started", "started", "finished"]


# --- signals -------------------------------------------------------------------------------------


def test_signals_are_sent_where_it_happens(heard):
    good, bad = ended(jobs.nothing.enqueue()), ended(jobs.fail.enqueue())
    mine = str(os.getpid())
    for result, end in ((good, "SUCCESSFUL"), (bad, "FAILED")):
        (worker,) = result.worker_ids
        assert heard(result) == [
            ["enqueued", "READY", "TaskBackend", mine],
            ["started", "RUNNING", "TaskBackend", worker],
            ["finished", end, "TaskBackend", worker],
        ]


def test_enqueueing_is_logged(caplog):
    with caplog.at_level("DEBUG", "django.tasks"):
        result = jobs.nothing.enqueue()
    assert f"id={result.id}" in caplog.text
    assert "enqueued backend=default" in caplog.text


# --- upon commit ---------------------------------------------------------------------------------


def test_a_task_may_wait_for_the_commit(books):
    job = jobs.titles.using(backend="upon_commit")
    with transaction.atomic():
        books.objects.create(title="datum")
        result = job.enqueue()
        assert result.enqueued_at is None
        with pytest.raises(TaskResultDoesNotExist):
            job.get_backend().get_result(result.id)
    assert result.enqueued_at is not None
    assert "datum" in ended(result).return_value


def test_a_task_is_never_enqueued_if_there_is_none(books):
    job = jobs.titles.using(backend="upon_commit")
    with transaction.atomic():
        result = job.enqueue()
        transaction.set_rollback(True)
    with pytest.raises(TaskResultDoesNotExist):
        job.get_backend().get_result(result.id)
    assert ended(job.enqueue()).status == TaskResultStatus.SUCCESSFUL


def test_else_it_does_not_wait(books):
    with transaction.atomic():
        assert jobs.titles.enqueue().enqueued_at is not None


# --- validation ----------------------------------------------------------------------------------


def test_how_it_may_be_used():
    now = timezone.now()
    job = jobs.nothing.using(priority=10, queue_name="slow", run_after=now, timeout=5, retries=1)
    assert (job.priority, job.queue_name, job.run_after) == (10, "slow", now)
    assert (job.timeout, job.retries) == (5, 1)
    assert jobs.nothing.using() == jobs.nothing
    assert jobs.nothing.timeout is None
    assert jobs.nothing.call() is None
    assert jobs.coroutine.call(4) == 8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"priority": 101}, "priority must be a whole number between -100 and 100"),
        ({"priority": 3.1}, "priority must be a whole number"),
        ({"queue_name": "unknown"}, "Queue 'unknown' is not valid for backend"),
        ({"queue_name": "a b", "backend": "any"}, "Queue 'a b': a name takes"),
        ({"run_after": datetime.datetime(2030, 1, 1)}, "run_after must be an aware datetime"),
        ({"timeout": 0}, "timeout takes seconds above 0"),
        ({"timeout": []}, "unhashable"),
        ({"retries": -1}, "retries takes a number from 0"),
    ],
    ids=str,
)
def test_a_task_that_makes_no_sense_is_invalid(changes, message):
    with pytest.raises(InvalidTask, match=message):
        jobs.nothing.using(**changes)


def test_any_queue_will_do_where_none_is_named():
    result = jobs.echo.using(backend="any", queue_name="whichever").enqueue()
    assert ended(result).task.queue_name == "whichever"


def test_only_functions_of_a_module_are_tasks():
    for bad in (any, test_only_functions_of_a_module_are_tasks.__get__(1), lambda: None):
        with pytest.raises(InvalidTask, match="must be defined at a module level"):
            task()(bad)
    with pytest.raises(InvalidTask, match="does not have a first argument of 'context'"):
        task(takes_context=True)(jobs.meaning_of_life.func)
    with pytest.raises(InvalidTaskBackend, match="unknown"):
        jobs.nothing.using(backend="unknown")


def test_a_task_is_found_by_the_name_of_its_function():
    assert ended(jobs.visible.enqueue()).status == TaskResultStatus.SUCCESSFUL
    with pytest.raises(InvalidTask, match="is no task of"):
        jobs.impostor.enqueue()


def test_a_task_and_its_result_can_be_pickled():
    job = jobs.nothing.using(timeout=5)
    result = job.enqueue()
    if hasattr(job, "_reconstruct"):  # since Django 6.1
        assert pickle.loads(pickle.dumps(job)) == job
        assert pickle.loads(pickle.dumps(result)) == result
    else:
        assert pickle.loads(pickle.dumps(result.errors)) == []


def test_the_decorator_takes_limits_where_django_passes_them_on():
    function = jobs.nothing.func
    if not hasattr(jobs.nothing, "_reconstruct"):
        with pytest.raises(TypeError):
            task(timeout=3)(function)
        return
    job = task(timeout=3, kind="async", retries=1)(function)
    assert (job.timeout, job.kind, job.retries) == (3, "async", 1)
    with pytest.raises(InvalidTask, match="kind must be"):
        task(kind="quick")(function)
    with pytest.raises(InvalidTask, match="a task of Django ends"):
        task(kind="service")(function)


# --- other managers, settings --------------------------------------------------------------------


def test_a_backend_with_options_of_its_own_has_a_manager_of_its_own():
    apart = ended(jobs.meaning_of_life.using(backend="apart").enqueue())
    same = ended(jobs.meaning_of_life.enqueue())
    assert apart.return_value == same.return_value == 42
    assert apart.worker_ids != same.worker_ids
    # Aliases that say the same share the default one.
    assert managers.manager_of(task_backends["brief"].settings.place) is default.manager()


def test_the_default_manager_may_be_exchanged(fresh, make_manager):
    default.use(manager := make_manager())
    result = jobs.meaning_of_life.enqueue()
    assert manager.handle(result.id).get(ENDING)["return_value"] == 42
    default.use(None)


@pytest.mark.parametrize("alias", ["default", "apart"])
def test_an_eager_manager_runs_tasks_at_once(fresh, books, heard, alias):
    with eager(), transaction.atomic():
        books.objects.create(title="uncommitted")
        result = jobs.titles.using(backend=alias).enqueue()
        result.refresh()
        assert "uncommitted" in result.return_value
        assert ended(jobs.context.using(backend=alias).enqueue(1)).attempts == 1
        transaction.set_rollback(True)
    assert [name for name, *_ in heard(result)] == ["enqueued", "started", "finished"]


def test_they_can_be_awaited():
    result = async_to_sync(jobs.echo.aenqueue)(1)
    found = async_to_sync(jobs.echo.aget_result)(ended(result).id)
    assert found.return_value == {"args": [1], "kwargs": {}}
    with pytest.raises(TaskResultDoesNotExist):
        async_to_sync(jobs.echo.aget_result)("123")


def problems(**options):
    changed = {"default": {"BACKEND": site_settings.BACKEND, **options}}
    with override_settings(TASKS=changed):
        return [each for each in run_checks() if str(each.id).startswith("gtaskman")]


def test_the_site_of_these_tests_has_no_problems():
    assert problems() == []
    assert not [each for each in run_checks() if isinstance(each, Error)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_proceses": 3}, "did you mean 'max_processes'"),
        ({"max_processes": "many"}, "max_processes"),
        ({"url": "nowhere://"}, "leads nowhere"),
        ({"url": "redis://host:port/"}, "port"),
        ({"enqueue_on_commit": "yes"}, "enqueue_on_commit takes True or False"),
        ({"kind": "service"}, "kind takes 'sync' or 'async'"),
        ({"timeout": -1}, "timeout takes seconds above 0"),
        ({"in_atomic": "error"}, "no key 'in_atomic'"),
    ],
    ids=str,
)
def test_options_are_checked(options, message):
    (found,) = problems(OPTIONS=options)
    assert found.id == "gtaskman.E001"
    assert message in found.msg


def test_queues_and_applications_are_checked():
    assert [each.id for each in problems(QUEUES=["good", "not good"])] == ["gtaskman.E002"]
    with override_settings(INSTALLED_APPS=["django_site.library"]):
        assert [each.id for each in problems()] == ["gtaskman.W001"]


@override_settings(USE_TZ=False)
def test_without_time_zones_times_are_naive():
    soon = datetime.datetime.now() + datetime.timedelta(seconds=0.2)
    result = ended(jobs.nothing.using(run_after=soon).enqueue())
    assert result.enqueued_at.tzinfo is result.started_at.tzinfo is None
    assert result.started_at >= soon
