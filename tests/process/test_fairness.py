"""Fairness, a few plays of it; ``python -m tests.fairness`` plays for as long as one likes."""

from __future__ import annotations

import pytest
from fairness.plan import make_plan
from fairness.play import Play
from worlds import PATIENCE

# Seeds by which a fault that was put back is found; each takes about a second.
FOUND_BY = {}


@pytest.mark.parametrize("seed", range(1, 9))
def test_no_task_waits_or_fails_for_another_one(seed, no_leaks):
    assert Play(make_plan(seed), 2 * PATIENCE).run() == []
