"""Latches: waited for from greenlets, hubs and native threads of every sort."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref

import gevent
import pytest
from gevent.event import Event

from gtaskman.errors import ForkedManagerError, GTaskmanError, WouldBlockError
from gtaskman.latch import Latch, foreign

pytestmark = pytest.mark.quick

PATIENCE = 5


class Native:
    """A call on a native thread, with or without a hub of its own there."""

    def __init__(self, call, hub=False):
        self._call, self._hub = call, hub
        self.begun = threading.Event()
        self.result = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self.begun.wait(PATIENCE)

    def _run(self):
        if self._hub:
            gevent.get_hub()
        self.begun.set()
        try:
            self.result = self._call()
        except BaseException as error:
            self.result = error
        if self._hub:
            gevent.get_hub().destroy(destroy_loop=True)

    @property
    def alive(self):
        return self._thread.is_alive()

    def join(self):
        """The call's result; this thread's hub runs meanwhile, as an application's does."""
        with gevent.Timeout(PATIENCE):
            while self._thread.is_alive():
                gevent.sleep(0.001)
        return self.result


def until_waited_for(latch, count=1):
    """Let others run until so many wait at the latch."""
    with gevent.Timeout(PATIENCE, AssertionError("nobody waits")):
        while len(latch._waiters or ()) < count:
            gevent.sleep(0.001)


