"""Tasks in which something is raised at one of their switches. Importing this starts nothing."""

from __future__ import annotations

import os
import signal

import gevent

import gtaskman

ERRORS = {
    error.__name__: error
    for error in (gevent.GreenletExit, KeyboardInterrupt, SystemExit, ValueError, gevent.Timeout)
}


def raise_here(error):
    raise error


def raise_in_spawned(error):
    gevent.spawn(raise_here, error)


def raise_in_raw(error):
    gevent.spawn_raw(raise_here, error)


def throw_later(error):
    gevent.get_hub().loop.run_callback(gevent.getcurrent().throw, error)


def leave_timeout(error):
    gevent.Timeout.start_new(0.001, error)


def interrupt(_error):
    os.kill(os.getpid(), signal.SIGINT)


HOW = {
    each.__name__: each
    for each in (
        raise_here,
        raise_in_spawned,
        raise_in_raw,
        throw_later,
        leave_timeout,
        interrupt,
    )
}


def _erupt(how, error, switches, more):
    """Have ``error`` raised after so many switches, and go on for some ``more``."""
    for _ in range(switches):
        gevent.sleep(0)
    HOW[how](ERRORS[error]("on purpose"))
    for _ in range(more):
        gevent.sleep(0.001)


@gtaskman.task
def erupt(how, error, switches, more):
    _erupt(how, error, switches, more)


@gtaskman.task(kind="async")
def erupt_async(how, error, switches, more):
    _erupt(how, error, switches, more)
