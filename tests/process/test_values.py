"""What travels arrives as it was: equal, and of the same type."""

import pytest
from scenarios import values

UNPATCHED = pytest.mark.parametrize("world", ["unpatched"], indirect=True)
MIB = 1024 * 1024


def test_any_value_comes_back_as_it_was(world):
    world.run(values.round_trips, count=300, seed=11)


@UNPATCHED
def test_sizes_around_which_the_way_changes(world):
    world.run(values.edges)


@UNPATCHED
def test_numpy_arrays_come_back_as_they_were(world):
    world.run(values.arrays)


@UNPATCHED
@pytest.mark.parametrize("what", ["bytes", "bytearray", "numpy"])
def test_large_values_travel_both_ways_at_once(world, what):
    lag = world.run(values.large_ones, timeout=100, what=what, size=100 * MIB)

    # On a machine that others use the lag says little: it is told, and only a freeze is an error.
    print(f"{what}: hub lag while 4 x 100 MiB were on their way: {lag}")
    assert lag["p99"] < 100
