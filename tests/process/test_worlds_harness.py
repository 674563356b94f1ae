"""The harness itself: what it says it catches, it catches."""

import os
import signal

import pytest
from scenarios import smoke, tasks
from worlds import START_METHODS, ScenarioFailed, World, alive, wait_until


def test_a_world_is_what_it_says(world):
    told = world.run(smoke.describing)

    assert told["patched"] is world.patched
    assert told["gunicorn"] is (world.kind == "gunicorn")


@pytest.mark.parametrize("start_method", START_METHODS)
def test_a_task_runs_in_every_world(world, start_method):
    assert world.run(smoke.doubling, number=4, start_method=start_method) == 8


def test_a_scenario_that_raises_fails_the_test(world):
    with pytest.raises(ScenarioFailed, match="LookupError: as it was told"):
        world.run(smoke.raising)


@pytest.mark.parametrize("kind", ["unpatched", "gunicorn"])
def test_a_process_that_is_left_over_fails_the_test_and_is_killed(kind, tmp_path):
    world = World(kind, tmp_path)
    with (
        pytest.raises(ScenarioFailed, match=r"left over .*time\.sleep"),
        world.start(smoke.leaving_a_process_behind) as run,
    ):
        run.result()

    assert run.processes() == []


def test_a_scenario_holds_until_it_is_released(world):
    with world.start(smoke.holding) as run:
        assert run.told("ready")["pid"] == run.pid
        run.release()
        assert run.result() == "released"


@pytest.mark.parametrize("world", ["unpatched"], indirect=True)
def test_a_world_may_be_killed(world):
    with world.start(smoke.holding) as run:
        run.told("ready")
        os.kill(run.pid, signal.SIGKILL)
        wait_until(lambda: not run.processes())
    assert not alive(run.pid)


def test_a_manager_of_this_process(manager):
    assert manager.submit(tasks.double, 4).get(timeout=10) == 8


@pytest.mark.parametrize("start_method", START_METHODS)
def test_managers_of_any_configuration_leave_nothing(make_manager, start_method):
    managers = [make_manager(start_method=start_method) for _ in range(2)]

    handles = [manager.submit(tasks.rest, 60) for manager in managers]
    managers[0].submit(tasks.double, 4).get(timeout=10)

    wait_until(lambda: all(handle.report.worker for handle in handles))
    # The fixture stops them in the middle of it, and looks for what is left.
