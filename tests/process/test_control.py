"""Cancelling, time limits and waits, in real workers."""

import pytest
from scenarios import control
from worlds import START_METHODS

KINDS = pytest.mark.parametrize("kind", ["sync", "async"])
UNPATCHED = pytest.mark.parametrize("world", ["unpatched"], indirect=True)
# Every start method somewhere, and every world with the method that is the default.
WAYS = pytest.mark.parametrize(
    ("world", "start_method"),
    [
        pytest.param("unpatched", "zygote", id="unpatched"),
        pytest.param("patched", "zygote", id="patched"),
        pytest.param("gunicorn", "zygote", id="gunicorn"),
        pytest.param("patched", "spawn", id="patched-spawn"),
        pytest.param("unpatched", "fork", id="unpatched-fork"),
        pytest.param("gunicorn", "fork", id="gunicorn-fork"),
    ],
    indirect=["world"],
)
assert {"zygote", "spawn", "fork"} == set(START_METHODS)


def both_kinds(*hows):
    """The cases of a scenario: each kind, and each way in which a task can be busy."""
    kinds = [{"kind": kind} for kind in ("sync", "async")]
    return [{**kind, "how": how} for kind in kinds for how in hows] if hows else kinds


def play(world, story, cases, **common):
    world.run(control.each, timeout=90, story=story.__name__, cases=cases, **common)


@WAYS
def test_a_waiting_task_is_cancelled_at_once(world, start_method):
    play(world, control.cancelling_a_waiting_task, both_kinds(), start_method=start_method)


@WAYS
def test_a_prefetched_task_is_cancelled(world, start_method):
    world.run(control.cancelling_a_prefetched_task, start_method=start_method)


@WAYS
def test_a_running_task_is_cancelled(world, start_method):
    cases = both_kinds("spin", "nap", "block")
    play(world, control.cancelling_a_running_task, cases, start_method=start_method)


@UNPATCHED
@pytest.mark.parametrize("start_method", START_METHODS)
def test_a_cancelled_task_cleans_up(world, start_method):
    play(world, control.cancelling_runs_finally_blocks, both_kinds(), start_method=start_method)


@UNPATCHED
def test_a_limit_does_not_interrupt_the_clean_up_of_a_cancelled_task(world):
    play(world, control.a_limit_during_the_clean_up_of_a_cancelled_task, both_kinds())


@UNPATCHED
def test_a_blocked_hub_kills_no_worker_whose_task_has_stopped_in_time(world):
    play(world, control.a_blocked_hub_and_a_task_that_stopped_in_time, both_kinds())


@UNPATCHED
def test_cancelling_what_is_not_there_gives_false(world):
    play(world, control.cancelling_what_is_not_there, both_kinds())


@UNPATCHED
@KINDS
def test_a_task_is_cancelled_while_its_arguments_are_decoded(world, kind):
    world.run(control.cancelling_what_is_being_decoded, kind=kind)


@UNPATCHED
def test_a_task_is_cancelled_on_its_way_back_from_its_worker(world):
    world.run(control.cancelling_while_it_is_being_recalled)


@UNPATCHED
@KINDS
def test_a_bell_that_rings_while_another_is_answered_is_heard(world, kind):
    world.run(control.a_bell_that_rings_while_another_is_answered, kind=kind, rounds=50)


@WAYS
def test_a_task_that_swallows_the_request_is_killed_alone(world, start_method):
    play(world, control.a_task_that_swallows_the_request, both_kinds(), start_method=start_method)


@UNPATCHED
@pytest.mark.parametrize("start_method", ["zygote", "fork"])
def test_bystanders_of_a_killed_task_run_again(world, start_method):
    world.run(control.bystanders_of_a_killed_task_run_again, start_method=start_method)


@KINDS
def test_racing_cancels_never_hit_the_next_task(world, kind):
    ended = world.run(control.racing_cancels, kind=kind, rounds=300, seed=5)

    # Were it always one of the two, there would have been no race.
    assert ended["cancelled"] > 10
    assert ended["completed"] > 10


@WAYS
def test_a_task_that_heeds_its_soft_limit_gives_a_value(world, start_method):
    cases = both_kinds("settle_for_less", "settle_for_less_resting")
    play(world, control.a_soft_limit_that_is_heeded, cases, start_method=start_method)


@UNPATCHED
def test_a_soft_limit_that_is_not_caught_ends_the_task(world):
    cases = both_kinds("spin", "nap", "block")
    play(world, control.a_soft_limit_that_is_not_caught, cases, start_method="zygote")


@WAYS
def test_a_hard_limit_ends_the_task(world, start_method):
    cases = both_kinds("spin", "nap", "block", "stubborn")
    play(world, control.a_hard_limit, cases, start_method=start_method)


@UNPATCHED
def test_the_limit_of_a_task_begins_with_it(world):
    world.run(control.a_limit_begins_with_the_task)


@UNPATCHED
def test_a_task_knows_its_deadline(world):
    play(world, control.a_task_knows_its_deadline, both_kinds())


@UNPATCHED
def test_a_worker_that_stands_still_is_killed_at_the_limit(world):
    play(world, control.stopped_workers_and_a_limit, both_kinds())


def test_a_waiter_that_is_killed_leaves_nothing(world):
    world.run(control.a_waiter_that_is_killed, start_method="zygote")


def test_a_wait_that_is_over_leaves_the_task_running(world):
    play(world, control.a_wait_that_is_over, both_kinds())


def test_a_wait_under_a_gevent_timeout(world):
    world.run(control.a_wait_under_a_gevent_timeout)
