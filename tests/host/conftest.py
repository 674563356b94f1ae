"""Fixtures of the tests of a manager that a host shares."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

HERE = str(Path(__file__).resolve().parent)
if HERE not in sys.path:
    sys.path.insert(0, HERE)

from sites import Site  # noqa: E402 - the path comes first


@pytest.fixture
def site():
    """A directory of this test's own."""
    with Site() as made:
        yield made
