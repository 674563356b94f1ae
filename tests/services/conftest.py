"""Service managers for the tests here: on pytest's own hub, stopped for you."""

from __future__ import annotations

import pytest

import gtaskman


@pytest.fixture
def make_services(no_leaks):
    """Gives started service managers of any configuration, and stops them."""
    made = []

    def make(**config):
        services = gtaskman.ServiceManager(gtaskman.Configuration(**config))
        made.append(services)
        return services.start()

    yield make
    for services in made:
        services.stop(timeout=5)
        assert [pid for status in services.statuses() for pid in status.pids] == []


@pytest.fixture
def services(make_services):
    """A started service manager."""
    return make_services()
