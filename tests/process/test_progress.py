"""Progress: what running tasks write, and who reads it when."""

import pytest
from scenarios import writing

KINDS = [{"kind": "sync"}, {"kind": "async"}]
UNPATCHED = pytest.mark.parametrize("world", ["unpatched"], indirect=True)


def play(world, story, **common):
    world.run(writing.each, timeout=90, story=story.__name__, cases=KINDS, **common)


def test_it_arrives_while_the_task_computes(world):
    play(world, writing.while_it_computes)


@UNPATCHED
def test_reports_say_what_was_written(world):
    play(world, writing.what_report_says)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_flood_does_not_drown_the_parent(world, kind):
    assert world.run(writing.a_flood, kind=kind, updates=20_000) > 10


@UNPATCHED
def test_a_handle_iterates_over_it(world):
    play(world, writing.an_iterator, steps=50)


@UNPATCHED
def test_events_come_in_order(world):
    play(world, writing.events_in_order)


@UNPATCHED
def test_a_task_may_settle_its_outcome_with_the_pen(world):
    play(world, writing.settled_with_the_pen)


@UNPATCHED
def test_a_task_may_end_after_its_run_has_returned(world):
    world.run(writing.deferred)


@UNPATCHED
def test_nothing_changes_a_task_that_has_ended(world):
    world.run(writing.late_reports)
