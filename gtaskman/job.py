"""``Job``: a task on its way through a manager, with all that is known of it so far.

The one mutable record of a task: the queue, the manager and the pool hand it on and each notes
its part. Everybody else sees the immutable reports that are made of it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from gtaskman.report import DEFAULT_TARGET, Failure, Report, TaskStatus
from gtaskman.task import Definition
from gtaskman.terms import DEFAULT, Terms
from gtaskman.wire.messages import Why
from gtaskman.wire.payload import Payload

if TYPE_CHECKING:
    from gtaskman.handle import TaskHandle
    from gtaskman.pool.worker import Worker

# What lies between the monotonic clock, on which workers tell times, and the wall clock.
_EPOCH = time.time() - time.monotonic()
_COMPLETED = TaskStatus.COMPLETED  # a member is slow to look up in its class
OVERHEAD = 1024  # bytes that a waiting task takes beside its payload, roughly


# Part of a cycle only while its handle is open, which every manager's end ends: the garbage
# collector need not look at each of very many tasks, which takes as long as to hand them out.
class Job(msgspec.Struct, gc=False, eq=False):
    """One task between ``submit`` and its last report."""

    # Whether its result stays as its worker has encoded it: it is for another process.
    opaque: ClassVar[bool] = False

    id: str
    definition: Definition
    payload: Payload
    created_at: float = msgspec.field(default_factory=time.time)
    number: int = 0  # this run's, on the pipe; 0 while it is in no worker
    worker: Worker | None = None
    attempt: int = 1
    crashes: int = 0  # workers, and managers, that have died under it
    losses: int = 0  # of these, managers: attempts that no retry is spent on
    revision: int = 0
    flags: int = 0  # messages.CHUNK for a chunk of a map
    completed: float = 0
    target: float = DEFAULT_TARGET
    message: str = ""
    started_at: float | None = None
    stop: Why | None = None  # it was asked to stop, and why
    stop_reason: str = ""
    claimed: bool = False  # a manager has taken it out of the queue
    withdrawn: bool = False  # cancelled while it waited: whoever finds it in a queue drops it
    told: bool = False  # the storage is told its reports; else it asks for them
    processing: bool = False  # everybody has been told that it runs
    terms: Terms = DEFAULT
    unique: str = ""  # the key that it holds while it waits or runs
    place: int = 0  # in the order of its queue, which gives it
    ready_at: float = 0.0  # monotonic: it waits for this moment first
    start_by: float = 0.0  # monotonic: it fails as expired if it has not started by then; 0: never
    late: bool = False  # it has not, and is stopped for that
    cost: int = OVERHEAD  # bytes of memory that it takes while it waits
    last_message: str = ""  # the task failed with this message, in place of the error's text
    handle: TaskHandle = None  # type: ignore[assignment] # it has one before it goes anywhere
    key: str = ""  # its name in its manager: the id, unless two of its queues may have the id

    def __post_init__(self) -> None:
        self.key = self.id
        payload = self.payload
        if payload.body:
            self.cost = OVERHEAD + (payload.size if payload.buffers else len(payload.body))

    def put_under(self, terms: Terms, unique: str) -> None:
        """Wait under these terms, from now on; ``unique`` is the key that follows from them."""
        self.terms, self.unique = terms, unique
        now = time.monotonic()
        wait = terms.wait(time.time())
        self.ready_at = now + wait if wait else 0.0
        self.start_by = now + wait + terms.ttl if terms.ttl else 0.0

    @property
    def running(self) -> bool:
        """Whether its worker is at it right now."""
        worker = self.worker
        return worker is not None and (
            self.processing or self.definition.is_async or worker.running_number() == self.number
        )

    @property
    def in_worker(self) -> bool:
        """Whether a live worker holds this run: it has begun there, or may begin."""
        worker = self.worker
        return worker is not None and worker.alive and worker.jobs.get(self.number) is self

    def first_report(self) -> Report:
        """That it waits; revision 1."""
        self.revision = 1
        definition = self.definition
        return Report(
            self.id,
            definition.name,
            definition.kind,
            TaskStatus.WAITING,
            self.created_at,
            revision=1,
        )

    def report(self) -> Report:
        """How it stands; the next revision."""
        self.revision += 1
        running = self.running
        definition = self.definition
        return Report(
            self.id,
            definition.name,
            definition.kind,
            TaskStatus.PROCESSING if running else TaskStatus.WAITING,
            self.created_at,
            self.message,
            self.completed,
            self.target,
            started_at=self.started_at,
            attempt=self.attempt,
            worker=self.worker.pid if running and self.worker else None,
            revision=self.revision,
        )

    def note_progress(self, completed: float, target: float, message: str) -> None:
        """The task has written with its pen."""
        self.completed, self.target, self.message = completed, target, message

    def begin_again(self) -> None:
        """It goes back to a queue: nothing of the run that ended is left."""
        self.number = 0
        self.worker = None
        self.stop = None
        self.started_at = None
        self.processing = False
        self.completed, self.target, self.message = 0, DEFAULT_TARGET, ""
        self.last_message = ""

    def try_again(self) -> None:
        """Its next attempt follows. It has started in time, whatever becomes of that."""
        self.attempt += 1
        self.start_by, self.late = 0.0, False
        self.begin_again()

    def completed_report(self, result: Any, size: int, started: float, ended: float) -> Report:
        """Its last report: it returned ``result``. Times are monotonic, as the worker told them."""
        self.revision += 1
        definition = self.definition
        worker = self.worker
        return Report(
            self.id,
            definition.name,
            definition.kind,
            _COMPLETED,
            self.created_at,
            self.message,
            self.target,
            self.target,
            result,
            None,
            started + _EPOCH,
            ended + _EPOCH,
            self.attempt,
            worker.pid if worker is not None else None,
            self.revision,
            size,
        )

    def full(self, report: Report) -> Report:
        """For subclasses: the last report with its result, for those who listen to events."""
        return report

    def failed_report(self, failure: Failure, started: float | None, ended: float) -> Report:
        """Its last report: it failed."""
        message = self.last_message or failure.message
        return self._last(TaskStatus.FAILED, message, failure, started, ended)

    def cancelled_report(self, started: float | None, ended: float) -> Report:
        """Its last report: it was cancelled."""
        return self._last(TaskStatus.CANCELLED, self.stop_reason, None, started, ended)

    def _last(
        self,
        status: TaskStatus,
        message: str,
        failure: Failure | None,
        started: float | None,
        ended: float,
    ) -> Report:
        self.revision += 1
        return Report(
            self.id,
            self.definition.name,
            self.definition.kind,
            status,
            self.created_at,
            message,
            self.completed,
            self.target,
            error=failure,
            started_at=wall(started) if started else self.started_at,
            finished_at=wall(ended),
            attempt=self.attempt,
            worker=self.worker.pid if self.worker is not None else None,
            revision=self.revision,
        )


def wall(monotonic: float) -> float:
    """A monotonic time as seconds since the epoch."""
    return monotonic + _EPOCH


def retune() -> None:
    """Take note of where the wall clock stands: it may have been set since."""
    global _EPOCH
    _EPOCH = time.time() - time.monotonic()
