"""Modules of the application that do in a worker what they do not do here; patched workers."""

from __future__ import annotations

import importlib
import os
import socket
import sys
import threading
import time

import gevent
from gevent import monkey

import gtaskman
from gtaskman.pool.launch import _PARTS
from scenarios import stage, tasks


def a_module_that(name, **config):
    """Submit to a module of ``apps``, then to another one: the pool must have survived."""
    os.environ["APPLICATION_PID"] = str(os.getpid())
    module = importlib.import_module(f"apps.{name}")
    results = []
    with stage.manager(**config) as manager:
        for number in range(3):
            try:
                results.append(manager.submit(module.double, number).get(stage.PATIENCE))
            except gtaskman.TaskFailed as failure:
                results.append([type(failure).__name__, failure.exc_type, failure.message])
        after = [manager.submit(tasks.double, each).get(stage.PATIENCE) for each in (1, 2)]
        return {"results": results, "after": after, "stats": manager.stats()["pool"]}


def a_module_that_hangs():
    """The same; the import is over time once it has begun, however slow this machine is."""
    os.environ["APPLICATION_PID"] = str(os.getpid())
    module = importlib.import_module("apps.hanging")
    results = []
    with stage.manager(start_timeout=4 * stage.PATIENCE) as manager:
        handles = [manager.submit(module.double, number) for number in range(3)]
        starter = manager._pool._starter
        stage.wait_until(
            lambda: starter._current is not None and starter._current.importing == "apps.hanging",
            what="the template imports the module",
        )
        assert starter._alarm.armed
        manager.at_home(lambda: starter._too_late(starter._current))
        for handle in handles:
            try:
                results.append(handle.get(stage.PATIENCE))
            except gtaskman.TaskFailed as failure:
                results.append([type(failure).__name__, failure.message])
        after = [manager.submit(tasks.double, each).get(stage.PATIENCE) for each in (1, 2)]
        return {"results": results, "after": after}


@gtaskman.task
def imported_apps(wait):
    """The modules of ``apps`` that this worker has, and which one it is."""
    time.sleep(wait)
    return sorted(each for each in sys.modules if each.startswith("apps.")), os.getpid()


def preloaded(**config):
    """Workers that are to have two modules, neither of which a template can have."""
    preload = ("apps.threaded", "apps.hubbed")
    with stage.manager(preload=preload, min_processes=2, max_processes=2, **config) as manager:
        handles = [manager.submit(imported_apps, 0.1) for _ in range(4)]
        found = [handle.get(stage.PATIENCE) for handle in handles]
        return {"found": [names for names, _ in found], "workers": len({pid for _, pid in found})}


@gtaskman.task
def patched_parts():
    """Which parts are patched right here."""
    return {part: bool(monkey.is_module_patched(module)) for part, module in _PARTS.items()}


@gtaskman.task
def cooperate():
    """In a sync task of a patched worker, what blocks elsewhere lets others run."""
    ticks = []

    def tick():
        while True:
            gevent.sleep(0.005)
            ticks.append(time.monotonic())

    ticker = gevent.spawn(tick)
    begin = time.monotonic()
    threads = [threading.Thread(target=time.sleep, args=(0.3,)) for _ in range(5)]
    for thread in threads:
        thread.start()
    left, right = socket.socketpair()
    gevent.spawn_later(0.1, right.sendall, b"hello")
    heard = left.recv(5)
    for thread in threads:
        thread.join()
    taken = time.monotonic() - begin
    ticker.kill()
    left.close()
    right.close()
    return {"ticks": len(ticks), "taken": taken, "heard": heard.decode()}


def patched_like_the_application(**config):
    with stage.manager(**config) as manager:
        told = {"here": patched_parts(), "there": manager.submit(patched_parts).get(stage.PATIENCE)}
        if told["here"]["socket"]:
            told["cooperation"] = manager.submit(cooperate).get(stage.PATIENCE)
            # While a task sleeps the hub reads the pipe: it can be cancelled in the middle.
            handle = manager.submit(time.sleep, 600)
            stage.wait_until(lambda: handle.report.worker)
            handle.cancel("enough")
            begin = time.monotonic()
            handle.wait(stage.PATIENCE)
            told["cancel"] = [handle.report.status.value, time.monotonic() - begin]
        return told
