"""The program of a manager that gunicorn's workers share.

TERM makes it finish what it has and end, upon which a worker starts the next one; so does the end
of its lifeline, for good. INT ends it at once. Whatever hangs, it does not outlive that for long.
"""

from __future__ import annotations

import importlib
import logging
import os
import shutil
import signal
import sys

import gevent
import msgspec
import setproctitle
from gevent import monkey
from gevent.event import Event
from gevent.hub import get_hub

from gtaskman.config import Configuration
from gtaskman.contrib.gunicorn.generation import Life, Settings
from gtaskman.host import HostServer
from gtaskman.pool.launch import FIRST_FD
from gtaskman.taskmanager import TaskManager

log = logging.getLogger(__name__)

_LOCK, _LIFELINE, _SETTINGS = FIRST_FD, FIRST_FD + 1, FIRST_FD + 2
_FORMAT = "[%(asctime)s] [%(process)d] [%(levelname)s] gtaskman: %(message)s"  # as gunicorn's own
_DATES = "%Y-%m-%d %H:%M:%S %z"
_LAST_WORDS = 10.0  # seconds that everything but the tasks may take to end


def main() -> None:
    """Serve until the end; lock, lifeline and settings (JSON) come as descriptors."""
    for fd in (_LOCK, _LIFELINE):
        os.set_inheritable(fd, False)  # our children live no longer than we do
    with open(_SETTINGS, "rb") as told:
        settings = msgspec.json.decode(told.read(), type=Settings)
    Life(os.getpid(), settings.born, settings.streak).write(settings.directory)
    logging.basicConfig(level=settings.loglevel, format=_FORMAT, datefmt=_DATES)
    setproctitle.setproctitle(f"gtaskman: manager of gunicorn at {settings.path}")
    try:
        serving = Serving(settings)
    except Exception:
        log.exception("the manager cannot begin")
        sys.exit(1)
    serving.run()


class Serving:
    """One manager at work."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        for name in settings.tasks:
            importlib.import_module(name)
        self._config = _preloading(Configuration(**settings.fields), settings.tasks)
        self._manager = TaskManager(settings.queue, self._config)
        self._told_to_end = Event()
        self._loop = get_hub().loop
        self._over = False
        self._manager.accompany(self)

    # The manager's companion: should it stop by itself, because of an error, a worker of gunicorn
    # starts the next one when this process has ended.

    def on_stopping(self) -> None:
        """Nothing to do yet."""

    def on_stopped(self) -> None:
        """End, whoever stopped it."""
        self._told_to_end.set()

    def forget(self) -> None:
        """A fork of the process serves nothing."""

    def run(self) -> None:
        """Serve, and finish."""
        monkey.get_original("_thread", "start_new_thread")(self._await_the_end_of_all, ())
        gevent.signal_handler(signal.SIGTERM, self._told_to_end.set)
        gevent.signal_handler(signal.SIGINT, self._end_at_once)
        server = HostServer(self._manager, self._settings.path)
        server.has_successor = True  # a worker starts one whenever this manager ends
        server.start()
        log.info("the manager serves at %s", self._settings.path)
        self._told_to_end.wait()
        server.stop()
        if self._manager.failure is not None:
            log.error("the manager stopped because of an error: %r", self._manager.failure)
        if self._over:
            shutil.rmtree(self._settings.directory, ignore_errors=True)

    def _end_at_once(self) -> None:
        gevent.spawn(self._manager.stop, 0)
        self._told_to_end.set()

    def _await_the_end_of_all(self) -> None:
        """Wait, on a native thread, until nobody of gunicorn is left."""
        os.read(_LIFELINE, 1)
        self._over = True
        self._loop.run_callback_threadsafe(self._told_to_end.set)
        most = self._config.stop_timeout + 2 * self._config.kill_grace + _LAST_WORDS
        monkey.get_original("time", "sleep")(most)
        os._exit(1)  # something hangs; the workers end with us


def _preloading(config: Configuration, modules: tuple[str, ...]) -> Configuration:
    """With these modules in the template of the workers as well."""
    return config.replace(preload=(*config.preload, *modules))
