"""``django.tasks`` on gtaskman by way of a server: whoever asks need not be who has sent."""

from __future__ import annotations

import contextlib
import datetime
import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("django.tasks", reason="django.tasks came with Django 6.0")

from django.tasks import TaskResultStatus, task_backends
from django.tasks.exceptions import TaskResultDoesNotExist
from django.test import override_settings
from django.utils import timezone
from django_site import settings as site_settings
from django_site.library import jobs
from servers import RunningServer, any_kind
from worlds import Program, run_python, wait_until

import gtaskman
from gtaskman.contrib.django import managers

# The only Pythons that have it are those on which no more than the quick tests are run.
pytestmark = pytest.mark.quick
HERE = Path(__file__).resolve().parent
MANAGE = str(HERE / "django_site" / "manage.py")
ENDING = 30  # seconds, for whatever is on its way


@pytest.fixture(scope="module")
def url():
    with RunningServer(any_kind()) as running:
        yield running.url


@pytest.fixture
def backend(fresh, url):
    """This process sends there; none of its own workers has any part in it."""
    tasks = {
        "default": {
            "BACKEND": site_settings.BACKEND,
            "QUEUES": ["default", "slow"],
            "OPTIONS": {"url": url},
        }
    }
    with override_settings(TASKS=tasks, GTASKMAN={}):
        yield task_backends["default"]


@pytest.fixture(scope="module")
def environment(site, url):
    """The site as a process on any host has it."""
    said = {"url": url, "preload": ["django_site.library.jobs"]}
    return {**site, "PYTHONPATH": str(HERE), "DJANGO_SITE_GTASKMAN": json.dumps(said)}


@pytest.fixture(scope="module")
def manager(environment, tmp_path_factory):
    """``manage.py gtaskman run``, for one of the two queues."""
    program = Program(
        [sys.executable, MANAGE, "gtaskman", "run", "--max", "2", "--queues", "default"],
        tmp_path_factory.mktemp("manager"),
        environment,
    )
    with contextlib.closing(contextlib.ExitStack()) as stack:
        stack.callback(program.kill)
        wait_until(lambda: "ready" in program.output, ENDING, program.story())
        yield program


def ended(result):
    client = managers.manager_of(result.task.get_backend().settings.place)
    assert client.handle(result.id).wait(ENDING)
    result.refresh()
    assert result.is_finished
    return result


def test_results_are_had_from_any_process(backend, manager, books):
    assert backend.supports_get_result
    result = ended(jobs.echo.using(priority=7).enqueue(1, [2], three={"4": 5}))
    assert result.return_value == {"args": [1, [2]], "kwargs": {"three": {"4": 5}}}
    found = backend.get_result(result.id)
    assert (found.task, found.args, found.kwargs) == (result.task, result.args, result.kwargs)
    assert found.worker_ids == result.worker_ids
    assert found.started_at == result.started_at
    assert ended(jobs.titles.enqueue()).return_value == ["abacus", "basics", "codes"]
    assert ended(jobs.context.enqueue(1)).status == TaskResultStatus.SUCCESSFUL
    assert ended(jobs.coroutine.enqueue(4)).return_value == 8


def test_of_a_task_that_waits_or_has_failed_the_server_knows_all(backend, manager):
    later = timezone.now() + datetime.timedelta(hours=1)
    waiting = jobs.echo.using(run_after=later, timeout=9).enqueue("a", b=None)
    found = backend.get_result(waiting.id)
    assert found.status == TaskResultStatus.READY
    assert (found.args, found.kwargs) == (["a"], {"b": None})
    assert found.task.timeout == 9
    assert abs(found.task.run_after - later) < datetime.timedelta(milliseconds=1)

    failed = backend.get_result(ended(jobs.fail.enqueue()).id)
    assert (failed.status, failed.task) == (TaskResultStatus.FAILED, jobs.fail)
    assert failed.errors[0].exception_class is ValueError

    # But of one that was cancelled the arguments are gone.
    managers.manager_of(backend.settings.place).cancel(waiting.id, "no longer wanted")
    found = backend.get_result(waiting.id)
    assert (found.status, found.args) == (TaskResultStatus.FAILED, [])
    assert found.errors[0].exception_class is gtaskman.TaskCancelled
    with pytest.raises(TaskResultDoesNotExist):
        backend.get_result("unknown")


def test_limits_travel(backend, manager):
    result = ended(jobs.hang.using(timeout=0.3).enqueue())
    assert result.errors[0].exception_class is gtaskman.TaskTimedOut


def test_a_manager_serves_the_queues_of_the_settings(backend, environment, tmp_path):
    sent = [jobs.echo.using(queue_name="slow").enqueue(number) for number in range(3)]
    done = run_python(
        MANAGE, "gtaskman", "run", "--burst",
        directory=tmp_path, env=environment, timeout=ENDING,
    )  # fmt: skip
    assert done.code == 0, done.output
    assert [ended(each).return_value["args"] for each in sent] == [[0], [1], [2]]


def test_a_task_can_be_sent_by_its_name_alone(manager, environment, tmp_path):
    done = run_python(
        MANAGE, "gtaskman", "submit", "django_site.library.jobs.echo", "a=1", "--json",
        directory=tmp_path, env=environment, timeout=ENDING,
    )  # fmt: skip
    assert done.code == 0, done.output
    assert json.loads(done.output) == {"args": [], "kwargs": {"a": 1}}


def test_by_way_of_a_manager_on_this_host(fresh, environment, tmp_path):
    path = tmp_path / "run" / "gtaskman.sock"
    memory = {**environment, "DJANGO_SITE_GTASKMAN": "{}", "GTASKMAN_URL": ""}
    program = Program(
        [sys.executable, MANAGE, "gtaskman", "run", "--bind", f"unix:{path}"], tmp_path, memory
    )
    there = {"BACKEND": site_settings.BACKEND, "OPTIONS": {"url": f"unix://{path}"}}
    try:
        wait_until(lambda: "ready" in program.output, ENDING, program.story())
        with override_settings(TASKS={"default": there}, GTASKMAN={}):
            result = jobs.echo.enqueue(1, two=3)
            assert task_backends["default"].get_result(result.id).kwargs == {"two": 3}
            assert ended(result).return_value == {"args": [1], "kwargs": {"two": 3}}
            failed = ended(jobs.fail.enqueue())
            assert failed.errors[0].exception_class is ValueError
            gtaskman.shutdown(0)
    finally:
        program.kill()
