"""Tasks of the scenarios. Importing this starts nothing, so that it may be in a template."""

from __future__ import annotations

import os
import time

import gevent

import gtaskman


@gtaskman.task
def double(number):
    return number * 2


@gtaskman.task
def where():
    """The worker's pid."""
    return os.getpid()


@gtaskman.task
def lineage():
    """The pids of the worker and its parent, the template if there is one."""
    return os.getpid(), os.getppid()


@gtaskman.task(kind="async")
def where_async():
    return os.getpid()


@gtaskman.task
def fail(message):
    raise ValueError(message)


@gtaskman.task
def echo(value):
    return value


@gtaskman.task(retries=3, backoff=0)
def fail_in_cleanup(path):
    """Note the attempt in a file, wait for a cancel, and fail in the clean-up."""
    attempt = gtaskman.current().attempt
    with open(path, "a") as file:
        file.write(f"attempt {attempt}\n")
    try:
        while attempt == 1:
            gevent.sleep(0.01)
    finally:
        raise ConnectionError("the clean-up failed")


@gtaskman.task
def die(code=3):
    os._exit(code)


@gtaskman.task
def spin_for_ever(path=None):
    """Compute and never yield; says so in a file of its own first."""
    if path is not None:
        touch(path)
    while True:
        pass


@gtaskman.task
def spin(seconds):
    """Compute for that long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return os.getpid()


@gtaskman.task
def rest(seconds):
    """Wait cooperatively for that long, in a whole worker."""
    gevent.sleep(seconds)
    return os.getpid()


@gtaskman.task(kind="async")
def rest_async(seconds):
    gevent.sleep(seconds)
    return os.getpid()


def touch(path):
    """Make a file that holds our pid, all at once."""
    with open(f"{path}.{os.getpid()}", "w") as file:
        file.write(str(os.getpid()))
    os.rename(f"{path}.{os.getpid()}", path)
