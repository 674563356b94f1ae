"""Events: everybody is told, in order, and nobody is held up."""

from __future__ import annotations

import logging

import gevent
import pytest
from gevent.event import Event

from gtaskman.errors import Cancelled
from gtaskman.events import Events

pytestmark = pytest.mark.quick

PATIENCE = 5


@pytest.fixture
def events():
    return Events()


def settle(events):
    """Emit a last event, and wait until it is delivered: those before it are, too."""
    delivered = Event()
    events.once("last of all", lambda _: delivered.set())
    events.emit("last of all", None)
    assert delivered.wait(PATIENCE), "events are not delivered any more"


def test_events_arrive_in_order_with_their_payloads(events):
    heard = []
    events.on("a", lambda payload: heard.append(("a", payload)))
    events.on("b", lambda payload: heard.append(("b", payload)))
    for at in range(3):
        events.emit("a", at)
        events.emit("b", at)
    assert heard == [], "emit returns before anybody is called"
    settle(events)
    assert heard == [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2), ("b", 2)]


def test_callbacks_of_one_event_are_called_in_the_order_of_their_coming(events):
    heard = []
    for at in range(5):
        events.on("a", lambda _, at=at: heard.append(at))
    events.emit("a", None)
    settle(events)
    assert heard == [0, 1, 2, 3, 4]


def test_an_event_that_nobody_listens_to_is_nobodys(events):
    heard = []
    events.emit("a", 1)
    events.on("a", heard.append)
    events.emit("b", 2)
    settle(events)
    assert heard == []


def test_once_is_once_even_if_events_come_faster_than_they_are_delivered(events):
    heard = []
    events.once("a", heard.append)
    events.emit("a", 1)
    events.emit("a", 2)
    settle(events)
    events.emit("a", 3)
    settle(events)
    assert heard == [1]


def test_once_does_not_take_away_what_is_there_for_good(events):
    # given one callback that listens for good and, besides, once
    heard = []
    events.on("a", heard.append)
    events.once("a", heard.append)
    # if two events come
    events.emit("a", 1)
    events.emit("a", 2)
    settle(events)
    # expect the second to be heard too
    assert heard == [1, 1, 2]


def test_off_takes_one_callback_or_all_of_them(events):
    heard = []
    first, second = (lambda x: heard.append((1, x))), (lambda x: heard.append((2, x)))
    for callback in (first, second, first):
        events.on("a", callback)
    events.on("b", first)
    events.off("a", first)
    events.emit("a", "one left")
    settle(events)
    events.off("a")
    events.emit("a", "none left")
    events.emit("b", "another event's stays")
    events.off("never heard of")
    events.off("a", first)
    settle(events)
    assert heard == [(2, "one left"), (1, "another event's stays")]


def test_off_holds_for_events_that_are_on_their_way(events):
    heard = []
    events.on("a", heard.append)
    events.emit("a", 1)
    events.off("a", heard.append)
    settle(events)
    assert heard == []


def test_bound_methods_are_known_again(events):
    class Listener:
        heard = 0

        def listen(self, _):
            self.heard += 1

    listener = Listener()
    events.on("a", listener.listen)
    events.off("a", listener.listen)
    events.emit("a", None)
    settle(events)
    assert listener.heard == 0


@pytest.mark.parametrize(
    "error",
    [ValueError("on purpose"), gevent.Timeout(1), Cancelled("on purpose")],
    ids=lambda e: type(e).__name__,
)
def test_a_callback_that_raises_is_logged_and_disturbs_nothing(events, caplog, error):
    # given a callback that raises whatever can be raised, between two others
    heard = []

    def fail(_):
        raise error

    for callback in (heard.append, fail, heard.append):
        events.on("a", callback)
    # if its event comes twice
    with caplog.at_level(logging.ERROR, "gtaskman"):
        events.emit("a", 1)
        events.emit("a", 2)
        # expect the others to hear both, and the log to tell
        settle(events)
    assert heard == [1, 1, 2, 2]
    assert len(caplog.records) == 2
    assert "'a'" in caplog.text
    assert type(error).__name__ in caplog.text


def test_a_callback_that_waits_delays_only_what_comes_later(events):
    gate, heard = Event(), []

    def wait(payload):
        gate.wait(PATIENCE)
        heard.append(("waited", payload))

    events.on("a", wait)
    events.on("a", lambda payload: heard.append(("next", payload)))
    events.emit("a", 1)
    gevent.idle()
    # given a callback that waits, expect the emitter to go on
    events.emit("a", 2)
    assert heard == []
    gate.set()
    settle(events)
    assert heard == [("waited", 1), ("next", 1), ("waited", 2), ("next", 2)]


def test_callbacks_may_emit_and_listen(events):
    heard = []

    def first(payload):
        events.on("b", heard.append)
        events.emit("b", payload + 1)
        events.off("a", first)

    events.on("a", first)
    events.emit("a", 1)
    events.emit("a", 5)
    settle(events)
    settle(events)
    assert heard == [2]


@pytest.mark.parametrize("register", [Events.on, Events.once])
def test_what_cannot_be_called_is_refused_at_once(events, register):
    with pytest.raises(TypeError, match=r"'a'.*callable.*'text'"):
        register(events, "a", "text")


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_a_callback_that_ends_the_process_reaches_the_main_greenlet_and_events_go_on(events, error):
    # given a callback that raises what is for the main greenlet
    heard = []

    def leave(_):
        raise error

    events.once("a", leave)
    events.emit("a", 1)
    with pytest.raises(error):
        gevent.sleep(PATIENCE)
    # expect later events to be delivered all the same
    events.on("a", heard.append)
    events.emit("a", 2)
    settle(events)
    assert heard == [2]


@pytest.mark.parametrize("waits", [False, True], ids=["before it begins", "in a callback"])
def test_a_kill_of_the_dispatcher_loses_no_later_event(events, waits):
    gate, heard = Event(), []
    events.on("a", lambda _: gate.wait(PATIENCE))
    events.on("b", heard.append)
    events.emit("a", 1)
    events.emit("b", 1)
    if waits:
        gevent.sleep(0)
    events._loop._greenlet.kill(block=False)
    gate.set()
    settle(events)
    assert heard == [1]


def test_callbacks_of_a_task_that_were_added_after_its_end_are_kept(events):
    # given a task that has ended, and whose end is not delivered yet
    first, second = [], []
    events.on("done-mine", first.append)
    events.emit("done-mine", 1)
    events.forget_after(["done-mine"])
    # if a callback is added for the next task of that id
    events.on("done-mine", second.append)
    settle(events)
    events.emit("done-mine", 2)
    events.forget_after(["done-mine"])
    settle(events)
    # expect the second task to be delivered to that one, and no callback to be left
    assert (first, second) == ([1], [1, 2])
    assert events.callbacks == {}
