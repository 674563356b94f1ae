"""Alarms and deadlines, on a real loop."""

from __future__ import annotations

import gc
import threading
import time
import weakref

import gevent
import pytest
from gevent.event import Event

from gtaskman.pool.alarm import Alarm
from gtaskman.pool.deadlines import Deadlines

pytestmark = pytest.mark.quick

PATIENCE = 10
SOON = 0.01  # seconds


class Entry:
    """Something that is due some day, and knows whether it still matters."""

    def __init__(self, alive=True):
        self.alive = alive


@pytest.fixture
def fired():
    """What has fired, and a way to wait for it."""

    class Fired(list):
        event = Event()

        def __call__(self, entry):
            self.append((entry, time.monotonic()))
            self.event.set()

        @property
        def entries(self):
            return [entry for entry, _ in self]

        def until(self, count):
            with gevent.Timeout(PATIENCE):
                while len(self) < count:
                    self.event.wait()
                    self.event.clear()

    return Fired()


@pytest.fixture
def deadlines(fired):
    made = Deadlines(gevent.get_hub().loop, fired, lambda entry: entry.alive)
    yield made
    made.close()


def in_(seconds):
    return time.monotonic() + seconds


def test_they_fire_in_order_and_never_early(deadlines, fired):
    # given deadlines that were added in another order than they are due
    moments = {name: in_(SOON * at) for name, at in (("c", 3), ("a", 1), ("b", 2), ("a2", 1))}
    entries = {name: Entry() for name in moments}
    for name, when in moments.items():
        deadlines.add(when, entries[name])
    fired.until(4)
    assert fired.entries == [entries[name] for name in ("a", "a2", "b", "c")]
    names = {entry: name for name, entry in entries.items()}
    assert all(at >= moments[names[entry]] for entry, at in fired)


def test_one_that_is_over_already_fires_with_the_next_turn(deadlines, fired):
    deadlines.add(in_(-5), Entry())
    assert fired == [], "not before it is the loop's turn"
    fired.until(1)


def test_whoever_no_longer_matters_does_not_fire(deadlines, fired):
    dead, alive = Entry(), Entry()
    deadlines.add(in_(SOON), dead)
    deadlines.add(in_(2 * SOON), alive)
    dead.alive = False
    fired.until(1)
    assert fired.entries == [alive]


def test_a_closer_one_does_not_wait_for_those_before_it(deadlines, fired):
    far, close = Entry(), Entry()
    deadlines.add(in_(1000), far)
    deadlines.add(in_(SOON), close)
    fired.until(1)
    assert fired.entries == [close]


def test_after_all_have_fired_the_next_one_fires_too(deadlines, fired):
    deadlines.add(in_(SOON), Entry())
    fired.until(1)
    deadlines.add(in_(SOON), Entry())
    fired.until(2)


def test_closing_forgets_everything(deadlines, fired):
    late = Entry()
    deadlines.add(in_(SOON), late)
    deadlines.close()
    # if a later one fires that was added afterwards
    last = Entry()
    deadlines.add(in_(2 * SOON), last)
    fired.until(1)
    # expect the forgotten one to be silent
    assert fired.entries == [last]


def test_those_that_are_over_do_not_pile_up(deadlines):
    # given very many deadlines far away, nearly all of which matter no more
    gone = []
    for _ in range(5000):
        entry = Entry()
        gone.append(weakref.ref(entry))
        deadlines.add(in_(1000), entry)
        entry.alive = False
    del entry
    gc.collect()
    # expect them to have been let go
    assert sum(ref() is not None for ref in gone) < 200


def test_those_that_matter_survive_the_clearing(deadlines, fired):
    entries = [Entry(alive=at % 10 == 0) for at in range(1000)]
    for entry in entries:
        deadlines.add(in_(SOON), entry)
    fired.until(100)
    assert fired.entries == entries[::10]


