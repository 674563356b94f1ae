"""What the process tests run in workers.

A task that a test has to meet while it runs says so with :func:`announce`: a progress report that
carries its pid. Tasks that exist in both kinds are had from :func:`of`.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import stat
import sys
import threading
import time
import types
import zlib
from typing import Any

import gevent
from gevent import monkey

import gtaskman

original_sleep = monkey.get_original("time", "sleep")


def _of_both_kinds(function: types.FunctionType) -> Any:
    """Make ``function`` a sync task, and a twin of it named ``<name>_async`` an async one."""
    twin = types.FunctionType(
        function.__code__,
        function.__globals__,
        f"{function.__name__}_async",
        function.__defaults__,
        function.__closure__,
    )
    twin.__qualname__ = twin.__name__
    twin.__module__ = function.__module__
    twin.__annotations__ = function.__annotations__
    globals()[twin.__name__] = gtaskman.task(kind="async")(twin)
    return gtaskman.task(function)


def of(kind: str, name: str) -> Any:
    """The task function ``name`` of this kind."""
    return globals()[name if kind == "sync" else f"{name}_async"]


def announce() -> None:
    """Say that this task runs, and where."""
    gtaskman.current().progress.update(0, message=str(os.getpid()))


def mark(path: str, text: str = "x") -> None:
    """Add a line to a file; what several processes add is never mixed."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(fd, f"{text}\n".encode())
    finally:
        os.close(fd)


# --- harmless ones


@_of_both_kinds
def add(a, b):
    return a + b


@_of_both_kinds
def whoami():
    return os.getpid()


@_of_both_kinds
def echo(value=None):
    return value


@_of_both_kinds
def leave_mark(path, text="x"):
    mark(path, text)
    return os.getpid()


@_of_both_kinds
def know_myself():
    me = gtaskman.current()
    return me.id, me.name, me.attempt, me.deadline, time.time(), me.remaining()


@_of_both_kinds
def stay(path, seconds):
    """Say when it begins and ends; of async tasks, which share a worker, nobody asks for that."""
    sync = gtaskman.current().name.endswith("stay")
    if sync:
        mark(path, f"begin {time.monotonic()}")
    gevent.sleep(seconds)
    if sync:
        mark(path, f"end {time.monotonic()}")
    return os.getpid()


# --- ones that take their time


@_of_both_kinds
def spin(seconds=60.0):
    """Compute without a pause."""
    announce()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return "spun"


@_of_both_kinds
def compute(seconds=0.0):
    """The same, and say nothing."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return os.getpid()


@_of_both_kinds
def nap(seconds=60.0):
    """Wait cooperatively."""
    announce()
    gevent.sleep(seconds)
    return "rested"


@_of_both_kinds
def rest(seconds=0.0):
    """The same, and say nothing."""
    gevent.sleep(seconds)
    return os.getpid()


@_of_both_kinds
def block(seconds=60.0):
    """Wait in the kernel, and keep the hub from running."""
    announce()
    original_sleep(seconds)
    return "blocked"


@_of_both_kinds
def tidy(path, seconds=60.0):
    """Clean up when it is stopped; not to be stopped by catching ``Exception``."""
    try:
        try:
            announce()
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                pass
        except Exception:
            mark(path, "caught as an Exception")
    finally:
        mark(path, "cleaned")


@_of_both_kinds
def stubborn(seconds=60.0):
    """Compute, and swallow every wish that it may stop."""
    said, end = False, time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if not said:
                # In here: it may be told to stop as soon as it has said that it runs.
                said = True
                announce()
            while time.monotonic() < end:
                pass
        except (gtaskman.Cancelled, gtaskman.SoftTimeout):
            pass
    return "stubborn"


@_of_both_kinds
def settle_for_less(seconds=60.0):
    """Give what there is when the soft limit comes."""
    announce()
    try:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pass
    except gtaskman.SoftTimeout:
        return "less"
    return "all"


@_of_both_kinds
def settle_for_less_resting(seconds=60.0):
    announce()
    try:
        gevent.sleep(seconds)
    except gtaskman.SoftTimeout:
        return "less"
    return "all"


class SlowToArrive:
    """Takes a while to be decoded, without a pause."""

    def __init__(self, path: str, seconds: float) -> None:
        self.path, self.seconds = path, seconds

    def __getstate__(self):
        return self.path, self.seconds

    def __setstate__(self, state):
        self.path, self.seconds = state
        mark(self.path, "decoding")
        end = time.monotonic() + self.seconds
        while time.monotonic() < end:
            pass


@_of_both_kinds
def take_slow(value, seconds=60.0):
    mark(value.path, "began")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return "done"


@_of_both_kinds
def hold_until(path):
    """Wait, cooperatively, until there is such a file."""
    while not os.path.exists(path):
        gevent.sleep(0.005)
    return os.getpid()


@gtaskman.task
def stay_until(path):
    """The same, and say that it runs."""
    announce()
    return hold_until(path)


@_of_both_kinds
def outlast_its_limit(path):
    """When it is stopped, clean up until well after its own time limit."""
    try:
        announce()
        gevent.sleep(60)
    finally:
        try:
            while gtaskman.current().remaining() > 0:
                gevent.sleep(0.01)
            gevent.sleep(0.3)
        except BaseException as error:
            mark(path, f"interrupted by {error!r}")
            raise
        mark(path, "cleaned")


# --- ones that end badly


class Custom(Exception):
    """Keeps attributes that its arguments do not tell."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text, code)
        self.text, self.code = text, code