def spin(seconds):
    """Compute, so that the hub stands still."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


@pytest.fixture
def latch():
    return Latch()


# --- opening


def test_a_new_latch_is_closed_and_an_open_one_stays_open(latch):
    assert not latch.done()
    assert not latch.ready()
    latch.open()
    latch.open()
    assert latch.done()
    assert latch.ready()
    assert latch.wait() is True
    assert latch.wait(0) is True


def test_many_greenlets_wait_for_one_latch(latch):
    waiters = [gevent.spawn(latch.wait) for _ in range(10)]
    until_waited_for(latch, 10)
    latch.open()
    gevent.joinall(waiters, timeout=PATIENCE)
    assert [each.value for each in waiters] == [True] * 10


def test_whoever_waits_is_woken_by_a_callback_of_the_hub(latch):
    gevent.get_hub().loop.run_callback(latch.open)
    assert latch.wait(PATIENCE) is True


def test_opening_does_not_switch_away_from_the_opener(latch):
    # given a greenlet that waits
    seen = []
    waiter = gevent.spawn(lambda: (latch.wait(), seen.append("woken")))
    until_waited_for(latch)
    # if another greenlet opens the latch
    latch.open()
    # expect that one to go on first
    assert seen == []
    waiter.join(PATIENCE)
    assert seen == ["woken"]


# --- time-outs


@pytest.mark.parametrize("timeout", [0, 0.02, -1])
def test_a_wait_ends_with_its_time(latch, timeout):
    begun = time.monotonic()
    assert latch.wait(timeout) is False
    assert max(timeout, 0) * 0.9 <= time.monotonic() - begun < PATIENCE
    assert not latch._waiters, "nothing is left behind"


def test_a_wait_is_not_cut_short_by_a_hub_that_stood_still(latch):
    # given a program that computes for longer than it is about to wait
    gevent.idle()
    spin(0.1)
    begun = time.monotonic()
    # expect the time of the wait to begin with the wait
    assert latch.wait(0.05) is False
    assert time.monotonic() - begun >= 0.049


@pytest.mark.parametrize("hub", [False, True], ids=["bare", "with a hub"])
def test_a_wait_of_a_native_thread_ends_with_its_time(latch, hub):
    assert Native(lambda: latch.wait(0.02), hub).join() is False
    assert Native(lambda: latch.wait(0), hub).join() is False
    assert not latch._waiters


def test_a_wait_with_time_left_is_ended_by_the_opening(latch):
    waiter = gevent.spawn(latch.wait, PATIENCE)
    until_waited_for(latch)
    latch.open()
    assert waiter.get(timeout=PATIENCE / 2) is True


def test_gevents_own_timeout_ends_a_wait(latch):
    with pytest.raises(gevent.Timeout), gevent.Timeout(0.01):
        latch.wait()
    assert not latch._waiters


# --- native threads and other hubs


@pytest.mark.parametrize("timeout", [None, PATIENCE], ids=["for ever", "with a limit"])
@pytest.mark.parametrize("hub", [False, True], ids=["bare", "with a hub"])
def test_native_threads_are_woken_from_here(latch, hub, timeout):
    waiters = [Native(lambda: latch.wait(timeout), hub) for _ in range(3)]
    until_waited_for(latch, 3)
    gevent.sleep(0.01)
    assert [each.result for each in waiters if not each.alive] == []
    latch.open()
    assert [each.join() for each in waiters] == [True] * 3


@pytest.mark.parametrize("hub", [False, True], ids=["bare", "with a hub"])
def test_this_hub_is_woken_from_a_native_thread(latch, hub):
    waiters = [gevent.spawn(latch.wait) for _ in range(3)]
    until_waited_for(latch, 3)
    Native(latch.open, hub)
    assert latch.wait(PATIENCE) is True
    gevent.joinall(waiters, timeout=PATIENCE)
    assert [each.value for each in waiters] == [True] * 3


def test_this_hub_waits_for_a_native_thread_though_nothing_else_goes_on(latch):
    def open_when_waited_for():
        end = time.monotonic() + PATIENCE
        while not latch._waiters and time.monotonic() < end:
            time.sleep(0.001)
        time.sleep(0.02)
        latch.open()

    opener = threading.Thread(target=open_when_waited_for, daemon=True)
    opener.start()
    assert latch.wait() is True
    opener.join(PATIENCE)


def test_two_hubs_wait_side_by_side_and_each_goes_on_meanwhile(latch):
    # given a second hub with a greenlet that waits and one that goes on
    turns = []

    def other_hub():
        waiter = gevent.spawn(latch.wait)
        while not waiter.ready():
            turns.append(1)
            gevent.sleep(0.001)
        return waiter.value

    other = Native(other_hub, hub=True)
    here = gevent.spawn(latch.wait)
    until_waited_for(latch, 2)
    before = len(turns)
    with gevent.Timeout(PATIENCE):
        while len(turns) < before + 3:
            gevent.sleep(0.001)
    # if it is opened by a third thread
    Native(latch.open)
    # expect both to be woken
    assert here.get(timeout=PATIENCE) is True
    assert other.join() is True


def test_opening_races_with_whoever_comes_to_wait():
    # given native threads, bare and with hubs, that come to wait at many latches, one after another
    latches = [Latch() for _ in range(300)]

    def wait_for_all():
        return all(each.wait(PATIENCE) for each in latches)

    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        waiters = [Native(wait_for_all, hub=at % 2 == 1) for at in range(6)]

        # if one thread opens them as fast as it can, and one of every two is opened twice
        def open_all():
            for latch in latches:
                latch.open()

        openers = [Native(open_all), Native(open_all)]
        # expect nobody to be forgotten
        assert wait_for_all()
        assert [each.join() for each in waiters] == [True] * 6
        assert [each.join() for each in openers] == [None] * 2
    finally:
        sys.setswitchinterval(switch)


def test_links_of_many_threads_race_with_the_opening():
    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    called = []
    try:
        for _ in range(100):
            latch = Latch()
            linkers = [Native(lambda latch=latch: latch.wait(PATIENCE)) for _ in range(2)]
            opener = Native(latch.open)
            latch.rawlink(called.append)
            assert [each.join() for each in (*linkers, opener)] == [True, True, None]
    finally:
        sys.setswitchinterval(switch)
    gevent.idle()
    assert len(called) == 100


# --- nothing is left behind


@pytest.mark.parametrize("error", [gevent.GreenletExit, gevent.Timeout(1)], ids=["kill", "timeout"])
def test_a_killed_waiter_leaves_nothing(latch, error):
    waiter = gevent.spawn(latch.wait)
    until_waited_for(latch)
    waiter.kill(error)
    alive = weakref.ref(waiter)
    del waiter
    gevent.idle()
    gc.collect()
    assert not latch._waiters
    assert alive() is None
    # if it is opened, expect that nobody is disturbed
    latch.open()
    gevent.idle()


def test_a_waiter_that_is_killed_just_before_the_opening_is_not_woken_elsewhere(latch):
    # given a waiter that goes to wait for something else when it is killed
    elsewhere, reached = Event(), []

    def wait():
        try:
            latch.wait()
        finally:
            reached.append(elsewhere.wait(0.02))

    waiter = gevent.spawn(wait)
    until_waited_for(latch)
    # if the latch opens in the same turn in which it is killed
    waiter.kill(block=False)
    latch.open()
    waiter.join(PATIENCE)
    # expect the late wake-up not to end that other wait
    assert reached == [False]


def test_a_thread_that_is_gone_with_its_hub_holds_nobody_up(latch):
    # given a native thread that has linked itself, and has ended since, with its hub
    Native(lambda: latch.rawlink(print), hub=True).join()
    here = gevent.spawn(latch.wait)
    until_waited_for(latch, 2)
    # if the latch opens
    latch.open()
    # expect the others to be woken all the same
    assert here.get(timeout=PATIENCE) is True


def test_a_collection_of_garbage_at_any_moment_does_not_deadlock():
    # given garbage that opens a latch when it is collected, which may be while another is waited
    # for: a map that was left halfway cancels its tasks like that
    script = """
        import faulthandler, gc
        from gtaskman.latch import Latch

        class Nobody:
            def wake(self, here):
                pass

        class Litter:
            def __init__(self, latch):
                self.latch, self.itself = latch, self

            def __del__(self):
                self.latch.open()

        faulthandler.dump_traceback_later(5, exit=True)
        gc.disable()
        for allocations in range(1, 60):
            latch, mine = Latch(), Latch()
            latch.watch(Nobody())
            gc.set_threshold(0)
            gc.collect()
            Litter(latch)
            gc.set_threshold(allocations, 1000, 1000)
            gc.enable()
            mine.rawlink(len)
            mine.rawlink(len)
            mine.unlink(len)
            gc.disable()
        print("alive")
    """
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.stdout == "alive\n", ran.stderr


# --- in a callback of the hub


def test_waiting_in_a_callback_of_the_hub_is_refused(latch):
    raised = []

    def callback():
        with pytest.raises(WouldBlockError, match="spawn") as caught:
            latch.wait()
        raised.append(caught.value)
        Latch.open(latch)
        raised.append(latch.wait())

    gevent.get_hub().loop.run_callback(callback)
    assert latch.wait(PATIENCE)
    gevent.idle()
    assert isinstance(raised[0], GTaskmanError)
    assert raised[1] is True, "an open latch takes no waiting"


# --- gevent's protocol


@pytest.mark.parametrize("opened", ["before", "after"])
def test_a_link_is_called_once_in_the_hub_and_never_at_once(latch, opened):
    called = []
    if opened == "before":
        latch.open()
    latch.rawlink(lambda source: called.append((source, gevent.getcurrent())))
    if opened == "after":
        latch.open()
    assert called == []
    gevent.idle()
    latch.open()
    gevent.idle()
    assert called == [(latch, gevent.get_hub())]


def test_a_link_is_called_in_the_hub_of_the_thread_that_made_it(latch):
    def link():
        called = []
        done = Event()
        latch.rawlink(lambda _: (called.append(threading.get_native_id()), done.set()))
        done.wait(PATIENCE)
        return called == [threading.get_native_id()]

    other = Native(link, hub=True)
    until_waited_for(latch)
    latch.open()
    assert other.join() is True


def test_links_are_taken_back_one_by_one(latch):
    called = []
    first, second = (lambda _: called.append(1)), (lambda _: called.append(2))
    for callback in (first, second, first):
        latch.rawlink(callback)
    latch.unlink(first)
    latch.unlink(print)
    latch.open()
    gevent.idle()
    assert sorted(called) == [1, 2]


def test_a_link_taken_back_after_the_opening_is_not_called(latch):
    # given an open latch whose links are about to be called
    called = []
    latch.rawlink(called.append)
    latch.open()
    # if one is taken back before it is
    latch.unlink(called.append)
    gevent.idle()
    # expect it not to be called, as with gevent's own
    assert called == []


def test_a_link_that_raises_disturbs_no_other(latch):
    called = []

    def fail(_):
        raise ValueError("raised by a link, on purpose")

    hub = gevent.get_hub()
    printed, hub.print_exception = hub.print_exception, lambda *args: None
    try:
        latch.rawlink(fail)
        latch.rawlink(called.append)
        waiter = gevent.spawn(latch.wait)
        until_waited_for(latch, 3)
        latch.open()
        assert waiter.get(timeout=PATIENCE)
        gevent.idle()
    finally:
        hub.print_exception = printed
    assert called == [latch]


def test_gevent_waits_for_latches_as_for_its_own():
    latches = [Latch() for _ in range(3)]
    assert gevent.wait(latches, timeout=0.01) == []
    assert all(not each._waiters for each in latches), "nothing is left behind"
    latches[2].open()
    assert gevent.wait(latches, count=1, timeout=PATIENCE) == [latches[2]]
    gevent.spawn_later(0.01, latches[0].open)
    gevent.spawn_later(0.02, latches[1].open)
    arrived = list(gevent.iwait(latches, timeout=PATIENCE))
    assert arrived == [latches[2], latches[0], latches[1]]
    assert set(gevent.joinall(latches, timeout=PATIENCE)) == set(latches)


def test_latches_and_events_and_greenlets_are_waited_for_together(latch):
    event, greenlet = Event(), gevent.spawn(lambda: None)
    gevent.spawn(event.set)
    gevent.spawn(latch.open)
    together = [latch, event, greenlet]
    assert set(gevent.wait(together, timeout=PATIENCE)) == set(together)


# --- whose it is


def test_a_fork_is_told_whose_a_thing_is_and_what_to_do():
    error = foreign(1, "task x")
    assert isinstance(error, ForkedManagerError)
    assert "task x belongs to process 1," in str(error) and "Make a manager of your own" in str(
        error
    )


def test_an_error_of_a_raw_greenlet_does_not_reach_who_wakes_it():
    # given a raw greenlet that fails when it is woken, and others behind it
    latch, woken, errors = Latch(), [], []
    done = Latch()

    def fail():
        latch.wait()
        woken.append("raw")
        raise ValueError("on purpose")

    gevent.spawn_raw(fail)
    gevent.sleep(0)
    others = [gevent.spawn(latch.wait) for _ in range(2)]
    gevent.sleep(0)

    def wake():
        latch._opened = True
        try:
            latch.wake(at_once=True)
        except BaseException as error:
            errors.append(error)
        done.open()

    # if a callback of the hub wakes them at once
    gevent.get_hub().loop.run_callback(wake)
    assert done.wait(10)
    gevent.joinall(others, timeout=10)
    # expect the callback to be undisturbed, and all to be woken
    assert errors == []
    assert woken == ["raw"]
    assert [each.value for each in others] == [True, True]


def test_an_interrupt_while_waiters_are_woken_loses_none(monkeypatch):
    latch = Latch()
    greenlets = [gevent.spawn(latch.wait) for _ in range(3)]
    gevent.sleep(0)
    wake, calls = latch._waiters[1].wake, []

    class Interrupted:
        def wake(self, here, at_once):
            calls.append(at_once)
            if len(calls) == 1:
                raise KeyboardInterrupt
            wake(here, at_once)

    latch._waiters[1] = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        latch.open()
    gevent.joinall(greenlets, timeout=10)
    assert [each.value for each in greenlets] == [True] * 3


def test_a_fork_does_not_inherit_the_lock_of_another_thread():
    from gtaskman import latch as module

    held, release = threading.Event(), threading.Event()

    def hold():
        with module._guard:
            held.set()
            release.wait(10)

    threading.Thread(target=hold).start()
    assert held.wait(10)
    pid = os.fork()
    if pid == 0:
        signal.alarm(5)  # its default action ends a child that hangs
        Latch().watch(None)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    release.set()
    assert os.waitstatus_to_exitcode(status) == 0


class OfAnEndedThread(Latch):
    """What the hub of another thread was to open, which ends while others wait."""

    def _home(self):
        return object()

    def _stalled(self):
        raise GTaskmanError("it lived on a thread that has ended")


@pytest.mark.parametrize("wait", ["greenlet", "thread", "thread with a hub"])
def test_a_wait_that_would_never_end_is_ended(wait, monkeypatch):
    monkeypatch.setattr("gtaskman.latch._PATIENCE", 0.01)
    latch = OfAnEndedThread()
    if wait == "greenlet":
        with pytest.raises(GTaskmanError, match="has ended"):
            latch.wait()
    else:
        result = Native(latch.wait, hub=wait == "thread with a hub").join()
        assert isinstance(result, GTaskmanError)
