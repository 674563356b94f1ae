"""``Run``: what a worker knows of one order."""

from __future__ import annotations

import types

import pytest

from gtaskman.child import run as module
from gtaskman.child.run import Run
from gtaskman.wire.frames import FrameReader
from gtaskman.wire.messages import order_frame
from gtaskman.wire.payload import encode_arguments

pytestmark = pytest.mark.quick


class Clock:
    """A clock that the test moves."""

    def __init__(self, monkeypatch):
        self.now = 1000.0
        fake = types.SimpleNamespace(time=lambda: self.now, monotonic=lambda: self.now - 900)
        monkeypatch.setattr(module, "time", fake)


@pytest.fixture
def sent():
    """What was sent with the pen: ``(number, values)``."""
    return []


class Writer:
    """Sends nothing, and keeps what it was given to send."""

    def __init__(self, sent):
        self._sent = sent

    def send_progress(self, *args):
        self._sent.append(args)

    def later(self, flush):
        flush()

    def is_here(self):
        return True


@pytest.fixture
def order(sent):
    """Makes runs of orders that came over the pipe, begun."""

    def make(limit=0.0, arguments=((), {}), begin=True):
        flags, body, buffers = encode_arguments(*arguments, 1 << 20)
        stream = order_frame(flags, 7, 3, 2, "an-id \u2713", limit, body, buffers)
        reader = FrameReader(1 << 20)
        reader.room()[: len(stream)] = stream
        (frame,) = reader.advance(len(stream))
        run = Run(frame.number, frame.flags, frame.body, frame.buffers)
        # The kept buffer is read over before the order's turn comes.
        reader.room()[:] = bytes(len(reader.room()))
        if begin:
            run.name, run.started = "tests.name", module.time.monotonic()
            run.writer = Writer(sent)
        return run

    return make


def test_an_order_is_known_by_its_id_and_its_arguments(order):
    run = order(arguments=((1, (2, "x")), {"three": {3}}))
    assert (run.number, run.target, run.attempt, run.id) == (7, 3, 2, "an-id \u2713")
    assert run.arguments(print) == ((1, (2, "x")), {"three": {3}})
    assert order().arguments(print) == ((), {})


def test_what_is_current_says_what_the_order_said(order):
    current = order().current()
    assert (current.id, current.name, current.attempt) == ("an-id \u2713", "tests.name", 2)
    assert current.deadline is None
    assert current.remaining() is None


def test_what_is_current_stays_the_same(order):
    run = order(limit=5)
    assert run.pen is None, "nobody has asked yet"
    assert run.current() is run.current()
    assert run.pen is run.current().progress


def test_the_deadline_counts_from_the_start_whenever_it_is_asked_for(order, monkeypatch):
    # given a task with a limit of 10 seconds
    clock = Clock(monkeypatch)
    run = order(limit=10)
    # if it asks for its deadline 4 seconds after its start
    clock.now += 4
    # expect the end of its limit, 6 seconds from now
    assert run.current().deadline == pytest.approx(1010)


def test_the_pen_writes_under_the_runs_number(order, sent):
    order().current().progress.update(5, target=10, message="half")
    assert sent == [(7, (5, 10, "half"))]
