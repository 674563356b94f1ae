"""Native threads, forks of the application, and a main thread that never yields."""

from __future__ import annotations

import os
import signal

import pytest
from scenarios import threads
from worlds import SOON, alive, wait_until


@pytest.mark.parametrize("how", ["natively", "cooperatively", "mixed"])
@pytest.mark.parametrize("background", [False, True], ids=["here", "background"])
def test_eight_threads_share_one_manager(world, how, background):
    told = world.run(threads.many_threads, how=how, background=background)

    assert told["right"] is True
    assert told["stats"]["completed_tasks"] == told["stats"]["total_tasks"] == 160


def test_the_default_manager_outlives_the_thread_that_first_used_it(world):
    told = world.run(threads.default_manager_from_a_thread)

    assert told["own"] not in told["workers"]
    assert told["right"] is True


def test_the_default_manager_is_made_once_though_several_want_it_at_once(world):
    told = world.run(threads.default_manager_for_several_at_once)

    assert told["values"] == [0, 2, 4, 0, 2]
    assert told["workers"] >= 1


@pytest.mark.parametrize("start_method", ["zygote", "spawn"])
def test_a_background_manager_needs_nobody_who_yields(world, start_method):
    told = world.run(threads.a_main_thread_that_never_yields, start_method=start_method)

    assert told == {
        "values": [2 * number for number in range(20)],
        "error": "in the background",
        "pids": [],
    }


FORKS = [("os", False), ("gevent", False), ("os", True), ("gevent", True)]


@pytest.mark.parametrize(("fork", "background"), FORKS)
def test_a_fork_of_the_application_stands_on_its_own(world, fork, background):
    with world.start(threads.a_fork_of_the_application, fork=fork, background=background) as run:
        in_fork, in_parent = run.told("fork"), run.told("parent")
        assert in_fork.get("error") is None
        assert in_fork["refused"] == dict.fromkeys(["submit", "get", "wait"], "ForkedManagerError")
        assert in_fork["known"] == 8
        assert in_parent["double"] == 16
        # Each has a template of its own, and the parent's is the one that it had.
        assert in_parent["own"][1] == in_parent["again"][1]
        assert in_fork["lineage"][1] not in in_parent["templates"]
        assert in_fork["lineage"][1] != in_parent["pid"]
        run.release()
        assert run.result() is True


@pytest.mark.parametrize("background", [False, True], ids=["here", "background"])
def test_the_workers_of_the_application_die_with_it_though_its_fork_lives_on(world, background):
    with world.start(threads.a_fork_of_the_application, fork="os", background=background) as run:
        in_fork, in_parent = run.told("fork"), run.told("parent")
        assert in_fork.get("error") is None
        theirs = {in_fork["pid"], in_fork["lineage"][1], *in_fork["workers"]}
        ours = {*in_parent["templates"], *in_parent["workers"]}
        assert all(map(alive, ours | theirs))

        os.kill(run.pid, signal.SIGKILL)

        wait_until(lambda: not any(map(alive, ours)), SOON, f"{ours} are gone")
        assert all(map(alive, theirs))

        os.kill(in_fork["pid"], signal.SIGKILL)

        wait_until(lambda: not any(map(alive, theirs)), SOON, f"{theirs} are gone")
