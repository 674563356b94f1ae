"""``Host``: one manager for all workers of a gunicorn server, which ends with it.

The master only makes a place for it. A worker starts it: there the application's environment, user
and import path are as they have to be, and gunicorn's main loop has no child that it does not know.
A reload makes another place, for another manager with the new code. The old one lives for as long
as a worker of its generation does, and then finishes what it has.
"""

from __future__ import annotations

import logging
import os
import signal
import tempfile
import time
from typing import Any

import gevent
from gevent.hub import get_hub

from gtaskman import default, queues
from gtaskman.config import Configuration
from gtaskman.contrib.gunicorn.generation import Generation, Settings
from gtaskman.contrib.gunicorn.hooks import Hooks
from gtaskman.contrib.gunicorn.summons import Summons
from gtaskman.errors import ConfigurationError

URL = "GTASKMAN_URL"
_TOO_EARLY = (
    "the manager that gunicorn's workers share is started when the application is loaded, and"
    " nothing can be submitted while it is being imported: submit in a request, in a greenlet that"
    " starts later, or in the hook post_worker_init"
)
_LAST_WORDS = 1.0  # seconds that a manager has at least to end, and that its end may take

# A reload makes new hooks, and these stay: the generations, the newest last, and what the master
# was told.
_generations: list[Generation] = []
_summons = Summons()


class Host(Hooks):
    """``queue`` is the URL of the manager's queue, ``tasks`` are the modules that it imports,
    ``directory`` is the one that holds ours.
    """

    def __init__(
        self, queue: str, tasks: tuple[str, ...], config: Configuration, directory: str | None
    ) -> None:
        queues.connect(queue)  # opens nothing, and knows a good one
        self._queue = queue
        self._tasks = tasks
        self._config = config
        self._directory = directory

    # --- in the master

    def when_ready(self, server: Any) -> None:
        """The server listens: the first generation of the code begins."""
        _summons.heed()
        _generations.append(self._generation(server.cfg))

    def on_reload(self, server: Any) -> None:
        """New code: the workers from now on are of another generation."""
        try:
            new = self._generation(server.cfg)
        except (OSError, ConfigurationError) as error:
            if not _generations:
                raise
            server.log.error("gtaskman: the new workers get the old manager: %s", error)
            return
        if _generations:
            _generations[-1].release()
        _generations.append(new)
        _forget_old()

    def _generation(self, cfg: Any) -> Generation:
        base = self._directory or _runtime_directory(cfg.uid) or tempfile.gettempdir()
        return Generation(base, cfg.uid, cfg.gid)

    def on_exit(self, server: Any) -> None:
        """Every worker has gone: let the managers finish, as far as there is time."""
        now = time.monotonic()
        grace = self._config.kill_grace + _LAST_WORDS
        end = (_summons.since or now) + server.cfg.graceful_timeout - grace
        for each in _generations:
            each.release()
        if _summons.at_once or not _wait_over(max(end, now + _LAST_WORDS)):
            _signal(signal.SIGINT)
        if not _wait_over(time.monotonic() + grace):
            server.log.error("gtaskman: a manager does not end, and is killed")
            _signal(signal.SIGKILL)
            _wait_over(time.monotonic() + _LAST_WORDS)
        for each in _generations:
            each.remove()

    # --- in a worker

    def post_fork(self, server: Any, worker: Any) -> None:  # noqa: ARG002 - a hook's signature
        """This is a worker: it belongs to the generation that it was forked in."""
        if not _generations:
            raise ConfigurationError(
                "gunicorn.conf.py defines hooks after its line install(...) that replace those of"
                " gtaskman: move the line to the end of the file"
            )
        os.environ[URL] = _generations[-1].url
        _generations[-1].enter()
        default.refuse(_TOO_EARLY)

    def post_worker_init(self, worker: Any) -> None:
        """The application is loaded: see that there is a manager."""
        default.refuse(None)

        def tell(what: str) -> None:
            # Whoever calls is a thread without a hub, and handlers of logs may wait.
            loop.run_callback_threadsafe(gevent.spawn, worker.log.error, "gtaskman: %s", what)

        loop, generation = get_hub().loop, _generations[-1]
        generation.watch(self._settings(generation, worker), tell)

    def _settings(self, generation: Generation, worker: Any) -> Settings:
        config, patience = self._config, worker.cfg.graceful_timeout
        longest = max(0.0, patience - config.kill_grace - _LAST_WORDS)
        config = config.replace(stop_timeout=min(config.stop_timeout, longest))
        return Settings(
            generation.directory,
            self._queue,
            self._tasks or self._application(worker),
            dict(config.__dict__),
            logging.getLogger("gunicorn.error").getEffectiveLevel(),
        )

    def _application(self, worker: Any) -> tuple[str, ...]:
        """The application's module, if there the names of tasks must be known."""
        name = getattr(worker.app, "app_uri", None) if queues.is_remote(self._queue) else None
        return (name.partition(":")[0],) if name else ()


def _runtime_directory(uid: int) -> str | None:
    """The user's directory for such things, if that is the user whom the workers belong to."""
    path = os.environ.get("XDG_RUNTIME_DIR")
    return path if path and uid == os.geteuid() and os.access(path, os.W_OK) else None


def _forget_old() -> None:
    """Forget generations that are over; the last two may just be about to begin."""
    for each in _generations[:-2]:
        if each.is_over():
            each.remove()
            _generations.remove(each)


def _wait_over(until: float) -> bool:
    waited = [each.wait_over(until) for each in _generations]
    return all(waited)


def _signal(number: int) -> None:
    for each in _generations:
        each.signal(number)
