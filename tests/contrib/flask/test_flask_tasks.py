"""Tasks in real workers, inside an application context."""

from __future__ import annotations

import os

import flask_apps.lost
import flask_apps.plain
import flask_apps.shop
import flask_apps.single
import flask_apps.stuck
import gevent
import pytest
from flask_apps.plain import colour, limited, nothing_of_before, undecorated
from flask_apps.shop import tasks

import gtaskman

ENDING = 30  # seconds, for whatever is on its way
LAYOUTS = ("module", "factory")


@pytest.fixture
def shop():
    """An application of the factory, in this process; its workers make their own."""
    return flask_apps.shop.create_app()


@pytest.fixture
def single():
    """The application of the module, as if it had just been imported."""
    flask_apps.single.ext.init_app(flask_apps.single.app)
    return flask_apps.single


@pytest.fixture(params=LAYOUTS)
def site(request):
    """Either of them: its tasks, its extension and its colour."""
    if request.param == "module":
        single = request.getfixturevalue("single")
        return single, single.ext, "green"
    request.getfixturevalue("shop")
    return tasks, tasks.ext, "blue"


def test_a_task_runs_inside_a_context_of_its_own_in_a_worker(site):
    module, _, shade = site
    told = [module.look.submit(name).get(ENDING) for name in ("first", "second")]
    assert [one["colour"] for one in told] == [shade] * 2
    assert [one["before"] for one in told] == [None] * 2
    assert told[0]["pid"] == told[1]["pid"] != os.getpid()


def test_the_context_of_each_task_is_torn_down(site):
    module, _, _ = site
    for name in ("first", "second"):
        module.look.submit(name).get(ENDING)
    assert module.torn_down.submit().get(ENDING)[:2] == [("first", None), ("second", None)]


def test_plain_tasks_and_functions_run_inside_one_too(site):
    module, ext, shade = site
    module.look.submit("before").get(ENDING)
    assert ext.submit(colour, "very ").get(ENDING) == f"very {shade}"
    assert ext.submit(colour.task("so ")).get(ENDING) == f"so {shade}"
    assert ext.submit(undecorated, word="rather").get(ENDING) == f"rather {shade}"
    assert ext.submit(nothing_of_before).get(ENDING) is True
    assert ext.submit(lambda word: undecorated(word), "quite").get(ENDING) == f"quite {shade}"


def test_a_plain_task_keeps_its_name_its_limits_and_its_terms(site):
    _, ext, shade = site
    handle = ext.submit(limited, 5)
    with pytest.raises(gtaskman.DuplicateTaskError) as caught:
        ext.submit(limited, number=5)
    assert caught.value.id == handle.id
    assert handle.report.name == "plain.limited"
    assert handle.get(ENDING) == ("plain.limited", shade)
    with pytest.raises(gtaskman.TaskOptionError, match="number"):
        ext.submit(limited, "five")
    assert ext.submit(limited.with_id("mine", 6)).id == "mine"


def test_a_plain_task_that_others_submit_has_no_context(shop):
    with pytest.raises(gtaskman.TaskFailed, match="application context"):
        gtaskman.submit(colour, "very ").get(ENDING)


def test_a_map_gives_each_item_a_context(shop):
    assert list(gtaskman.map(tasks.meet, ["a", "b", "c"])) == ["ablue", "bblue", "cblue"]
    told = list(gtaskman.map(tasks.look, ["a", "b"], chunksize=2))
    assert [one["before"] for one in told] == [None, None]


def test_what_a_task_calls_shares_its_context(shop):
    assert tasks.twice.submit("called").get(ENDING) == ("caller", "called")


def test_a_plain_call_has_the_context_of_its_caller(shop):
    with pytest.raises(RuntimeError, match="application context"):
        tasks.look("nobody")
    with shop.app_context():
        assert tasks.look("here")["pid"] == os.getpid()
        assert tasks.look("there")["before"] == "here"


def test_a_task_that_is_run_at_once_has_a_context_of_its_own(shop):
    """As tests do it, that run tasks in the application."""
    assert tasks.look.task("first")()["colour"] == "blue"
    with shop.app_context():
        tasks.look("here")
        assert tasks.look.task("second")()["before"] is None
        assert tasks.look("there")["before"] == "here"


