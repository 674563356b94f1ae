"""Extras alone, in environments without the others: ``python -m tests.extras`` has all of them."""

from __future__ import annotations

import pytest
from extras import environment
from extras.catalog import CATALOG
from extras.environment import Environment
from extras.room import Room

# The extras that bring a server or a framework, each with its quickest check.
QUICKEST = {"gunicorn": "a_site_under_gunicorn", "flask": "a_flask_application"}


@pytest.mark.parametrize("extra", QUICKEST)
def test_an_extra_brings_what_its_pages_need(tmp_path, extra):
    (check,) = (each for each in CATALOG[extra] if each.__name__ == QUICKEST[extra])
    there = Environment.linked(tmp_path / "venv", [extra])
    (tmp_path / "room").mkdir()
    check(Room(tmp_path / "room", there))


def test_every_extra_is_tried_alone():
    assert set(environment.extras()) - {"test"} <= set(CATALOG)


def test_an_environment_has_what_its_extra_names_and_nothing_else(tmp_path):
    there = Environment.linked(tmp_path, [])
    found = {path.name for path in there.packages.iterdir()}
    assert {"gtaskman", "gevent", "greenlet", "zope"} <= found
    assert not {"flask", "django", "gunicorn", "pytest", "packaging", "cloudpickle"} & found
