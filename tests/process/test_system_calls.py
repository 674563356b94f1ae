"""System calls that fail: a sample of ``python -m tests.faults``, and what it must find."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2]))

from tests.faults import runner
from tests.faults.faults import CALLS, Fault
from tests.faults.mutants import FOUND_BY

SEED = 20240607
# In the scenario each of them is made at least so often by the application.
SAMPLED = {
    "zygote": ("socketpair", "memfd_create", "dup", "recvmsg", "descriptors"),
    "fork": ("pidfd_open", "fork"),
}


@pytest.mark.parametrize(
    ("start_method", "call"),
    [(method, call) for method, calls in SAMPLED.items() for call in calls],
)
def test_one_failing_system_call_loses_nothing(start_method, call):
    _, _, ways = CALLS[call]
    chance = random.Random(f"{SEED} {start_method} {call}")
    done = runner.run(start_method, Fault(call, chance.choice(ways), chance.randint(1, 3)))
    assert not done.wrong, done.output


@pytest.mark.parametrize("mutant", ["unguarded", "copies"])
def test_an_old_mistake_is_found(mutant):
    """Those that leak; ``--mutant`` also shows those that hang, which takes longer."""
    call, how = FOUND_BY[mutant]
    runs = (runner.run("zygote", Fault(call, how, at), mutant) for at in (2, 1, 3, 4, 5))
    assert any(done.wrong for done in runs)
