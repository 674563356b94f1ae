"""A manager whose queue is on a server, where other hosts take from it as well.

It is the manager that it derives from, with a courier where that one has its queue: jobs come by
:meth:`SharedManager.on_fetched`, and what it cannot finish goes back, for others to run. What is
submitted to it goes to the server too, and may run anywhere.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from typing import Any

from gtaskman.client import Client
from gtaskman.config import Configuration
from gtaskman.courier import Courier
from gtaskman.handle import TaskHandle
from gtaskman.job import Job
from gtaskman.queues import TaskQueue
from gtaskman.queues.redis import RedisTaskQueue
from gtaskman.redis.ledger import Ledger
from gtaskman.report import Failure, FailureKind, Report
from gtaskman.storages import InMemoryTaskStorage, TaskStorage
from gtaskman.storages.redis import RedisTaskStorage
from gtaskman.task import Task
from gtaskman.taskmanager import STOPPED, State, TaskManager
from gtaskman.wire.messages import Why

log = logging.getLogger(__name__)

_MARGIN = 1.0  # seconds beside those that a task may take to stop, before a lease ends


class SharedManager(TaskManager):
    """Runs tasks of a queue that it shares with other managers."""

    queue: RedisTaskQueue
    _line: Courier  # type: ignore[assignment] # what the pump asks of a queue, it has

    def __init__(
        self,
        queue: TaskQueue | str,
        config: Configuration | None = None,
        storage: TaskStorage | str | None = None,
    ) -> None:
        self._keeps = storage is not None
        # Without one the server keeps the reports, and nobody else need be told.
        super().__init__(queue, config, storage or InMemoryTaskStorage(keep=0))
        self._returning: set[str] = set()  # keys of jobs that are stopped, to go on elsewhere
        self._unable = False  # no worker can be started here
        self.client = Client(
            self.queue.address,
            queue=self.queue.name,
            namespace=self.queue.namespace,
            keyring=self.queue.keyring,
            patience=None,
        )

    @property
    def storage(self) -> TaskStorage:
        """Where the reports are: the storage that was given, or the server's own records."""
        if self._keeps:
            return self._given
        return RedisTaskStorage.of_queues(self._ledgers(), self.client.read)

    @storage.setter
    def storage(self, given: TaskStorage) -> None:
        self._given = given

    def _ledgers(self) -> list[Ledger]:
        """The records of our queues, for this thread."""
        return [self.client.ledger(name) for name in self.queue.queues]

    def _make_line(self) -> Courier:  # type: ignore[override] # see _line
        grace, lease = self.config.kill_grace + _MARGIN, self.queue.lease
        if grace > lease / 2:
            log.warning(
                "lease=%g is short for kill_grace=%g: a task that does not stop when it is told to"
                " may still run here when it begins elsewhere",
                lease,
                self.config.kill_grace,
            )
        return Courier(self.queue, self, min(grace, lease / 2))

    # --- life

    def _set_up(self) -> None:
        super()._set_up()
        self._home.keep_alive()
        self._line.start(self._home.loop)

    def quiet(self) -> None:
        """Fetch no more tasks until :meth:`loud`; those that run go on."""
        self._home.ask(self._be_quiet)

    def _be_quiet(self) -> None:
        self._line.quiet()
        for job in self._line.drop():
            self._hand_back(job)

    def loud(self) -> None:
        """Fetch tasks again."""
        self._home.ask(self._line.loud)

    def _begin_drain(self) -> None:
        self._be_quiet()

    def _give_up(self, job: Job) -> None:
        """Its time is over: somebody else shall run it, unless it may run only once."""
        if job.definition.at_most_once and job.number:
            super()._give_up(job)
            return
        if job.number and self._pool is not None:
            # Nobody else may begin it before it has stopped here.
            self._returning.add(job.key)
            self._pool.cancel(job, Why.CANCELLED)
        else:
            self._hand_back(job)

    def on_stopped(self, job: Job, started: float, ended: float) -> None:
        """The task was cancelled, or is to go on elsewhere."""
        if job.key in self._returning:
            self._hand_back(job)
        else:
            super().on_stopped(job, started, ended)

    def on_failed(
        self, job: Job, failure: Failure, exception: bytes | None, started: float, ended: float
    ) -> None:
        """The task has failed: it tries again, or that was it; unless it was stopped by us."""
        if job.key in self._returning:
            self._hand_back(job)
        else:
            super().on_failed(job, failure, exception, started, ended)

    def _hand_back(self, job: Job) -> None:
        self._line.refund([job])
        self._leave(job)

    def _end(self) -> None:
        for job in list(self._jobs.values()):
            if job.definition.at_most_once and job.number:
                job.stop_reason = STOPPED
                super().on_stopped(job, 0.0, time.monotonic())
            else:
                self._hand_back(job)
        self._line.close()

    def _on_idle(self) -> None:
        # As long as we run, tasks may come: the loop must not end.
        if self._drained is not None:
            self._drained.open()

    def forget(self) -> None:
        super().forget()
        self._line.forget()

    # --- what comes from the server

    def room(self, sync: int, asyncs: int) -> tuple[int, int]:
        """How many of so many waiting tasks of each kind our workers could take now."""
        if self._pool is None or self._unable:
            return 0, 0
        return self._pool.room(sync, asyncs)

    def free(self) -> tuple[int, int]:
        """How many tasks of each kind could begin at once."""
        if self._pool is None or self._unable:
            return 0, 0
        return self._pool.free()

    def on_ready(self) -> None:
        """A worker is ready."""
        self._unable = False
        super().on_ready()

    def on_unable(self, why: str) -> None:
        """Workers cannot be started here: others run what waits, until one is ready again.

        Tasks whose code cannot be imported fail, as it cannot be imported elsewhere either.
        """
        assert self._pool is not None
        broken = self._pool.broken
        if not self._unable and not broken:
            log.error("no tasks are fetched until a worker can be started: %s", why)
        for job in self._line.drop():
            if job.definition.module in broken:
                self._fail(job, broken[job.definition.module])
            else:
                self._hand_back(job)
        self._unable = not broken or not self._pool.has_open
        self._line.reconsider()

    def on_started(self, job: Job) -> None:
        """The job runs, and not for a mere moment: there may be less room than it seemed."""
        super().on_started(job)
        self._line.reconsider()

    def on_fetched(self, jobs: list[Job]) -> None:
        """They are ours now."""
        for job in jobs:
            job.handle = TaskHandle(job, self)
            self._jobs[job.key] = job
            if not self._follows:
                job.told = True
                self._archive.insert(job.first_report())
            if job.definition.number not in self._known:
                self._try_to_make_known(job)

    def _try_to_make_known(self, job: Job) -> None:
        try:
            self._make_known(job.definition)
        except Exception as error:
            self._line.cancel(job.key)
            failure = Failure(FailureKind.ERROR, str(error), exc_type=type(error).__name__)
            self.on_failed(job, failure, None, 0.0, time.monotonic())

    def on_recalled(self, job: Job, reason: str) -> None:
        """Somebody wants it cancelled."""
        self._cancel_here(job, reason)

    def on_lost(self, jobs: list[Job]) -> None:
        """They are ours no longer: they are stopped, and nobody hears how they end."""
        for job in jobs:
            self._leave(job)
            if job.number and self._pool is not None:
                self._pool.cancel(job, Why.CANCELLED)

    def _leave(self, job: Job) -> None:
        self._returning.discard(job.key)
        if self._jobs.get(job.key) is job:
            del self._jobs[job.key]
            if not self._jobs:
                self._on_idle()

    # --- what the pool tells

    def on_progress(self, job: Job) -> None:
        """The task has written with its pen."""
        super().on_progress(job)
        if self._jobs.get(job.key) is job:
            self._line.progress(job)

    def on_returned(self, jobs: list[Job]) -> None:
        """They have not run here: others may have room for them."""
        for job in jobs:
            if self._jobs.get(job.key) is job:
                self._hand_back(job)

    def _may_wait(self) -> bool:
        return True  # on the server, for any manager

    def _retry_later(self, job: Job, wait: float) -> None:
        self._line.retry(job, wait)
        self._leave(job)

    # --- asking and telling: tasks of ours are at hand, all others on the server

    def submit(self, task: Any, /, *args: Any, **kwargs: Any) -> TaskHandle:
        """Submit a task to the queue; see :meth:`TaskManager.submit`. It may run anywhere."""
        self._check_running()
        return self.client.submit(task, *args, **kwargs)

    def submit_many(self, tasks: Iterable[Task]) -> list[TaskHandle]:
        """Submit many task objects, some hundred with each command."""
        self._check_running()
        return [*self.client.submit_many(tasks)]

    def submit_chunk(self, function: Any, items: list[Any]) -> TaskHandle:
        """Submit one chunk of a :meth:`map`."""
        self._check_running()
        return self.client.submit_chunk(function, items)

    def _check_running(self) -> None:
        if self._state is not State.RUNNING:
            self.start()

    def cancel(self, task_id: str, reason: str | None = None) -> bool:
        """Ask a task to stop, wherever it waits or runs; False if there is none that does."""
        return super().cancel(task_id, reason) or self.client.cancel(task_id, reason)

    def report(self, task_id: str) -> Report | None:
        """How a task stands, or None if it is not known (any more)."""
        job = self._find(task_id)
        return job.report() if job is not None else self.client.report(task_id)

    def _find(self, task_id: str) -> Job | None:
        for name in self.queue.queues:
            job = self._jobs.get(self.queue.prefix(name) + task_id)
            if job is not None:
                return job
        return None

    def handle(self, task_id: str) -> TaskHandle | None:
        """The handle of a task, whoever runs it, or None."""
        return self.client.handle(task_id)

    def retry(self, task_id: str) -> TaskHandle | None:
        """Send a dead task back; see :meth:`TaskManager.retry`."""
        return self.client.retry(task_id)

    def pause(self) -> None:
        """Let nobody begin tasks of these queues until :meth:`resume`."""
        for ledger in self._ledgers():
            ledger.pause()

    def resume(self) -> None:
        """Take a :meth:`pause` back."""
        for ledger in self._ledgers():
            ledger.resume()

    def dead(self, offset: int = 0, limit: int = 50) -> list[Report]:
        """The last reports of tasks that failed for good, the newest last: the dead letters."""
        every = [
            report
            for name in self.queue.queues
            for report in self.client.dead(0, offset + limit, queue=name)
        ]
        return every[offset : offset + limit]

    def _waiting(self) -> int:
        return sum(ledger.counts().waiting for ledger in self._ledgers())
