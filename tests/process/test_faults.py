"""Workers that die, pipes that carry nonsense, values that cannot travel."""

import pytest
from scenarios import faults

KINDS = [{"kind": "sync"}, {"kind": "async"}]
UNPATCHED = pytest.mark.parametrize("world", ["unpatched"], indirect=True)
WAYS = pytest.mark.parametrize(
    ("world", "start_method"),
    [
        pytest.param("unpatched", "zygote", id="unpatched"),
        pytest.param("patched", "zygote", id="patched"),
        pytest.param("gunicorn", "zygote", id="gunicorn"),
        pytest.param("unpatched", "spawn", id="unpatched-spawn"),
        pytest.param("patched", "fork", id="patched-fork"),
    ],
    indirect=["world"],
)


def play(world, story, cases, **common):
    world.run(faults.each, timeout=90, story=story.__name__, cases=cases, **common)


@WAYS
def test_a_task_that_kills_its_worker_is_told_how(world, start_method):
    cases = [
        {**kind, "how": how} for kind in KINDS for how in ("exit", "segv", "kill", "abrt", "term")
    ]
    play(world, faults.a_task_that_kills_its_worker, cases, start_method=start_method)


@WAYS
def test_what_a_dead_worker_held_ahead_runs_elsewhere(world, start_method):
    world.run(faults.others_of_a_worker_that_dies, start_method=start_method)


def test_only_the_tasks_of_a_dead_worker_are_lost(world):
    world.run(faults.only_its_own_tasks_are_lost)


def test_async_tasks_of_a_dead_worker_are_all_suspects(world):
    world.run(faults.suspects_of_a_worker_that_dies)


def test_a_dead_template_is_replaced(world):
    world.run(faults.a_template_that_dies)


@UNPATCHED
def test_a_task_that_is_out_of_memory_fails_alone(world):
    world.run(faults.out_of_memory)


@UNPATCHED
def test_a_task_is_tried_again_after_an_exception(world):
    play(world, faults.trying_again_after_an_exception, KINDS)


@UNPATCHED
def test_a_task_is_tried_again_after_a_crash(world):
    play(world, faults.trying_again_after_a_crash, KINDS)


@UNPATCHED
def test_a_task_is_tried_again_after_a_timeout(world):
    play(world, faults.trying_again_after_a_timeout, KINDS)


@UNPATCHED
def test_a_cancelled_task_is_not_tried_again(world):
    play(world, faults.a_cancelled_task_is_not_tried_again, KINDS)


@UNPATCHED
def test_a_task_that_kills_worker_after_worker_is_given_up(world):
    play(world, faults.poison, KINDS)


def test_a_task_that_may_run_once_is_rather_lost(world):
    play(world, faults.at_most_once_when_killed, KINDS)


@UNPATCHED
def test_a_task_that_may_run_once_is_lost_with_its_result(world):
    world.run(faults.at_most_once_while_its_result_is_sent)


@UNPATCHED
def test_a_worker_that_dies_while_it_sends_a_result_is_a_crash(world):
    world.run(faults.a_task_that_always_dies_while_its_result_is_sent)


def test_a_worker_that_closes_its_pipe_is_killed(world):
    play(world, faults.a_pipe_that_is_closed, KINDS)


@UNPATCHED
@pytest.mark.parametrize("background", [False, True], ids=["", "background"])
def test_a_result_that_would_end_the_application_is_a_failure(world, background):
    world.run(faults.a_result_that_would_end_the_application, background=background)


@UNPATCHED
@pytest.mark.parametrize("what", list(faults.nonsense()))
def test_nonsense_in_the_pipe_costs_one_worker(world, what):
    world.run(faults.nonsense_in_the_pipe, what=what)


@UNPATCHED
def test_a_forged_end_is_an_end(world):
    world.run(faults.a_forged_end)


@UNPATCHED
def test_a_result_over_the_limit_is_told(world):
    play(world, faults.a_result_over_the_limit, KINDS)


@UNPATCHED
def test_a_result_that_cannot_travel_is_told(world):
    play(world, faults.a_result_that_cannot_travel, KINDS)


@UNPATCHED
def test_an_argument_over_the_limit_is_refused_at_once(world):
    play(world, faults.an_argument_over_the_limit, KINDS)


@UNPATCHED
def test_an_exception_arrives_as_it_was(world):
    play(world, faults.exceptions, KINDS)


@UNPATCHED
def test_an_exception_over_the_limit_arrives_as_text(world):
    play(world, faults.an_exception_over_the_limit, KINDS)


@UNPATCHED
def test_a_message_over_the_limit_kills_nobody(world):
    play(world, faults.a_progress_message_over_the_limit, KINDS)
