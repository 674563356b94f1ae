"""The storm (4, 6): seconds per world from ``GTASKMAN_STORM_SECONDS``, seed from ``..._SEED``."""

import os
import time

import pytest
from scenarios import storm

SECONDS = float(os.environ.get("GTASKMAN_STORM_SECONDS", "4"))
SEED = int(os.environ.get("GTASKMAN_STORM_SEED", "4"))


@pytest.mark.timeout(SECONDS + 120)
def test_every_submit_settles_once_in_a_storm(world):
    begin = time.monotonic()
    found = world.run(storm.storm, timeout=SECONDS + 90, seconds=SECONDS, seed=SEED)

    print(f"storm with seed {SEED}: {found} in {time.monotonic() - begin:.1f} s")
    # It was one: something of everything has happened.
    assert found["tasks"] > 50
    assert found["cancel"] and found["kill"] and found["pause"] and found["once"]
    assert found["completed"] and found["failed"] and found["cancelled"]
