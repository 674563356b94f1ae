"""The default manager as each test finds it, and leaves it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import gtaskman
from gtaskman import default
from gtaskman.contrib.flask import settings

HERE = str(Path(__file__).resolve().parent)
if HERE not in sys.path:
    sys.path.insert(0, HERE)


def pytest_collection_finish():
    """The applications of these tests were made by importing them: undo what that has set."""
    default._may_block = False


@pytest.fixture(autouse=True)
def fresh_manager(monkeypatch):
    """No manager is at work or configured, before and after."""
    monkeypatch.setattr(default, "_may_block", False)
    for key in (settings.APP, settings.URL):
        # First set, so that what a test leaves there is undone.
        monkeypatch.setenv(key, "")
        monkeypatch.delenv(key)
    yield
    monkeypatch.undo()
    gtaskman.shutdown(0)
    default.configure()
    settings._applied = None
