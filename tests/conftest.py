"""Fixtures of all tests; how to use them is told in ``worlds``."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

import gevent
import pytest

PROCESSES = 2  # that run the whole suite
TESTS = Path(__file__).resolve().parent
for _each in (TESTS, TESTS / "process"):
    if str(_each) not in sys.path:
        sys.path.insert(0, str(_each))

import worlds  # noqa: E402 - the path comes first

import gtaskman  # noqa: E402 - likewise


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    """Run the whole suite in several processes, where pytest-xdist is there and nothing was said.

    Most of it waits for processes and servers: two at a time on two cores.
    """
    in_worker = hasattr(config, "workerinput")
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    if whole and not in_worker and getattr(config.option, "numprocesses", 1) is None:
        config.option.numprocesses = PROCESSES
        config.option.tx = ["popen"] * PROCESSES
        config.option.dist = "loadfile"


@pytest.fixture(params=worlds.WORLDS)
def world(request, tmp_path):
    """Each of the worlds in turn."""
    return worlds.World(request.param, tmp_path)


def _live_children():
    return {each.pid for each in worlds.descendants_of(os.getpid())}


@pytest.fixture
def no_leaks():
    """Afterwards this process has the descriptors and the children that it had before."""
    # What a hub opens once and keeps must be there before we count.
    hub = gevent.get_hub()
    hub.threadpool.apply(int)
    hub.loop.run_callback_threadsafe(int)
    gevent.sleep(0)
    before, children = worlds.descriptors(), _live_children()
    yield
    with contextlib.suppress(AssertionError):
        worlds.wait_until(lambda: len(worlds.descriptors()) <= len(before), worlds.SOON)
        worlds.wait_until(lambda: _live_children() <= children, worlds.SOON)
    after = worlds.descriptors()
    leaked = {fd: what for fd, what in after.items() if before.get(fd) != what}
    assert len(after) <= len(before), f"descriptors leaked: {leaked}"
    left = [worlds.process(pid) for pid in _live_children() - children]
    assert not left, f"child processes are left: {left}"


@pytest.fixture
def make_manager(no_leaks):
    """Gives started managers of any configuration, and stops them."""
    made = []

    def make(**config):
        config.setdefault("max_processes", 2)
        manager = gtaskman.TaskManager(config=gtaskman.Configuration(**config))
        made.append(manager)
        return manager.start()

    yield make
    for manager in made:
        manager.stop(timeout=0)
        numbers = manager.stats()["pool"]
        settled = sum(numbers[f"{how}_tasks"] for how in ("completed", "failed", "cancelled"))
        assert settled == numbers["total_tasks"], f"tasks have not settled: {numbers}"
        assert manager.pids() == []


@pytest.fixture
def manager(make_manager):
    """A started manager with two workers at most."""
    return make_manager()
