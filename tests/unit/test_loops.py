"""Supervised loops: whatever ends their body, they go on, or their owner learns of it."""

from __future__ import annotations

import logging

import gevent
import pytest
from gevent.event import Event
from greenlet import GreenletExit

from gtaskman.backoff import Backoff
from gtaskman.errors import Cancelled
from gtaskman.loops import SupervisedLoop, guarded

pytestmark = pytest.mark.quick

PATIENCE = 10
AT_ONCE = Backoff(first=0.0, maximum=0.0)
ERRORS = [
    ValueError("on purpose"),
    gevent.Timeout(1),
    Cancelled("on purpose"),
    GreenletExit(),
    MemoryError(),
]


@pytest.fixture
def make_loop():
    loops = []

    def make(run, on_failure=None, **options):
        options.setdefault("backoff", AT_ONCE)
        loop = SupervisedLoop("the loop of the test", run, on_failure, **options)
        loops.append(loop)
        return loop

    yield make
    for loop in loops:
        loop.stop()
    gevent.sleep(0)


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
def test_a_body_that_fails_is_logged_once_with_the_name_and_starts_again(make_loop, caplog, error):
    errors = [error]

    def run():
        if errors:
            raise errors.pop()

    loop = make_loop(run)
    with caplog.at_level(logging.ERROR, "gtaskman"):
        loop.start()
        assert loop.join(PATIENCE)
    assert errors == []
    assert len(caplog.records) == 1
    assert "the loop of the test" in caplog.text
    assert "Traceback" in caplog.text


def test_a_body_that_returns_ends_the_loop_which_may_be_started_again(make_loop):
    passes = []
    loop = make_loop(lambda: passes.append(1))
    for count in (1, 2):
        loop.start()
        loop.start()
        assert loop.running
        assert loop.join(PATIENCE)
        assert not loop.running
        assert len(passes) == count


@pytest.mark.parametrize("begun", [False, True], ids=["before its first switch", "at work"])
def test_a_killed_loop_goes_on(make_loop, begun):
    gate, passes = Event(), []

    def run():
        passes.append(1)
        assert gate.wait(PATIENCE)

    loop = make_loop(run)
    loop.start()
    if begun:
        gevent.sleep(0)
    loop._greenlet.kill(block=False)
    gevent.sleep(0.01)
    assert loop.running
    gate.set()
    assert loop.join(PATIENCE)
    assert len(passes) == 1 + begun


def test_a_kill_during_the_back_off_does_not_end_the_loop(make_loop):
    errors, done = [ValueError(1), ValueError(2)], Event()

    def run():
        if errors:
            raise errors.pop()
        done.set()

    loop = make_loop(run, backoff=Backoff(first=60.0, maximum=60.0))
    loop.start()
    while errors:
        gevent.sleep(0)
    gevent.sleep(0)
    loop._greenlet.kill(block=False)
    assert done.wait(PATIENCE)


def test_stop_ends_it_for_good(make_loop, caplog):
    passes = []

    def run():
        passes.append(1)
        gevent.sleep(PATIENCE)

    loop = make_loop(run)
    loop.start()
    gevent.sleep(0)
    with caplog.at_level(logging.WARNING, "gtaskman"):
        loop.stop()
        assert loop.join(PATIENCE)
        gevent.sleep(0.01)
    assert not loop.running
    assert passes == [1]
    assert caplog.records == []


@pytest.mark.parametrize("most", [1, 3])
def test_too_many_failures_in_a_row_are_reported_once(make_loop, most, caplog):
    failures, passes = [], []

    def run():
        passes.append(1)
        raise ValueError(f"number {len(passes)}")

    loop = make_loop(run, failures.append, max_failures=most)
    with caplog.at_level(logging.CRITICAL, "gtaskman"):
        loop.start()
        assert loop.join(PATIENCE)
    gevent.sleep(0.01)
    assert len(passes) == most
    assert [str(each) for each in failures] == [f"number {most}"]
    assert "the loop of the test" in caplog.text


def test_progress_between_failures_is_no_failure_in_a_row(make_loop):
    failures, passes = [], []

    def run():
        passes.append(1)
        loop.progressed()
        if len(passes) < 20:
            raise ValueError

    loop = make_loop(run, failures.append, max_failures=3)
    loop.start()
    assert loop.join(PATIENCE)
    assert len(passes) == 20
    assert failures == []


def test_a_failure_that_cannot_be_reported_is_logged(make_loop, caplog):
    def run():
        raise ValueError

    def report(_):
        raise TypeError("on purpose")

    loop = make_loop(run, report, max_failures=1)
    loop.start()
    assert loop.join(PATIENCE)
    assert "could not report" in caplog.text


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_is_for_the_main_greenlet_arrives_there_and_the_loop_goes_on(make_loop, error):
    errors = [error()]

    def run():
        if errors:
            raise errors.pop()

    loop = make_loop(run)
    loop.start()
    with pytest.raises(error):
        loop.join(PATIENCE)
    assert loop.join(PATIENCE)


def test_a_guarded_callback_logs_what_it_raises(caplog):
    calls = []

    def fail(*args):
        calls.append(args)
        raise gevent.Timeout(1)

    guarded("the timer of the test", fail)(1, 2)
    assert calls == [(1, 2)]
    assert "the timer of the test failed" in caplog.text