class NoWayBack(Exception):
    """Pickles, but cannot be built again from what was pickled."""

    def __init__(self, one, two, three):
        self.parts = one, two, three
        super().__init__("only one argument")


class NoWayOut(Exception):
    """Cannot be pickled."""

    def __init__(self, text):
        super().__init__(text)
        self.lock = threading.Lock()


class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError("no")


@_of_both_kinds
def fail_with_attributes():
    error = Custom("went wrong", 42)
    error.extra = {"more": [1, 2]}
    raise error


@_of_both_kinds
def fail_for_a_reason():
    try:
        {}["missing"]
    except KeyError as error:
        raise ValueError("because") from error


@_of_both_kinds
def fail(what):
    errors = {
        "no way back": lambda: NoWayBack(1, 2, 3),
        "no way out": lambda: NoWayOut("cannot leave"),
        "unprintable": Unprintable,
        "exit": lambda: SystemExit(3),
        "interrupt": lambda: KeyboardInterrupt("hands off"),
        "greenlet exit": lambda: gevent.GreenletExit("enough"),
        "base": lambda: BaseException("bare"),
        "stop iteration": lambda: StopIteration(5),
        "large": lambda: ValueError("x" * 3_000_000),
    }
    raise errors[what]()


@_of_both_kinds
def fail_until(path, attempts):
    """Fail before the attempt with this number."""
    mark(path)
    if gtaskman.current().attempt < attempts:
        raise ValueError(f"attempt {gtaskman.current().attempt}")
    return gtaskman.current().attempt


@_of_both_kinds
def die(how, path=""):
    if path:
        mark(path)
    if how == "exit":
        os._exit(7)
    if how == "segv":
        ctypes.string_at(0)
    signum = getattr(signal, f"SIG{how.upper()}")
    os.kill(os.getpid(), signum)
    original_sleep(60)


@_of_both_kinds
def die_until(path, attempts):
    mark(path)
    if gtaskman.current().attempt < attempts:
        os._exit(9)
    return gtaskman.current().attempt


@_of_both_kinds
def dawdle_until(path, attempts):
    mark(path)
    if gtaskman.current().attempt < attempts:
        gevent.sleep(60)
    return gtaskman.current().attempt


@gtaskman.task
def use_memory(size, limit):
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    try:
        return len(bytearray(size))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


@gtaskman.task
def grow(size):
    """Keep so many bytes for ever."""
    _kept.append(bytearray(os.urandom(1)) * size)
    return os.getpid()


_kept: list[Any] = []


@gtaskman.task(at_most_once=True)
def once(path, text="x", seconds=0.0):
    mark(path, text)
    announce()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return text


@gtaskman.task(kind="async", at_most_once=True)
def once_async(path, text="x", seconds=0.0):
    mark(path, text)
    announce()
    gevent.sleep(seconds)
    return text


def _die_soon(seconds):
    def strike():
        original_sleep(seconds)
        os.kill(os.getpid(), signal.SIGKILL)

    monkey.get_original("_thread", "start_new_thread")(strike, ())


def _die_while_sending(path, size):
    mark(path)
    result = bytearray(size)
    # Whoever reads the result needs much longer than this for so much.
    _die_soon(0.01)
    return result


