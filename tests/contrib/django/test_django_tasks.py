"""Tasks that use Django, in real workers: it is set up, and connections are cared for."""

from __future__ import annotations

import json
import os
from pathlib import Path

import django
import pytest
from django.db import connection, connections, transaction
from django_site.library import tasks
from worlds import START_METHODS, run_python

import gtaskman
from gtaskman import default
from gtaskman.contrib.django import submit_on_commit, task

ENDING = 30  # seconds, for whatever is on its way
HERE = Path(__file__).resolve().parent
KEPT = {"DJANGO_SITE_MAX_AGE": "60"}


def configured(**config) -> dict[str, str]:
    return {"DJANGO_SITE_GTASKMAN": json.dumps(config)}


@pytest.fixture
def fresh(fresh, monkeypatch):
    """The same, and what ``configured`` says holds here as well."""
    from django.conf import settings

    def change(**env: str) -> None:
        if "DJANGO_SITE_GTASKMAN" in env:
            own = {**settings.GTASKMAN, **json.loads(env["DJANGO_SITE_GTASKMAN"])}
            monkeypatch.setattr(settings, "GTASKMAN", own)
        fresh(**env)

    return change


# --- Django is there -----------------------------------------------------------------------------


@pytest.mark.parametrize("start_method", START_METHODS)
def test_models_are_to_be_had_however_a_worker_starts(fresh, books, start_method):
    fresh(**configured(start_method=start_method, max_processes=1))
    books.objects.count()  # a connection is open here, which no worker may use
    assert tasks.titles.submit(2).get(ENDING) == ["abacus", "basics"]
    assert tasks.plain.submit("codes").get(ENDING) == 5000
    assert tasks.look.submit().get(ENDING)["before"] == []
    # And it is still this process's own.
    assert connection.connection is not None
    assert books.objects.count() == 3


def test_a_task_in_class_form(books):
    handle = tasks.Count(title="ba").submit()
    assert [report.message for report in handle.progress()][-1] == "counting"
    count, held = handle.get(ENDING)
    assert (count, held) == (2, ["default"])
    assert tasks.Count.definition.timeout == 20
    assert tasks.Count(title="ba")()[0] == 2


def test_it_is_gtaskmans_own_task(books):
    assert tasks.add("a", lines=7) == books.objects.get(title="a").pk
    with pytest.raises(gtaskman.TaskOptionError, match="lines"):
        tasks.add.submit("b", lines="seven")
    with pytest.raises(gtaskman.TaskFailed, match="13") as caught:
        tasks.fail.submit().get(ENDING)
    assert isinstance(caught.value.__cause__, ValueError)
    assert (tasks.titles.definition.name, tasks.look_together.definition.kind) == (
        "django_site.library.tasks.titles",
        "async",
    )


@pytest.mark.parametrize(
    ("code", "options", "message"),
    [
        (tasks.titles, {}, "is a task already"),
        (tasks.Count, {"timeout": 5}, "go in the class statement"),
        (len, {"nonsense": 1}, "nonsense"),
    ],
    ids=["twice", "class", "option"],
)
def test_a_mistake_is_seen_where_it_is_defined(code, options, message):
    with pytest.raises(gtaskman.TaskDefinitionError, match=message):
        task(**options)(code)


def test_without_a_settings_module_a_worker_says_what_it_lacks(fresh, books, monkeypatch):
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE")
    from gtaskman.contrib.django import errands

    with pytest.raises(gtaskman.TaskFailed, match="DJANGO_SETTINGS_MODULE is not set"):
        gtaskman.submit(errands.names).get(ENDING)


# --- connections ---------------------------------------------------------------------------------


def test_a_connection_lives_no_longer_than_its_settings_say(fresh, books):
    fresh(**configured(max_processes=1))
    looks = [tasks.look.submit().get(ENDING) for _ in range(3)]
    assert [look["before"] for look in looks] == [[], [], []]
    assert [look["after"] for look in looks] == [["default"]] * 3

    fresh(**configured(max_processes=1), **KEPT)
    gtaskman.shutdown(0)
    looks = [tasks.look.submit().get(ENDING) for _ in range(3)]
    assert [look["before"] for look in looks] == [[], ["default"], ["default"]]
    assert len({look["is"] for look in looks}) == 1


def test_after_an_error_as_well(fresh, books):
    fresh(**configured(max_processes=1))
    with pytest.raises(gtaskman.TaskFailed):
        tasks.fail.submit().get(ENDING)
    assert tasks.look.submit().get(ENDING)["before"] == []


def test_a_transaction_that_is_left_open_is_nobody_elses(fresh, books):
    fresh(**configured(max_processes=1), **KEPT)
    assert tasks.is_atomic.submit().get(ENDING) is False
    tasks.leave_open.submit().get(ENDING)
    assert tasks.is_atomic.submit().get(ENDING) is False
    assert tasks.titles.submit(1).get(ENDING) == ["abacus"]


