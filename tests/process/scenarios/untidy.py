"""Tasks that leave something behind, fork, or do odd things while their result is encoded."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import gevent
from gevent import monkey

import gtaskman
from scenarios import work
from scenarios.work import _of_both_kinds as of_both_kinds_of_work

original_sleep = monkey.get_original("time", "sleep")


def of_both_kinds(function):
    """As in ``work``, with the twin in this module."""
    made = of_both_kinds_of_work(function)
    name = f"{function.__name__}_async"
    globals()[name] = work.__dict__.pop(name)
    return made


def of(kind, name):
    """The task function ``name`` of this kind."""
    return globals()[name if kind == "sync" else f"{name}_async"]


def words(path):
    """What the file says so far."""
    try:
        return Path(path).read_text().split()
    except FileNotFoundError:
        return []


# --- left behind


@of_both_kinds
def leave_timeout(seconds):
    gevent.Timeout.start_new(seconds)
    return "left"


@gtaskman.task
def leave_greenlet():
    """Leave what keeps a watcher active and harms nobody."""
    gevent.spawn(gevent.sleep, 600)
    return "left"


@gtaskman.task
def leave_throw(seconds):
    """Leave a timer that throws into this greenlet, and is no Timeout."""
    timer = gevent.get_hub().loop.timer(seconds)
    timer.start(gevent.getcurrent().throw, LookupError("stray"))
    return "left"


def _raise_alarm(*_):
    raise LookupError("alarm")


@of_both_kinds
def leave_alarm(seconds, handled):
    if handled:
        signal.signal(signal.SIGALRM, _raise_alarm)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    return "left"


@gtaskman.task
def leave_bell():
    """Leave a handler in the place of the worker's own."""
    signal.signal(signal.SIGURG, signal.SIG_IGN)
    return "left"


@of_both_kinds
def leave_exit(path):
    """Leave a greenlet that ends with SystemExit when the file is there."""

    def wait():
        while not os.path.exists(path):
            gevent.sleep(0.005)
        work.mark(path, "exits")
        sys.exit(4)

    gevent.spawn(wait)
    return "left"


@of_both_kinds
def wait_for(path, text):
    """Wait cooperatively until the file has this line."""
    with gevent.Timeout(60):
        while text not in words(path):
            gevent.sleep(0.005)
    return "came"


@of_both_kinds
def say(text):
    """Print; what is printed must not wait for the next task."""
    print(text)
    return text


# --- native threads


@gtaskman.task(kind="async")
def write_from_threads(threads, updates, message):
    pen = gtaskman.current().progress

    def write():
        for number in range(updates):
            pen.update(number, message=message)

    pool = gevent.get_hub().threadpool
    gevent.joinall([pool.spawn(write) for _ in range(threads)], raise_error=True)
    pen.update(updates, message="last")
    return "written"


@of_both_kinds
def write_last_from_thread():
    """The last update comes from a thread, and the task ends at once."""
    pen = gtaskman.current().progress
    thread = threading.Thread(target=pen.update, args=(7,), kwargs={"message": "by a thread"})
    thread.start()
    thread.join()
    return "written"


@gtaskman.task
def write_from_thread_of_a_blocked_task(path):
    """Keep the hub from running until the file is there; a thread writes progress meanwhile."""
    pen = gtaskman.current().progress
    thread = threading.Thread(target=pen.update, args=(3,), kwargs={"message": "meanwhile"})
    thread.start()
    while not os.path.exists(path):
        original_sleep(0.005)
    return "unblocked"


# --- forks


@of_both_kinds
def fork(how, path):
    """Fork; the child notes that it lives and ends in this way. Gives the child's exit code."""
    pid = os.fork()
    if pid == 0:
        work.mark(path, f"child {os.getpid()}")
        if how == "exit":
            sys.exit(5)
        if how == "exit with words":
            sys.exit("a reason")
        if how == "raise":
            raise LookupError("in the fork")
        if how == "wait":
            gevent.sleep(0.05)
        return "a result of the fork"
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


@of_both_kinds
def number(value):
    return value, os.getpid()


# --- the recursion limit


@gtaskman.task
def compute_near_the_recursion_limit(room, seconds, begun):
    """Spin ``room`` frames below the limit."""
    work.mark(begun)
    limit = sys.getrecursionlimit()

    def down(left):
        return down(left - 1) if left else spin()

    def spin():
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pass
        return "computed"

    here = len(_frames())
    return down(limit - here - room), sys.getrecursionlimit() == limit


def _frames():
    frame, found = sys._getframe(), []
    while frame is not None:
        found.append(frame)
        frame = frame.f_back
    return found


# --- odd results and exceptions


class ExitsWhenPickled:
    def __init__(self, how):
        self.how = how

    def __reduce__(self):
        raise {"exit": SystemExit(3), "interrupt": KeyboardInterrupt(), "base": Base("b")}[self.how]


class Base(BaseException):
    pass


class OddError(Exception):
    """Raises when it is printed or pickled."""

    def __init__(self, how):
        super().__init__(how)
        self.how = how

    def __str__(self):
        if self.how == "str":
            raise SystemExit(3)
        return "odd"

    def __reduce__(self):
        if self.how == "reduce":
            raise SystemExit(3)
        return super().__reduce__()


@of_both_kinds
def give_odd(how):
    return ExitsWhenPickled(how)


@of_both_kinds
def raise_odd(how):
    if how == "surrogate":
        raise ValueError("cannot open caf\udce9.txt")
    if how == "name":
        raise type("N" * 2_000_000, (Exception,), {})("named")
    raise OddError(how)


class WaitsWhenPickled:
    """Waits cooperatively while it is pickled, as a database's query set does."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        work.mark(self.path)
        gevent.sleep(60)
        return WaitsWhenPickled, (self.path,)


@of_both_kinds
def give_slow(path):
    return WaitsWhenPickled(path)


class WaitsWhenDecoded:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return _decode_slowly, (self.path,)


def _decode_slowly(path):
    work.mark(path)
    with gevent.Timeout(60):
        while "go" not in words(path):
            gevent.sleep(0.005)
    return path


@of_both_kinds
def touch(path):
    work.mark(path, "ran")
    return "ran"


@of_both_kinds
def raise_signal():
    """Interrupt this task by the doorbell, as the manager does."""
    for _ in range(100):
        signal.raise_signal(signal.SIGURG)
    return "rung"


@of_both_kinds
def fail_with_message(message):
    gtaskman.current().progress.update(40, message="on its way")
    gtaskman.current().progress.fail(LookupError("the reason"), message=message)
