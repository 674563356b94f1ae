"""Sending to a server from unpatched and patched applications, from gunicorn, threads and forks.

The manager is on our own hub; the application in the world only sends, and has no workers.
"""

from __future__ import annotations

import itertools

import pytest
from scenarios import sending
from servers import RunningServer, any_kind

import gtaskman

_namespaces = itertools.count(1)


@pytest.fixture(scope="module")
def server():
    with RunningServer(any_kind()) as running:
        yield running


@pytest.fixture
def url(server):
    """That of a queue at which a manager works."""
    url = f"{server.url}?namespace=world{next(_namespaces)}"
    with gtaskman.TaskManager(url, gtaskman.Configuration(max_processes=2)) as manager:
        yield url
        assert manager.stats()["pool"]["current_tasks"] == 0


def test_the_module_sends_to_a_server(world, url):
    if world.kind == "patched":
        told = world.run(sending.the_module, url=url)
    else:
        told = world.run(sending.the_module, env={"GTASKMAN_URL": url})
    assert told["ticked"] > 20, "the hub ran while a task did"
    assert told["ended"] == [58, 1, 1]
    assert told["children"] == 0


def test_many_greenlets_wait(world, url):
    assert world.run(sending.many_greenlets, url=url) is True


def test_native_threads_send_and_wait(world, url):
    assert world.run(sending.native_threads, url=url) is True


@pytest.mark.parametrize("fork", ["os", "gevent"])
def test_a_client_goes_on_in_a_fork(world, url, fork):
    with world.start(sending.a_fork, url=url, fork=fork) as run:
        assert run.told("fork")["values"] == list(range(0, 42, 2))
        assert run.result() is True
