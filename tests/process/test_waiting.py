"""Delays, priorities, unique keys, times to start, back-off, pauses and dead letters, for real."""

import pytest
from scenarios import terms

KINDS = [{"kind": "sync"}, {"kind": "async"}]
UNPATCHED = pytest.mark.parametrize("world", ["unpatched"], indirect=True)
THREADS = pytest.mark.parametrize("background", [False, True], ids=["here", "background"])


def play(world, story, cases, **common):
    world.run(terms.each, timeout=90, story=story.__name__, cases=cases, **common)


def test_a_delayed_task_begins_when_it_is_due(world):
    cases = [{**kind, "how": how} for kind in KINDS for how in ("delay", "eta")]
    play(world, terms.a_delayed_task, cases)


@UNPATCHED
def test_each_delayed_task_waits_for_its_own_time(world):
    play(world, terms.many_delays, KINDS)


@UNPATCHED
def test_a_delayed_task_is_cancelled_at_once(world):
    play(world, terms.cancelling_a_delayed_task, KINDS)


@THREADS
@pytest.mark.parametrize("world", ["unpatched", "patched"], indirect=True)
def test_delays_from_other_threads(world, background):
    world.run(terms.delays_from_other_threads, background=background)


@UNPATCHED
def test_what_waits_is_begun_by_priority(world):
    play(world, terms.priorities, KINDS)


@UNPATCHED
def test_of_a_unique_task_there_is_one(world):
    play(world, terms.a_unique_task, KINDS)


@UNPATCHED
def test_a_task_may_be_unique_by_its_arguments(world):
    world.run(terms.a_task_that_is_unique_by_its_arguments)


@THREADS
@pytest.mark.parametrize("world", ["unpatched", "patched"], indirect=True)
def test_another_thread_is_told_that_a_key_is_taken(world, background):
    world.run(terms.a_unique_task_from_another_thread, background=background)


@UNPATCHED
def test_a_task_expires_behind_another_one(world):
    play(world, terms.expiring_behind_another_task, [{"how": how} for how in ("spin", "nap")])


@UNPATCHED
def test_a_task_expires_though_nobody_asks_for_any(world):
    play(world, terms.expiring_while_nobody_asks, KINDS)


@UNPATCHED
def test_what_has_begun_in_time_does_not_expire(world):
    play(world, terms.starting_in_time, KINDS)


def test_a_retry_waits_its_back_off(world):
    play(world, terms.a_retry_waits, KINDS)


@UNPATCHED
def test_a_retry_need_not_wait(world):
    play(world, terms.a_retry_without_a_wait, KINDS)


@UNPATCHED
@THREADS
def test_a_pause(world, background):
    play(world, terms.a_pause, KINDS, background=background)


@UNPATCHED
def test_a_manager_may_be_paused_before_it_starts(world):
    world.run(terms.a_manager_that_is_paused_before_it_starts)


@UNPATCHED
@THREADS
def test_a_dead_letter_is_sent_back(world, background):
    world.run(terms.a_dead_letter, background=background)


@UNPATCHED
def test_so_many_dead_letters_are_kept(world):
    world.run(terms.few_dead_letters)


@UNPATCHED
def test_what_took_its_worker_with_it_is_a_dead_letter_too(world):
    play(world, terms.a_crash_is_a_dead_letter, KINDS)


@UNPATCHED
def test_a_report_is_kept_for_as_long_as_its_task_says(world):
    play(world, terms.a_report_that_goes, KINDS)


@UNPATCHED
def test_stopping_waits_for_nothing_that_cannot_begin(world):
    world.run(terms.stopping_with_tasks_that_cannot_begin)


@UNPATCHED
def test_terms_cost_no_definition(world):
    world.run(terms.terms_cost_no_definition)
