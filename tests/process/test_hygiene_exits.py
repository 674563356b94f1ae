"""The application's own child processes: their exit codes are its own, and stay right."""

from __future__ import annotations

import pytest
from scenarios import exits

# Where the workers are children of the application itself, the ways that could meet them.
CASES = [
    *(("zygote", way) for way in exits.WAYS),
    ("spawn", "reaper"),
    ("fork", "gevent"),
    ("fork", "reaper"),
]


@pytest.mark.parametrize(("start_method", "way"), CASES)
def test_exit_codes_stay_right_while_workers_come_and_die(world, start_method, way):
    told = world.run(exits.exit_codes, way=way, start_method=start_method)

    assert told["codes"] == [7] * exits.TIMES
    assert told["wrong"] == []
    assert told["done"] and told["died"]
