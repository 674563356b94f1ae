"""The executor in real processes, patched and not: see ``stories``."""

from __future__ import annotations

import pytest
import worlds
from futures import stories


@pytest.fixture(scope="module", params=["unpatched", "patched"])
def outcomes(request, tmp_path_factory):
    """How all stories went in one world."""
    world = worlds.World(request.param, tmp_path_factory.mktemp(request.param))
    return world.run(stories.play, timeout=110)


@pytest.mark.parametrize("name", stories.STORIES)
def test_the_executor(outcomes, name):
    assert outcomes[name] is None, outcomes[name]


@pytest.mark.parametrize("world", ["gunicorn"], indirect=True)
def test_the_executor_in_a_request(world):
    names = ["results_of_a_map", "cancelling", "workers_that_die", "as_they_are_completed"]
    names += ["an_initializer_runs_once_in_each_worker", "native_threads_share_it"]

    outcomes = world.run(stories.play, names=names, timeout=60)

    assert outcomes == dict.fromkeys(names)