def test_async_tasks_of_one_worker_do_not_share_a_context(shop):
    handles = [tasks.meet.submit(f"{number} ") for number in range(20)]
    gevent.joinall(handles, timeout=ENDING)
    assert [handle.get(0) for handle in handles] == [f"{number} blue" for number in range(20)]


def test_nobody_gets_an_application_that_is_still_being_made(monkeypatch):
    monkeypatch.setenv("SHOP_LATER", "purple")
    flask_apps.shop.create_app()
    handles = [tasks.meet.submit(f"{number} ") for number in range(5)]
    assert [handle.get(ENDING) for handle in handles] == [f"{n} purple" for n in range(5)]


def test_a_failure_is_the_tasks_own_and_the_teardown_knows_of_it(shop):
    with pytest.raises(gtaskman.TaskFailed) as caught:
        tasks.fail.submit("unhappy").get(ENDING)
    assert isinstance(caught.value.__cause__, tasks.Unlucky)
    assert caught.value.__cause__.number == 13
    assert tasks.torn_down.submit().get(ENDING)[0] == ("unhappy", "Unlucky")


def test_a_task_that_is_stopped_is_torn_down(shop):
    # Its time limit counts from the start of the run, in which a new worker makes the application.
    assert tasks.number.submit().get(ENDING)
    with pytest.raises(gtaskman.TaskTimedOut):
        tasks.spin.submit("dizzy").get(ENDING)
    assert ("dizzy", "Cancelled") in tasks.torn_down.submit().get(ENDING)


def test_class_form(shop):
    handle = tasks.ext.submit(tasks.Painted(what="house"))
    reports = [each.message for each in handle.progress()]
    assert "half of it" in reports
    assert handle.get(ENDING) == "blue house"
    assert tasks.Repainted(what="door").submit().get(ENDING) == ["blue door"] * 2


def test_a_class_that_knows_nothing_of_flask_is_refused_with_the_mend(shop):
    with pytest.raises(gtaskman.TaskDefinitionError, match="decorate the class"):
        tasks.ext.submit(flask_apps.plain.Plain())


def test_a_worker_keeps_one_application(shop):
    assert [tasks.number.submit().get(ENDING) for _ in range(3)] == [1, 1, 1]


@pytest.mark.parametrize("plain", [False, True], ids=["own", "plain"])
def test_or_makes_one_for_each_task(monkeypatch, plain):
    monkeypatch.setenv("SHOP_GTASKMAN_APP_PER_TASK", "true")
    monkeypatch.setenv("SHOP_GTASKMAN_APP", "flask_apps.shop:create_app")
    flask_apps.shop.create_app()

    def number():
        from flask import current_app

        return current_app.config["NUMBER"]

    submit = (lambda: tasks.ext.submit(number)) if plain else tasks.number.submit
    assert [submit().get(ENDING) for _ in range(3)] == [1, 2, 3]


def test_one_for_each_task_needs_a_factory():
    flask_apps.stuck.ext.init_app(flask_apps.stuck.app)
    flask_apps.stuck.stick.submit().get(ENDING)
    with pytest.raises(gtaskman.TaskFailed, match="always the same one"):
        flask_apps.stuck.stick.submit().get(ENDING)


def test_an_application_that_cannot_be_found_is_told_with_the_mend():
    gtaskman.configure(max_processes=1)
    with pytest.raises(gtaskman.TaskFailed, match="GTASKMAN_APP") as caught:
        flask_apps.lost.wander.submit().get(ENDING)
    assert isinstance(caught.value.__cause__, gtaskman.ConfigurationError)
    with pytest.raises(gtaskman.ConfigurationError, match="init_app"):
        flask_apps.lost.ext.submit(undecorated, "x")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("flask_apps.nowhere", "Could not import"),
        ("flask_apps.shop:make", "Failed to find attribute 'make'"),
        ("flask_apps.single", "does not serve the tasks"),
    ],
)
def test_a_path_that_leads_nowhere_is_told_by_the_task(monkeypatch, path, words):
    monkeypatch.setenv("GTASKMAN_APP", path)
    flask_apps.shop.create_app()
    with pytest.raises(gtaskman.TaskFailed) as caught:
        tasks.look.submit("x").get(ENDING)
    assert words in str(caught.value)
