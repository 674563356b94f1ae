"""``Backoff``: how long to wait before the next try."""

from __future__ import annotations

import itertools
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gtaskman import Backoff, ConfigurationError

pytestmark = pytest.mark.quick


def waits(backoff, attempts, random=0.0):
    return [backoff.delay(attempt, random) for attempt in range(1, attempts + 1)]


def test_each_wait_is_longer_up_to_the_longest():
    backoff = Backoff(first=1, factor=3, maximum=20, jitter=0)
    assert waits(backoff, 5) == [1, 3, 9, 20, 20]


def test_the_usual_one_begins_with_a_tenth_of_a_second():
    assert waits(Backoff(), 4) == pytest.approx([0.1, 0.2, 0.4, 0.8])
    assert Backoff().delay(1000, 0.0) == 60


@pytest.mark.parametrize(
    ("jitter", "least", "most"), [(0, 8, 8), (0.2, 6.4, 8), (0.5, 4, 8), (1, 0, 8)]
)
def test_jitter_is_the_part_of_a_wait_that_is_left_to_chance(jitter, least, most):
    backoff = Backoff(first=8, jitter=jitter)
    assert backoff.delay(1, 0.0) == most
    assert backoff.delay(1, 1.0) == pytest.approx(least)
    assert least <= backoff.delay(1, 0.5) <= most


@pytest.mark.parametrize("first", [0, 0.5])
def test_so_many_attempts_that_no_number_is_large_enough(first):
    backoff = Backoff(first=first, jitter=0)
    assert backoff.delay(1_000_000, 0.5) == (60 if first else 0)


def test_no_wait_at_all():
    assert waits(Backoff(first=0), 3, 0.5) == [0, 0, 0]


def test_a_factor_of_one_is_the_same_wait_each_time():
    assert waits(Backoff(first=2, factor=1, jitter=0), 3) == [2, 2, 2]


@given(
    first=st.floats(0, 60),
    factor=st.floats(1, 10),
    jitter=st.floats(0, 1),
    random=st.floats(0, 1),
)
def test_waits_never_shrink_and_are_never_over_the_longest(first, factor, jitter, random):
    backoff = Backoff(first=first, factor=factor, jitter=jitter)
    found = waits(backoff, 50, random)
    assert all(earlier <= later for earlier, later in itertools.pairwise(found))
    assert found[0] >= 0
    assert found[-1] <= backoff.maximum


def test_one_that_starts_with_a_wait_is_the_usual_one_otherwise():
    assert Backoff.starting_with(5) == Backoff(first=5)
    # Even if that is longer than the usual longest.
    assert waits(Backoff.starting_with(100), 2) == [100, 100]


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("first", {"first": -1}),
        ("first", {"first": "1"}),
        ("first", {"first": True}),
        ("first", {"first": None}),
        ("first", {"first": float("nan")}),
        ("first", {"first": float("inf")}),
        ("first", {"first": 61}),
        ("first", {"first": 2, "maximum": 1}),
        ("factor", {"factor": 0.5}),
        ("factor", {"factor": float("inf")}),
        ("maximum", {"maximum": -1}),
        ("maximum", {"maximum": 10**400}),
        ("jitter", {"jitter": -0.1}),
        ("jitter", {"jitter": 1.1}),
        ("jitter", {"jitter": 1j}),
    ],
    ids=lambda value: f"{value!r:.40}",
)
def test_what_makes_no_sense_is_refused_and_named(field, values):
    with pytest.raises(ConfigurationError, match=field) as caught:
        Backoff(**values)
    assert caught.value.field == field


def test_it_is_frozen_equal_by_value_and_can_be_pickled():
    backoff = Backoff(first=1)
    with pytest.raises(AttributeError):
        backoff.first = 2
    assert backoff == Backoff(first=1) != Backoff()
    assert hash(backoff) == hash(Backoff(first=1))
    assert pickle.loads(pickle.dumps(backoff)) == backoff
