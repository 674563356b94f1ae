"""What the executors of these tests call. Every worker imports this; it does nothing by that."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from pathlib import Path

import gtaskman

PATIENCE = 30.0


def square(number):
    return number * number


def add(one, two=0, *, more=0):
    return one + two + more


def divide(pair):
    one, two = pair
    return one / two


def pid():
    return os.getpid()


def capture(*args, **kwargs):
    return args, kwargs


def fail(message):
    raise RuntimeError(message)  # some comment


def mark(path, text=""):
    with open(path, "a") as file:
        file.write(f"{text}\n")


def hold(directory, name="gate", value=None):
    """Say that it has begun, wait for the gate to be opened, and give a value."""
    mark(Path(directory) / f"{name}.begun", os.getpid())
    end = time.monotonic() + PATIENCE
    while not (Path(directory) / name).exists():
        if time.monotonic() > end:
            raise TimeoutError(name)
        time.sleep(0.002)
    return value


def hold_or_fail(directory, number):
    if number == 1:
        raise ValueError("the second one")
    return hold(directory, "gate", number) if number else number


def note(directory, number):
    mark(Path(directory) / "noted", number)
    return number


@gtaskman.task(timeout=0.2)
def endless():
    while True:
        time.sleep(0.01)


@gtaskman.task(kind="async")
def beside(number):
    return number, prepared(), os.getpid()


# --- ways to die ---------------------------------------------------------------------------------


def crash():
    """Of a segmentation fault."""
    import faulthandler

    faulthandler.disable()
    ctypes.string_at(0)


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def leave():
    sys.exit(1)


def quit_at_once():
    os._exit(1)


def error():
    raise ValueError("when it was pickled")


WAYS = {each.__name__: each for each in (crash, kill, leave, quit_at_once, error)}


class PickledHere:
    """Does something while it is pickled."""

    def __init__(self, way):
        self.way = way

    def __reduce__(self):
        WAYS[self.way]()
        return square, (1,)


class Unpickled:
    """Does something while it is unpickled: where the marked process is not, if one is given."""

    def __init__(self, way, unless=None):
        self.way = way
        self.unless = unless

    def __reduce__(self):
        return unpickle, (self.way, self.unless)


def unpickle(way, unless):
    if os.getpid() != unless:
        WAYS[way]()
    return Unpickled(way, unless)


def give_pickled(way):
    return PickledHere(way)


def give_unpickled(way, unless):
    return Unpickled(way, unless)


class Odd(Exception):
    def __init__(self, code, text):
        super().__init__(code, text)
        self.code = code


class Unportable(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def raise_odd():
    raise Odd(7, "seven")


def raise_unportable():
    raise Unportable(1, 2)


class Traced:
    """An object that weak references can be made to."""

    def __init__(self, number=0):
        self.number = number

    def give(self):
        return self.number


# --- initializers --------------------------------------------------------------------------------

_prepared = ["not prepared", 0]


def prepare(value, directory=None):
    _prepared[0] = value
    _prepared[1] += 1
    if directory is not None:
        mark(Path(directory) / "prepared", os.getpid())


def prepared():
    return tuple(_prepared)


def prepare_badly(message):
    raise LookupError(message)
