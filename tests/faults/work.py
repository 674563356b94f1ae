"""The tasks of the scenario."""

from __future__ import annotations

import os
import time

import gevent

import gtaskman


@gtaskman.task
def echo(value):
    return value


@gtaskman.task(kind="async")
def echo_async(value):
    gevent.sleep(0.001)
    return value


@gtaskman.task(timeout=0.2)
def spin():
    while True:
        pass


@gtaskman.task
def sleep():
    gtaskman.current().progress.update(0, message="begun")
    while True:
        time.sleep(0.01)


@gtaskman.task
def report_progress(steps):
    for step in range(steps):
        gtaskman.current().progress.update(step, steps)
    return steps


@gtaskman.task(retries=0)
def crash():
    os._exit(3)
