"""``map``: lazily fed, bounded in flight, in order or as they are ready."""

import itertools

import pytest
from scenarios import mapping

UNPATCHED = pytest.mark.parametrize("world", ["unpatched"], indirect=True)
WAYS = [
    {"chunksize": size, "ordered": ordered}
    for size, ordered in itertools.product((None, 7), (True, False))
]


def play(world, story, cases):
    world.run(mapping.each, timeout=90, story=story.__name__, cases=cases)


def test_every_item_comes_back(world):
    lengths = (0, 1, 6, 7, 8, 500)
    play(world, mapping.everything, [{**way, "length": each} for way in WAYS for each in lengths])


@UNPATCHED
def test_results_come_in_order_or_as_they_are_ready(world):
    world.run(mapping.order)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_an_endless_source_is_fed_lazily(world, way):
    world.run(mapping.laziness, **way)


@UNPATCHED
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_the_first_failure_is_raised_and_the_rest_cancelled(world, way):
    world.run(mapping.a_failure, **way)


@UNPATCHED
def test_closing_cancels_the_rest(world):
    world.run(mapping.closing)


@UNPATCHED
def test_mistakes_are_raised(world):
    world.run(mapping.mistakes)


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("hub", [False, True])
def test_a_native_thread_takes_the_results(world, ordered, hub):
    world.run(mapping.from_a_native_thread, ordered=ordered, hub=hub)


@pytest.mark.parametrize("hub", [False, True])
def test_a_native_thread_waits_for_a_handle(world, hub):
    world.run(mapping.get_from_a_native_thread, hub=hub)


def test_many_native_threads_submit_and_wait(world):
    world.run(mapping.many_threads)
