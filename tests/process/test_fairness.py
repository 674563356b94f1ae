"""Fairness: a few plays; ``python -m tests.fairness`` plays more, and tries all mutants."""

from __future__ import annotations

import pytest
from fairness.mutants import mutated
from fairness.plan import make_plan
from fairness.play import Play
from worlds import PATIENCE


@pytest.mark.parametrize("seed", range(1, 9))
def test_no_task_waits_or_fails_for_another_one(seed, no_leaks):
    assert Play(make_plan(seed), 2 * PATIENCE).run() == []


# Those that a play finds without waiting for what never comes.
@pytest.mark.parametrize("name", ["no limit while replacing", "neighbours are blamed"])
def test_a_fault_that_is_put_back_is_found(name):
    def finds(seed):
        with mutated(name):
            return Play(make_plan(seed), 2 * PATIENCE).run()

    assert any(finds(seed) for seed in range(1, 20))