@gtaskman.task(at_most_once=True)
def die_while_sending_once(path, size):
    return _die_while_sending(path, size)


@gtaskman.task
def die_while_sending(path, size):
    return _die_while_sending(path, size)


# --- ones that misuse the pipe


def pipe_of_worker():
    """The descriptor of this worker's pipe: its only stream socket."""
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        try:
            if fd > 2 and stat.S_ISSOCK(os.fstat(fd).st_mode):
                return fd
        except OSError:
            continue
    raise LookupError("no socket")


@_of_both_kinds
def close_pipe():
    # A patched one waits until the hub lets go of it.
    monkey.get_original("os", "close")(pipe_of_worker())
    gevent.sleep(60)


@_of_both_kinds
def write_to_pipe(data, seconds=60.0):
    os.write(pipe_of_worker(), data)
    gevent.sleep(seconds)
    return "unharmed"


# --- results


@_of_both_kinds
def give(size):
    return b"\x5a" * size


@_of_both_kinds
def give_what_cannot_travel():
    return threading.Lock()


class NoWayIn:
    """Pickles in the worker, and cannot be built again in the application."""

    def __reduce__(self):
        return _build_elsewhere, (os.getpid(),)


def _build_elsewhere(pid):
    if os.getpid() == pid:
        return NoWayIn()
    raise RuntimeError("it cannot be built here")


@_of_both_kinds
def give_what_cannot_arrive():
    return NoWayIn()


@_of_both_kinds
def round_trip(value, type_name):
    """Give the value back, if it has come as what it was."""
    assert type(value).__name__ == type_name, (type(value).__name__, type_name)
    return value


@_of_both_kinds
def check_sum(data, size, expected):
    """Look at every byte, and give it back."""
    view = memoryview(data).cast("B")
    assert len(view) == size
    assert zlib.crc32(view) == expected
    return data


# --- progress


@_of_both_kinds
def report_steps(steps):
    pen = gtaskman.current().progress
    for step in range(1, steps + 1):
        pen.update(step, target=steps, message=f"step {step}")
    return steps


@_of_both_kinds
def report_then_spin(seconds):
    pen = gtaskman.current().progress
    pen.update(25, message="a quarter")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    pen.update(75, message="most")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return "spun"


@_of_both_kinds
def settle_with_pen(how):
    pen = gtaskman.current().progress
    if how == "finish":
        pen.finish("by pen")
        pen.finish("too late")
    elif how == "fail":
        pen.fail(Custom("by pen", 7), message="gave up")
        pen.finish("too late")
    elif how == "fail text":
        pen.fail("in words")
    return "by return"


class Later(gtaskman.AsyncTask):
    """A task made of callbacks: it ends after its ``run`` has returned."""

    seconds: float
    how: str

    def run(self, progress):
        def end():
            if self.how == "finish":
                progress.finish("later")
            else:
                progress.fail(ValueError("later"))

        gevent.spawn_later(self.seconds, end)
        return progress.defer()


class LaterSync(gtaskman.Task):
    seconds: float

    def run(self, progress):
        gevent.spawn_later(self.seconds, progress.finish, "later")
        return progress.defer()


@gtaskman.task(kind="async")
def keep_writing(seconds):
    """Leave a greenlet behind that still holds the pen."""
    pen = gtaskman.current().progress
    pen.update(1, message="first")

    def scribble():
        for number in range(1000):
            pen.update(number, message="after the end")
            gevent.sleep(seconds / 1000)

    gevent.spawn(scribble)
    return "ended"


# --- maps


def double(value):
    return value * 2


def refuse_thirteen(value):
    if value == 13:
        raise ValueError("thirteen")
    return value


def refuse_first(path_and_value):
    path, value = path_and_value
    if value == 0:
        raise ValueError("the first")
    original_sleep(0.05)
    mark(path, str(value))
    return value


def slow_first(value):
    if value == 0:
        original_sleep(0.5)
    return value


def modules_loaded(names):
    return [name for name in names if name in sys.modules]


@_of_both_kinds
def say(length):
    gtaskman.current().progress.update(1, message="x" * length)
    return "said"


@gtaskman.task
def open_files():
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            pass
    return found


@_of_both_kinds
def succeed_at(attempt):
    """Fail before this attempt; gives its number."""
    if gtaskman.current().attempt < attempt:
        raise ValueError("not yet")
    return gtaskman.current().attempt