def test_a_task_that_is_called_within_another_one_shares_its_connections(books):
    assert tasks.nested.submit().get(ENDING) == [True, True]


def test_a_plain_call_has_those_of_its_caller(books):
    with transaction.atomic():
        books.objects.create(title="uncommitted")
        mine = connection.connection
        assert "uncommitted" in tasks.titles()
        assert connection.connection is mine
        transaction.set_rollback(True)


@pytest.mark.parametrize("start_method", ["zygote", "fork"])
def test_one_that_was_opened_before_the_fork_is_not_used_in_a_worker(fresh, books, start_method):
    preload = ["django_site.library.eager"]
    fresh(**configured(start_method=start_method, max_processes=1, preload=preload), **KEPT)
    connections.close_all()
    books.objects.count()
    assert tasks.inherited.submit().get(ENDING) == (["default"], [], 3)
    # The second task finds the one of the first, if it was kept: a fork has our own settings.
    kept = [] if start_method == "fork" else ["default"]
    assert tasks.inherited.submit().get(ENDING) == (["default"], kept, 3)
    assert books.objects.count() == 3


@pytest.mark.quick  # where django.tasks is, no others are run
@pytest.mark.parametrize("world", ["patched", "unpatched"])
def test_a_script_patched_or_not(site, books, tmp_path, world):
    env = {**site, **KEPT, "PYTHONPATH": str(HERE)}
    done = run_python(
        "-m", "django_site.script", world, directory=tmp_path, env=env, timeout=ENDING
    )
    assert done.code == 0, done.output
    # The template of the workers has Django already: none of them imports it.
    assert "by themselves" not in done.output
    told = json.loads(done.output.splitlines()[-1])
    titles = ["abacus", "basics", "codes"]
    assert told["titles"] == [titles] * 5
    assert told["going"] == [3] * 3
    assert told["hold"] == [True, True]  # whoever ended meanwhile has closed nothing of it
    assert told["look"][1]["before"] == ["default"]
    assert told["held here"] == []
    assert told["written"] == "by a script"
    if world == "patched":
        # Each async task has a connection to itself.
        assert [one["before"] for one in told["together"]] == [[]] * 5
    assert {one["same"] for one in told["together"]} == {True}
    if django.VERSION >= (6,):
        assert told["jobs"] == [[*titles[:1], titles[1], "by a script", titles[2]], 42]


# --- upon commit ---------------------------------------------------------------------------------


def test_a_task_is_submitted_when_the_transaction_commits(books):
    with transaction.atomic():
        books.objects.create(title="datum")
        task_id = submit_on_commit(tasks.titles)
        assert gtaskman.report(task_id) is None
    assert "datum" in default.manager().handle(task_id).get(ENDING)


def test_never_if_it_is_rolled_back(books):
    with transaction.atomic():
        task_id = submit_on_commit(tasks.titles)
        transaction.set_rollback(True)
    with transaction.atomic():
        pass
    assert gtaskman.report(task_id) is None


def test_at_once_outside_of_one_or_inside_that_of_another_database(books):
    assert default.manager().handle(submit_on_commit(tasks.titles)).get(ENDING)
    with transaction.atomic(using="other"):
        task_id = submit_on_commit(tasks.titles, 1)
        assert default.manager().handle(task_id).get(ENDING) == ["abacus"]
        task_id = submit_on_commit(tasks.titles, 1, using="other")
        assert gtaskman.report(task_id) is None
    assert default.manager().handle(task_id).get(ENDING) == ["abacus"]


@pytest.mark.parametrize(
    "given",
    [
        (tasks.titles.with_options(priority=5).task(1),),
        (tasks.titles.with_id("named", 1),),
        (tasks.titles.definition.target, 1),
        (lambda most: tasks.titles(most), 1),
    ],
    ids=["task", "id", "function", "lambda"],
)
def test_whatever_can_be_submitted(books, given):
    assert default.manager().handle(submit_on_commit(*given)).get(ENDING) == ["abacus"]


def test_mistakes_are_seen_before_the_commit(books):
    with transaction.atomic():
        with pytest.raises(gtaskman.TaskOptionError, match="most"):
            submit_on_commit(tasks.titles, "many")
        with pytest.raises(gtaskman.TaskOptionError, match="without further arguments"):
            submit_on_commit(tasks.titles.task(1), 2)
        with pytest.raises(gtaskman.TaskDefinitionError, match="is a task class"):
            submit_on_commit(tasks.Count, title="a")


def test_this_process_is_none_of_the_workers(books):
    assert tasks.look.submit().get(ENDING)["pid"] != os.getpid()