def test_deadlines_added_while_others_fire_neither_repeat_nor_lose_any(fired):
    # given many deadlines of one moment, each of which adds some more, as warnings do
    def fire(entry):
        fired(entry)
        if entry in first:
            for _ in range(3):
                later.append(Entry())
                deadlines.add(in_(SOON), later[-1])

    first, later = [Entry() for _ in range(120)], []
    deadlines = Deadlines(gevent.get_hub().loop, fire, lambda entry: entry.alive)
    when = in_(SOON)
    for entry in first:
        deadlines.add(when, entry)
    # if all are over, a last one too
    fired.until(120)
    last = Entry()
    deadlines.add(in_(3 * SOON), last)
    with gevent.Timeout(PATIENCE):
        while last not in fired.entries:
            fired.event.wait()
            fired.event.clear()
    # expect each to have fired, and only once
    assert len(fired) == 120 + 360 + 1
    assert set(fired.entries) == {*first, *later, last}
    deadlines.close()


def test_whoever_closes_while_deadlines_fire_stops_the_rest(fired):
    def fire(entry):
        fired(entry)
        deadlines.close()

    deadlines = Deadlines(gevent.get_hub().loop, fire, lambda entry: True)
    for _ in range(3):
        deadlines.add(in_(0), Entry())
    fired.until(1)
    gevent.idle()
    assert len(fired) == 1


def test_deadlines_keep_no_loop_alive():
    # On a thread, and so a hub, of its own: other tests may have left something on ours.
    joined = []

    def run():
        hub = gevent.get_hub()
        deadlines = Deadlines(hub.loop, print, lambda entry: True)
        deadlines.add(in_(1000), Entry())
        joined.append(hub.join(timeout=PATIENCE))
        deadlines.close()
        hub.destroy(destroy_loop=True)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(2 * PATIENCE)
    assert joined == [True]


# --- the alarm beneath them


@pytest.fixture
def alarm():
    made = Alarm(gevent.get_hub().loop)
    yield made
    made.cancel()


def test_an_alarm_goes_off_once_and_can_be_set_again(alarm, fired):
    assert not alarm.armed
    alarm.set(SOON, fired, "first")
    assert alarm.armed
    fired.until(1)
    assert not alarm.armed
    alarm.set(SOON, fired, "second")
    fired.until(2)
    assert fired.entries == ["first", "second"]


def test_an_alarm_that_is_set_anew_forgets_what_was_set_before(alarm, fired):
    alarm.set(SOON, fired, "before")
    alarm.set(2 * SOON, fired, "instead")
    fired.until(1)
    assert fired.entries == ["instead"]


def test_a_cancelled_alarm_is_silent(alarm, fired):
    alarm.set(SOON, fired, "never")
    alarm.cancel()
    alarm.cancel()
    assert not alarm.armed
    other = Alarm(gevent.get_hub().loop)
    other.set(2 * SOON, fired, "other")
    fired.until(1)
    assert fired.entries == ["other"]


def test_an_alarm_is_not_cut_short_by_a_hub_that_stood_still(alarm, fired):
    # given a program that computes for longer than the alarm is set for
    gevent.idle()
    end = time.monotonic() + 0.1
    while time.monotonic() < end:
        pass
    begun = time.monotonic()
    alarm.set(0.05, fired, "in time")
    fired.until(1)
    # expect the alarm to count from when it was set
    assert time.monotonic() - begun >= 0.049


def test_an_alarm_may_set_itself_again_when_it_goes_off(alarm, fired):
    def again():
        fired("again")
        if len(fired) < 3:
            alarm.set(0, again)

    alarm.set(0, again)
    fired.until(3)
    assert not alarm.armed


def test_a_deadline_that_raises_does_not_keep_the_others_from_firing(fired, monkeypatch):
    # given three that are due in one turn and one that is due later, of which the first raises
    raised = []

    def fire(entry):
        fired(entry)
        if entry is entries[0]:
            raise RuntimeError("this one is broken")

    hub = gevent.get_hub()
    monkeypatch.setattr(hub, "handle_error", lambda *error: raised.append(error))
    deadlines = Deadlines(hub.loop, fire, lambda entry: True)
    entries = [Entry() for _ in range(4)]
    for entry in entries[:3]:
        deadlines.add(in_(-1), entry)
    deadlines.add(in_(SOON), entries[3])
    # then all of them fire, once each, and the error is not swallowed
    fired.until(4)
    assert fired.entries == entries
    assert len(raised) == 1
    deadlines.close()
