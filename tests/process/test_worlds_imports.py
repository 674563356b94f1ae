"""What workers import, and how it goes wrong; workers are patched as the application is."""

from __future__ import annotations

import pytest
from scenarios import imports
from worlds import START_METHODS


@pytest.mark.parametrize("start_method", ["zygote", "spawn"])
def test_a_module_that_no_worker_can_import_fails_its_tasks_only(world, start_method):
    told = world.run(imports.a_module_that, name="bad", start_method=start_method)

    for error, exc_type, message in told["results"]:
        assert error == "TaskFailed"
        assert exc_type == "ImportError"
        assert "cannot be imported in its worker" in message
        assert "bad only lives in the application" in message
    assert told["after"] == [2, 4]
    assert told["stats"]["failed_tasks"] == 3


def test_a_module_whose_import_hangs_fails_its_tasks_only(world):
    told = world.run(imports.a_module_that_hangs)

    for error, message in told["results"]:
        assert error in ("TaskFailed", "WorkerCrashed")
        assert "'apps.hanging'" in message and "start_timeout" in message
    assert told["after"] == [2, 4]


@pytest.mark.parametrize("name", ["threaded", "hubbed"])
@pytest.mark.parametrize("start_method", ["zygote", "spawn"])
def test_a_module_that_comes_to_life_is_left_to_the_workers(world, name, start_method):
    with world.start(imports.a_module_that, name=name, start_method=start_method) as run:
        told = run.result()
        output = run.output

    assert told["results"] == [0, 2, 4]
    assert told["after"] == [2, 4]
    if start_method == "zygote":
        reason = {"threaded": "starts a native thread", "hubbed": "spawns a greenlet"}[name]
        assert output.count("workers import 'apps.") == 1
        assert f"'apps.{name}'" in output and reason in output


@pytest.mark.parametrize("start_method", ["zygote", "spawn"])
def test_what_is_to_be_there_beforehand_is_there_however_it_gets_there(world, start_method):
    """Two modules come to life, one after the other: each worker has both, and none fails."""
    with world.start(imports.preloaded, start_method=start_method) as run:
        told = run.result()
        output = run.output

    assert told["found"] == [["apps.hubbed", "apps.threaded"]] * 4
    assert told["workers"] == 2
    assert "could not be started" not in output


@pytest.mark.parametrize("start_method", START_METHODS)
def test_workers_are_patched_as_the_application_is(world, start_method):
    told = world.run(imports.patched_like_the_application, start_method=start_method)

    assert told["here"]["socket"] is world.patched
    assert told["there"] == told["here"]
    if world.patched:
        assert told["cooperation"]["heard"] == "hello"
        # Five sleeps of 0.3 s one after the other would take 1.5.
        assert told["cooperation"]["taken"] < 1.2
        assert told["cooperation"]["ticks"] > 10
        assert told["cancel"][0] == "cancelled"
        assert told["cancel"][1] < 1.0
