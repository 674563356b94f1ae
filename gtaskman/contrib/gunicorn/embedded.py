"""``Embedded``: the default manager of each gunicorn worker, which ends with it.

It is made in the worker: never in gunicorn's master, whose forks would share it, nor in
``post_fork``, where nothing is patched yet.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import gevent
from gevent import getcurrent
from gevent.hub import get_hub

from gtaskman import default
from gtaskman.contrib.gunicorn.hooks import Hooks
from gtaskman.contrib.gunicorn.summons import Summons
from gtaskman.taskmanager import STOPPED, TaskManager

if TYPE_CHECKING:
    from gtaskman.report import Report

_LAST_WORDS = 1.0  # seconds between our end and that of gunicorn's patience
_PULSE = 1.5  # seconds that gunicorn's last sign of life may be old
_SHOWN = 20  # ids that a line of the log names


class Embedded(Hooks):
    """``options`` are those of ``gtaskman.configure``; with ``start`` a manager is always made."""

    def __init__(self, options: Mapping[str, Any], start: bool) -> None:
        self._options = options
        self._start = start
        self._summons = Summons()
        self._ending: Ending | None = None

    # --- the worker begins

    def post_fork(self, server: Any, worker: Any) -> None:  # noqa: ARG002 - a hook's signature
        """The application is about to be loaded, and may submit while it is imported."""
        default.assume_blocking()  # a worker of another class than gevent runs no hub
        if self._options:
            default.prefer(**self._options)

    def post_worker_init(self, worker: Any) -> None:  # noqa: ARG002 - as above
        """The application is loaded: its manager may be started."""
        self._summons.heed()
        if self._options and default.current() is None:
            default.prefer(**self._options)  # whatever it has been configured as meanwhile
        if self._start:
            default.start()

    # --- the worker ends

    def worker_int(self, worker: Any) -> None:
        """INT or QUIT, or the reloader: cancel at once, in the middle of a drain too."""
        self._summons.at_once = True
        self._end(worker, 0.0)

    def worker_abort(self, worker: Any) -> None:
        """The worker has shown no sign of life for too long; we are in a signal's handler."""
        self._summons.at_once = True
        manager = default.current()
        if isinstance(manager, TaskManager) and getcurrent() is not get_hub():
            # The hub may never run again. What is left then dies with this process.
            numbers = manager.stats()
            worker.log.error(
                "gtaskman: gunicorn gives up this worker, and its tasks with it: %d run, %d wait",
                numbers["pool"]["current_tasks"],
                numbers["queue"]["current_tasks"],
            )
        gevent.spawn(self._end, worker, 0.0)

    def worker_exit(self, server: Any, worker: Any) -> None:  # noqa: ARG002 - as above
        """No more requests: finish the tasks that are left, as far as there is time."""
        # For a worker that has vanished, the master calls this.
        if worker.pid == os.getpid():
            self._end(worker, self._time_left(worker))

    def _end(self, worker: Any, seconds: float) -> None:
        manager = default.current()
        if isinstance(manager, TaskManager):
            if self._ending is None:
                self._ending = Ending(manager, worker.log)
            self._ending.end(seconds)
        elif manager is not None:
            manager.stop()

    def _time_left(self, worker: Any) -> float:
        """Seconds that tasks may still take; 0 if there is nobody any more to give them."""
        if self._summons.at_once or os.getppid() != worker.ppid:
            return 0.0
        now = time.monotonic()
        end: float = (self._summons.since or now) + worker.cfg.graceful_timeout
        if worker.cfg.timeout:
            # It can show no more signs of life by now, and is killed without them.
            end = min(end, now - _PULSE + worker.cfg.timeout)
        return max(0.0, end - now - _grace() - _LAST_WORDS)


class Ending:
    """The end of a manager: what it did not finish is said aloud, in gunicorn's ``log``."""

    def __init__(self, manager: TaskManager, log: Any) -> None:
        self._manager = manager
        self._log = log
        self._unfinished: list[Report] = []
        manager.on("task-cancelled", self._note)

    def _note(self, report: Report) -> None:
        if report.message == STOPPED:
            self._unfinished.append(report)

    def end(self, seconds: float) -> None:
        """Stop it within ``seconds``, or sooner if it is stopping already; tell what is lost."""
        self._manager.stop(seconds)
        lost, self._unfinished = self._unfinished, []
        if lost:
            self._log.error(
                "gtaskman: %d %s of this worker had no time to finish and %s lost: %s",
                len(lost),
                "task" if len(lost) == 1 else "tasks",
                "is" if len(lost) == 1 else "are",
                _named(lost),
            )


def _named(reports: list[Report]) -> str:
    names = [f"{report.name} ({report.id})" for report in reports[:_SHOWN]]
    more = len(reports) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")


def _grace() -> float:
    """Seconds that tasks have to heed their cancellation."""
    manager = default.current()
    return manager.config.kill_grace if isinstance(manager, TaskManager) else 0.0
