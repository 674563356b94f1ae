"""The tasks of a run; each notes in the journal when it begins and ends, and steps between."""

from __future__ import annotations

import itertools
import os
import random
import signal
import time
from collections.abc import Callable
from typing import Any

import gevent

import gtaskman
from chaos import journal

_STEP = 0.02  # seconds between signs of life
_numbers = itertools.count()


def _run(seconds: float, mark: str, sleep: Callable[[float], Any]) -> str:
    here = gtaskman.current()
    run = f"{os.getpid()}.{next(_numbers)}"
    journal.write("begin", run, here.id, here.attempt, here.name)
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        sleep(min(left, _STEP))
        journal.write("step", run)
        here.progress.update(100 * (1 - left / seconds), message=mark)
    journal.write("end", run)
    return mark


@gtaskman.task
def plain(seconds: float, mark: str) -> str:
    """Sync."""
    return _run(seconds, mark, time.sleep)


@gtaskman.task(kind="async")
def light(seconds: float, mark: str) -> str:
    """A greenlet."""
    return _run(seconds, mark, gevent.sleep)


@gtaskman.task(retries=20, backoff=0.02)
def flaky(seconds: float, mark: str) -> str:
    """Fails when it is tried for the first time."""
    result = _run(seconds, mark, time.sleep)
    if gtaskman.current().attempt == 1:
        raise ValueError("not yet")
    return result


@gtaskman.task(retries=20, backoff=0.0)
def stout(seconds: float, mark: str) -> str:
    """Runs again when its worker dies."""
    return _run(seconds, mark, time.sleep)


@gtaskman.task(at_most_once=True)
def once(seconds: float, mark: str) -> str:
    """Rather lost than run twice."""
    return _run(seconds, mark, time.sleep)


def _hold(path: str, mark: str, sleep: Callable[[float], Any]) -> str:
    here = gtaskman.current()
    run = f"{os.getpid()}.{next(_numbers)}"
    journal.write("begin", run, here.id, here.attempt, here.name)
    while not os.path.exists(path):
        sleep(_STEP)
    journal.write("end", run)
    return mark


@gtaskman.task
def held(path: str, mark: str) -> str:
    """Runs until there is a file at ``path``."""
    return _hold(path, mark, time.sleep)


@gtaskman.task(kind="async")
def held_light(path: str, mark: str) -> str:
    """The same as a greenlet."""
    return _hold(path, mark, gevent.sleep)


@gtaskman.task
def lingering(seconds: float, mark: str, clean_up: float) -> str:
    """Takes its time to stop when it is told to."""
    try:
        return _run(seconds, mark, time.sleep)
    except BaseException:
        end = time.monotonic() + clean_up
        while time.monotonic() < end:
            time.sleep(_STEP)
        raise


@gtaskman.task
def poison(mark: str) -> str:
    """Kills its manager."""
    journal.write("poison", gtaskman.current().id)
    os.kill(int(os.environ[MANAGER]), signal.SIGKILL)
    time.sleep(60)
    return mark


@gtaskman.task
def odd(seconds: float, mark: str) -> str:
    """Writes progress that no encoding has."""
    here = gtaskman.current()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        here.progress.update(1, message="caf\udce9")
        time.sleep(_STEP)
    result = _run(seconds, mark, time.sleep)
    if here.id.endswith("0"):
        raise ValueError("caf\udce9")
    return result


POISON = poison.definition.name
ODD = odd.definition.name  # some of these fail
ONCE = once.definition.name
MANAGER = "GTASKMAN_CHAOS_MANAGER"  # the variable with the pid of a worker's manager
_SOME_WAY = (
    {"delay": 0.1},
    {"delay": 0.4},
    {"priority": 10},
    {"priority": -10},
    {"result_ttl": 3600},
)


def any_task(dice: random.Random) -> Any:
    """A task of some kind that waits in some way, mostly a short one."""
    kind = dice.choice((plain, plain, light, light, flaky, once))
    if dice.random() < 0.3:
        kind = kind.with_options(**dice.choice(_SOME_WAY))
    if dice.random() < 0.05:
        kind = kind.with_options(unique=f"key{dice.randrange(4)}")
    seconds = 0.3 if dice.random() < 0.05 else dice.random() * 0.01
    return kind.task(seconds, f"mark{dice.getrandbits(40)}")
