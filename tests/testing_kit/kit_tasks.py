"""The tasks of these tests. Workers import this; it does nothing by that."""

from __future__ import annotations

import contextvars
import decimal
import os
import sys
import threading

import gtaskman

VARIABLE = contextvars.ContextVar("VARIABLE", default="as it was defined")


class Odd(Exception):
    def __init__(self, code, text):
        super().__init__(code, text)
        self.code = code


class Unportable(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


class Point:
    def __init__(self, x):
        self.x = x

    def __eq__(self, other):
        return type(other) is Point and other.x == self.x

    __hash__ = None


VALUES = [
    None,
    (1, [2, {3: (4,)}]),
    {1, 2},
    2**200,
    decimal.Decimal("1.10"),
    b"x" * 200_000,
    bytearray(b"y" * 200_000),
    Point(5),
    "ä" * 1000,
]


def double(number):
    return number * 2


def same(value):
    return value


def nothing():
    return None


def pid():
    return os.getpid()


def change(values):
    values.append("changed")
    return values


def odd(code):
    raise Odd(code, "odd")


def unportable():
    raise Unportable(1, 2)


def a_lock():
    return threading.Lock()


def leave():
    sys.exit(3)


def stop_itself():
    raise gtaskman.Cancelled("by itself")


def variable():
    return VARIABLE.get()


def fail_at(number, bad):
    if number == bad:
        raise ValueError(number)
    return number


class NotHere:
    """Cannot be unpickled anywhere."""

    def __init__(self, error):
        self.error = error

    def __reduce__(self):
        return refuse, (self.error,)


def refuse(error):
    raise error


def make_not_here(error):
    return NotHere(error)


@gtaskman.task
def annotated(number: int, *, more: str = "") -> str:
    return f"{number}{more}"


@gtaskman.task(retries=2, backoff=0)
def third_time(how):
    here = gtaskman.current()
    if here.attempt < 3 or how == "never":
        raise ValueError(f"attempt {here.attempt}")
    return here.attempt, here.name, here.id


@gtaskman.task(timeout=50)
def about_itself():
    here = gtaskman.current()
    return here.id, here.name, here.attempt, here.deadline is not None


@gtaskman.task(kind="async")
def beside(number):
    return number + 1


class Steps(gtaskman.Task):
    """Writes with its pen, and ends as it is told."""

    how: str = "returns"
    number: int = 1

    def run(self, progress):
        progress.update(1, target=2, message="half")
        if self.how == "finishes":
            progress.finish("finished")
        elif self.how == "fails":
            progress.fail(Odd(self.number, "failed"))
        elif self.how == "fails in words":
            progress.fail("in words")
        elif self.how == "defers":
            threading.Timer(0.02, progress.finish, ["deferred"]).start()
            return progress.defer()
        elif self.how == "waits":
            while True:
                progress.update(1)
                threading.Event().wait(0.001)
        return "returned"


class Service(gtaskman.ServiceTask):
    def run(self, progress):
        pass
