"""Fixtures of all tests that need a server: one of each kind, and one queue for each test."""

from __future__ import annotations

import itertools

import pytest
from entries import TwiceServer
from invariants import check
from servers import RunningServer, each_kind

from gtaskman.redis.ledger import Ledger
from gtaskman.redis.server import Server

_names = itertools.count(1)


@pytest.fixture(scope="session", params=each_kind())
def running(request):
    """A running server of each kind in turn."""
    with RunningServer(request.param) as server:
        yield server


@pytest.fixture
def make_server(running):
    """Makes connected servers, and closes them."""
    made = []

    def make(url=running.url, cls=Server):
        made.append(cls(url, patience=20))
        return made[-1]

    yield make
    for server in made:
        server.close()


@pytest.fixture
def server(make_server):
    """A connected server."""
    return make_server()


@pytest.fixture(params=[Server, TwiceServer], ids=["once", "twice"])
def ledger(request, make_server):
    """An empty queue, of which each script runs once, or twice; whole after the test."""
    yield from _checked(make_server(cls=request.param))


@pytest.fixture
def single(server):
    """Likewise; each script runs once, where messages and numbers are counted."""
    yield from _checked(server)


def _checked(server):
    made = Ledger(server, "tests", f"queue{next(_names)}")
    yield made
    assert check(made) == []
