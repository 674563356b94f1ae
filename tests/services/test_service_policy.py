"""What follows the end of a service's process: the decision alone."""

from __future__ import annotations

import itertools

import pytest

from gtaskman import Backoff, RestartPolicy, ServiceOptions
from gtaskman.services.policy import Ending, Next, decide

pytestmark = pytest.mark.quick

PLAIN = Backoff(first=1, factor=2, maximum=10, jitter=0)


def after(ending, *, streak=0, ran=0.0, restarts=(), now=1000.0, chance=0.0, **options):
    options.setdefault("backoff", PLAIN)
    return decide(
        ServiceOptions(**options),
        ending,
        streak=streak,
        ran=ran,
        restarts=restarts,
        now=now,
        chance=chance,
    )


TABLE = {
    ("asked", "always"): Next.REST,
    ("asked", "on-failure"): Next.REST,
    ("asked", "never"): Next.REST,
    ("returned", "always"): Next.RESTART,
    ("returned", "on-failure"): Next.REST,
    ("returned", "never"): Next.REST,
    ("failed", "always"): Next.RESTART,
    ("failed", "on-failure"): Next.RESTART,
    ("failed", "never"): Next.GIVE_UP,
    ("hopeless", "always"): Next.GIVE_UP,
    ("hopeless", "on-failure"): Next.GIVE_UP,
    ("hopeless", "never"): Next.GIVE_UP,
}


def test_the_table_is_whole():
    assert set(TABLE) == {
        (ending.value, policy.value) for ending, policy in itertools.product(Ending, RestartPolicy)
    }
    assert len(set(RestartPolicy)) == 3


@pytest.mark.parametrize(("ending", "policy"), TABLE)
def test_each_end_under_each_policy(ending, policy):
    decision = after(Ending(ending), restart=policy)
    assert decision.next is TABLE[ending, policy]
    assert bool(decision.reason) == (decision.next is Next.GIVE_UP)
    assert decision.delay == (1 if decision.next is Next.RESTART else 0)


def test_each_end_in_a_row_is_waited_for_longer():
    waits = [after(Ending.FAILED, streak=streak) for streak in range(6)]
    assert [each.delay for each in waits] == [1, 2, 4, 8, 10, 10]
    assert [each.streak for each in waits] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("ran", "delay", "streak"), [(0, 8, 4), (9.9, 8, 4), (10, 1, 1), (1e6, 1, 1)]
)
def test_whoever_ran_well_begins_anew(ran, delay, streak):
    decision = after(Ending.FAILED, streak=3, ran=ran, stable_after=10)
    assert (decision.delay, decision.streak) == (delay, streak)


def test_a_part_of_the_wait_is_left_to_chance():
    jittery = Backoff(first=1, jitter=0.5)
    waits = [after(Ending.FAILED, backoff=jittery, chance=c).delay for c in (0, 0.5, 1)]
    assert waits == [1, 0.75, 0.5]


@pytest.mark.parametrize("ending", [Ending.FAILED, Ending.RETURNED])
@pytest.mark.parametrize(
    ("ago", "next_"),
    [
        ([], Next.RESTART),
        ([1, 2], Next.RESTART),
        ([1, 2, 3], Next.GIVE_UP),
        ([1, 2, 59.9], Next.GIVE_UP),
        ([1, 2, 60], Next.RESTART),
        ([61, 62, 63, 64, 65], Next.RESTART),
    ],
)
def test_only_so_many_restarts_in_a_window(ending, ago, next_):
    restarts = [1000.0 - each for each in sorted(ago, reverse=True)]
    decision = after(ending, restarts=restarts, max_restarts=3, window=60)
    assert decision.next is next_
    if next_ is Next.GIVE_UP:
        assert decision.reason == "it was restarted 3 times within 60 s"


def test_there_may_be_no_restart_at_all():
    assert after(Ending.FAILED, max_restarts=0).next is Next.GIVE_UP


def test_without_a_limit_it_is_tried_for_ever():
    decision = after(Ending.FAILED, streak=10_000, restarts=[999.0] * 10_000)
    assert (decision.next, decision.delay) == (Next.RESTART, 10)
