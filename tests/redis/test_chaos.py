"""A short play of the chaos suite (see ``tests/chaos``), and its mutants."""

from __future__ import annotations

import pytest
from chaos.scenarios import SCENARIOS, is_found_out, mutant
from servers import any_kind

_SEED = 7
_SECONDS = 3.0  # of harm
_LONG = ("races", "shortage", "strange", "back-off", "mixed leases")  # longer runs have them
_SHORT = [name for name in SCENARIOS if name not in _LONG]
_BRIEF = ["no enqueue dedup", "no claim replay", "no fence", "no reaper", "prefetched like free"]


@pytest.mark.parametrize("name", _SHORT)
def test_it_holds(name):
    """Nothing is lost, run twice at once, or stuck; counts are exact; nothing stays behind."""
    outcome = SCENARIOS[name](_SECONDS, _SEED, any_kind())
    assert outcome.findings == []


@pytest.mark.parametrize("name", _BRIEF)
def test_a_mutant_is_found_out(name):
    """The judge notices when a script does not keep its promise."""
    outcome = mutant(name, _SEED, any_kind())
    assert is_found_out(name, outcome), outcome.findings
