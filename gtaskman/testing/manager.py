"""``EagerManager``: a manager without workers, which runs each task while it is submitted.

It is the real one but for its pool, where it has a :class:`Runner`, and its hub, of which it has
none: the checks, the encoding, the reports, the events and the errors are the real ones.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from typing import Any, TypeVar

from gevent._hub_local import get_hub_if_exists

from gtaskman import queues
from gtaskman.config import Configuration
from gtaskman.errors import ConfigurationError
from gtaskman.events import Events
from gtaskman.home import Home
from gtaskman.job import Job
from gtaskman.pool.listener import Completion
from gtaskman.queues import TaskQueue
from gtaskman.report import Failure
from gtaskman.storages import TaskStorage
from gtaskman.taskmanager import STOPPED, State, TaskManager
from gtaskman.testing.runner import Runner

T = TypeVar("T")


class EagerManager(TaskManager):
    """Runs each task at once, in whoever submits it, and calls back at once.

    Its handles have ended when ``submit`` returns, unless it is paused: then tasks wait until
    ``resume``, which runs them. What only a process or a clock can do, it does not: ``timeout``,
    ``soft_timeout``, ``max_crashes``, ``delay``, ``eta``, ``ttl``, ``priority`` and the waits of
    a ``backoff`` have no effect, and of a cancel a running task hears when it next writes with
    its pen. Raises :class:`ConfigurationError` for a queue on a server.
    """

    _pool: Runner | None  # type: ignore[assignment] # what is asked of a pool here, it has
    events: _Told

    def __init__(
        self,
        queue: TaskQueue | str = "memory://",
        config: Configuration | None = None,
        storage: TaskStorage | str | None = None,
    ) -> None:
        if queues.is_remote(queue):
            raise ConfigurationError(
                "an eager manager runs what is submitted to it, and has no use for a queue on a"
                " server: leave the queue out",
                "queue",
            )
        super().__init__(queue, config, storage)
        self.events = _Told()
        self._home = _Everywhere("this manager")

    # --- life

    def _set_up(self) -> None:
        self._pool = Runner(self, self.config.max_frame)
        if isinstance(self._archive, TaskStorage):
            self._archive.follow(self._jobs)
        self._state = State.RUNNING
        self.on_ready()
        self.events.tell()

    def stop(self, timeout: float | None = None) -> None:  # noqa: ARG002 - nothing is waited for
        """Take no more tasks, and cancel what waits; a second call does nothing."""
        if self._state in (State.NEW, State.RUNNING):
            self._state = State.STOPPED
            for job in list(self._jobs.values()):
                self._cancel_here(job, STOPPED)
            self.queue.release(self)
            self._home.left.open()

    # --- running

    def _accept(self, job: Job) -> None:
        job.ready_at = job.start_by = 0.0
        if not self._follows:
            job.told = True
            self._archive.insert(job.first_report())
        if self._line.admit(job):
            self._run(job)
        else:
            self._pending += job.cost
            self._line.enqueue(job)

    def on_capacity(self) -> None:
        """Run what waits: what came while it was paused, or was dead."""
        if self._state is State.RUNNING:
            jobs = self._line.claim(*self._line.waiting())
            for job in jobs:
                self._pending -= job.cost
            for job in jobs:
                self._run(job)

    def _on_available(self) -> None:
        self.on_capacity()

    def _run(self, job: Job) -> None:
        assert self._pool is not None
        self._pool.run(job)

    def _mind_time(self) -> None:
        """Nothing here waits for a moment."""

    def _retry_later(self, job: Job, wait: float) -> None:  # noqa: ARG002 - it does not wait
        job.try_again()
        self._tell_storage(job)

    # --- what the runner tells: whoever waits, and whoever listens, is told at once

    def on_progress(self, job: Job) -> None:
        """The task has written with its pen."""
        super().on_progress(job)
        self.events.tell()

    def on_completed(self, completed: list[Completion]) -> None:
        """Tasks have returned."""
        self.batches += 1
        super().on_completed(completed)
        self.batches -= 1
        self.on_batch_end()
        self.events.tell()

    def on_stopped(self, job: Job, started: float, ended: float) -> None:
        """The task was cancelled."""
        super().on_stopped(job, started, ended)
        self.events.tell()

    def on_failed(
        self, job: Job, failure: Failure, exception: bytes | None, started: float, ended: float
    ) -> None:
        """The task has failed: it tries again, or that was it."""
        super().on_failed(job, failure, exception, started, ended)
        self.events.tell()

    # --- threads

    @property
    def background(self) -> bool:
        """Whether it goes on though nobody here runs a hub: it does."""
        return True

    @property
    def hub(self) -> None:
        """It lives on none."""
        return


class _Everywhere(Home):
    """Whichever thread asks is the right one."""

    @property
    def hub(self) -> Any:
        """The hub of this thread, if it has one."""
        return get_hub_if_exists()

    @hub.setter
    def hub(self, _hub: Any) -> None:
        pass

    def settle(self) -> None:
        """There is nowhere to settle."""

    def settle_apart(self, begin: Callable[[], None]) -> None:
        """Nor apart."""
        begin()

    def keep_alive(self) -> None:
        """Nothing goes on by itself."""

    def let_go(self) -> None:
        """Nothing went on."""

    def post(self, function: Callable[..., Any], *args: Any) -> bool:
        """Call it here and now."""
        function(*args)
        return True

    def ask(self, function: Callable[[], T]) -> T:
        """What it gives, here and now."""
        return function()


class _Told(Events):
    """Events that are told when :meth:`tell` is called, in the greenlet that calls it."""

    def __init__(self) -> None:
        super().__init__()
        self._due: collections.deque[tuple[str, Any]] = collections.deque()
        self._telling = False

    def _begin(self) -> None:
        """It waits for :meth:`tell`."""

    def tell(self) -> None:
        """Tell what there is; a callback that causes an event hears of that when it is over."""
        if self._telling:
            return
        self._telling = True
        try:
            self._deliver()
        finally:
            self._telling = False
