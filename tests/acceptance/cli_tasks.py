"""The application of the command-line tests, copied to a directory of their own."""

from __future__ import annotations

import logging
import os
import socket
import time
from pathlib import Path

import gevent

import gtaskman

log = logging.getLogger(__name__)
VERSION = "one"
LONG = "a long message [of several words], " * 8


@gtaskman.task(name="version")
def version():
    return VERSION


@gtaskman.task(name="echo")
def echo(*args, **kwargs):
    log.info("echo is called")
    return [list(args), kwargs]


@gtaskman.task(name="say")
def say(what: str | None = None):
    """Returns what it is told, escape sequences included."""
    return what


@gtaskman.task(name="count_to")
def count_to(number: int):
    return number


@gtaskman.task(name="steps")
def steps(count: int, pause: float = 0.1):
    pen = gtaskman.current().progress
    for step in range(count):
        pen.update(step, target=count, message=LONG)
        time.sleep(pause)
    return "all steps"


@gtaskman.task(name="fail")
def fail(words: str):
    raise ValueError(words)


@gtaskman.task(name="hold")
def hold(path: str):
    """Says that it runs by a file, and ends when another one is there."""
    Path(path).touch()
    while not os.path.exists(path + ".go"):
        time.sleep(0.01)
    return VERSION


@gtaskman.task(name="hold_async", kind="async")
def hold_async(path: str):
    Path(path).touch()
    while not os.path.exists(path + ".go"):
        gevent.sleep(0.01)
    return VERSION


@gtaskman.task(name="second_time", retries=3, backoff=0.05)
def second_time(path: str):
    """Fails until the file is there, which it makes."""
    if not os.path.exists(path):
        Path(path).touch()
        raise ValueError("not the first time")
    return "well"


@gtaskman.task(name="once_there")
def once_there(path: str):
    """Fails unless the file is there."""
    return Path(path).read_text()


@gtaskman.task(name="patched")
def patched():
    return socket.socket.__module__.startswith("gevent")


configuration = gtaskman.Configuration(max_processes=2, stop_timeout=7)
local = gtaskman.TaskManager()


def configure():
    return configuration.replace(max_processes=3)


def manager():
    return gtaskman.TaskManager(os.environ["GTASKMAN_URL"], configuration)
