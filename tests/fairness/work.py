"""The tasks of a play; each notes in the journal when it begins and ends."""

from __future__ import annotations

import os
import signal
import time

import gevent

import gtaskman


def note(journal: str, what: str) -> None:
    """Add a line: what happens, to which task, when; lines of several processes never mix."""
    fd = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(fd, f"{what} {gtaskman.current().id} {time.monotonic()}\n".encode())
    finally:
        os.close(fd)


@gtaskman.task
def short(journal: str, seconds: float) -> int:
    note(journal, "begin")
    try:
        time.sleep(seconds)
        return os.getpid()
    finally:
        note(journal, "end")


@gtaskman.task(kind="async")
def short_async(journal: str, seconds: float) -> int:
    gevent.sleep(seconds)
    return os.getpid()


@gtaskman.task
def held(journal: str, gate: str) -> int:
    """A long one: until the gate is open."""
    note(journal, "begin")
    try:
        while not os.path.exists(gate):
            time.sleep(0.005)
        return os.getpid()
    finally:
        note(journal, "end")


@gtaskman.task(kind="async")
def held_async(journal: str, gate: str) -> int:
    while not os.path.exists(gate):
        gevent.sleep(0.005)
    return os.getpid()


@gtaskman.task
def poison(journal: str) -> None:
    """Take the worker along."""
    note(journal, "begin")
    note(journal, "end")
    os.kill(os.getpid(), signal.SIGKILL)


@gtaskman.task
def swallow(data: bytes) -> int:
    """It has an argument that a worker may have no memory for."""
    return len(data)
