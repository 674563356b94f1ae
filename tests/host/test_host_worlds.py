"""A shared manager used from unpatched and patched applications, gunicorn, threads and forks."""

from __future__ import annotations

import pytest
from scenarios import sending
from sites import Site


@pytest.fixture
def url():
    """That of a manager in a process of its own."""
    with Site() as site:
        site.host()
        yield site.url


def test_the_module_sends_to_a_socket(world, url):
    if world.kind == "patched":
        told = world.run(sending.the_module, url=url)
    else:
        told = world.run(sending.the_module, env={"GTASKMAN_URL": url})
    assert told["ticked"] > 20, "the hub ran while a task did"
    assert told["ended"] == [58, 1, 1]
    assert told["children"] == 0


@pytest.mark.parametrize("scenario", [sending.many_greenlets, sending.native_threads])
@pytest.mark.parametrize("world", ["unpatched", "patched"], indirect=True)
def test_greenlets_and_native_threads(world, url, scenario):
    assert world.run(scenario, url=url) is True


@pytest.mark.parametrize("fork", ["os", "gevent"])
def test_a_client_goes_on_in_a_fork(world, url, fork):
    with world.start(sending.a_fork, url=url, fork=fork) as run:
        assert run.told("fork")["values"] == list(range(0, 42, 2))
        assert run.result() is True
