"""An application that starts processes of its own, while workers come and die."""

from __future__ import annotations

import _signal
import os
import posix
import signal
import subprocess
import sys

import gevent
import gevent.subprocess
from gevent import monkey

import gtaskman
from scenarios import stage, tasks

SEVEN = [sys.executable, "-S", "-c", "import os; os._exit(7)"]
TIMES = 12


class Churn:
    """Tasks in the background: each worker runs one of them, every fourth dies of it."""

    def __init__(self, manager):
        self.done = self.died = 0
        self.wrong = []
        self._manager = manager
        self._greenlet = gevent.spawn(self._run)

    def _run(self):
        number = 0
        while True:
            number += 1
            try:
                if number % 4:
                    value = self._manager.submit(tasks.double, number).get(stage.PATIENCE)
                    assert value == 2 * number
                    self.done += 1
                else:
                    self._manager.submit(tasks.die, 3).get(stage.PATIENCE)
            except gtaskman.WorkerCrashed as crash:
                self.died += 1
                if number % 4 or crash.exitcode not in (3, None):
                    self.wrong.append(str(crash))

    def end(self):
        # It must have been going on until now, and must go on.
        done, died = self.done, self.died
        stage.wait_until(lambda: self.done > done + 2 and self.died > died + 1)
        self._greenlet.kill()
        return {"done": self.done, "died": self.died, "wrong": self.wrong}


def by_gevent():
    """gevent's subprocess, which keeps a child watcher on the hub."""
    return [gevent.subprocess.call(SEVEN) for _ in range(TIMES)]


def by_standard_library():
    """The blocking subprocess in native threads. (In a patched world: with what is beneath it.)"""
    threads = gevent.get_hub().threadpool
    if monkey.is_module_patched("subprocess"):
        return threads.map(_spawn_and_wait, range(TIMES))
    return threads.map(lambda _: subprocess.call(SEVEN), range(TIMES))


def _spawn_and_wait(_):
    pid = posix.posix_spawn(sys.executable, SEVEN, os.environ)
    return os.waitstatus_to_exitcode(posix.waitpid(pid, 0)[1])


def by_fork():
    """os.fork and os.waitpid, as this world has them."""
    # gevent takes up SIGCHLD only after its first fork, and waits for ever for a child that was
    # faster (so it does without any of our workers): let it take it up now.
    gevent.get_hub().loop.install_sigchld()
    codes = []
    for _ in range(TIMES):
        pid = os.fork()
        if pid == 0:
            os._exit(7)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        gevent.sleep(0)
    return codes


def by_reaping_everything():
    """A handler of the application's that takes the status of every child there is."""
    reaped = {}

    def reap(_number, _frame):
        while True:
            try:
                pid, status = posix.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            reaped[pid] = os.waitstatus_to_exitcode(status)

    before = _signal.signal(signal.SIGCHLD, reap)
    try:
        pids = [posix.posix_spawn(sys.executable, SEVEN, os.environ) for _ in range(TIMES)]
        stage.wait_until(lambda: all(pid in reaped for pid in pids))
        gevent.sleep(0.3)  # our own workers go on dying under it
    finally:
        _signal.signal(signal.SIGCHLD, before if before is not None else signal.SIG_DFL)
    return [reaped[pid] for pid in pids]


WAYS = {
    "gevent": by_gevent,
    "threads": by_standard_library,
    "fork": by_fork,
    "reaper": by_reaping_everything,
}


def exit_codes(way, **config):
    """The exit codes that the application sees, and how the churn went."""
    with stage.manager(max_processes=2, max_tasks_per_process=1, **config) as manager:
        manager.submit(tasks.where).get(stage.PATIENCE)
        churn = Churn(manager)
        stage.wait_until(lambda: churn.done and churn.died)
        codes = WAYS[way]()
        return {"codes": codes, **churn.end()}
