"""What a pool tells its manager."""

from __future__ import annotations

from typing import Any, Protocol

from gtaskman.job import Job
from gtaskman.report import Failure

# A job, what it returned, how many bytes that took, its start and end (monotonic).
Completion = tuple[Job, Any, int, float, float]


class PoolListener(Protocol):
    """What the pool tells, always from the hub.

    The pool adds one to ``batches`` while it tells the ends of several jobs; no call does that,
    before or after which a signal handler could raise.
    """

    batches: int

    def on_ready(self) -> None:
        """One more worker is ready."""

    def on_capacity(self) -> None:
        """There may be room for more."""

    def recover_soon(self) -> None:
        """A signal handler has raised while jobs changed hands: see that none is lost."""

    def on_started(self, job: Job) -> None:
        """The job runs, and not for a mere moment."""

    def on_batch_end(self, at_once: bool = False) -> None:
        """A batch has been worked off; ``at_once``: and there is nothing else to be done here."""

    def on_completed(self, completed: list[Completion]) -> None:
        """They have returned."""

    def on_failed(
        self, job: Job, failure: Failure, exception: bytes | None, started: float, ended: float
    ) -> None:
        """It failed; ``exception`` is pickled."""

    def on_unsendable(self, job: Job, failure: Failure) -> None:
        """No order to a worker can be made of it, however often it is tried."""

    def on_stopped(self, job: Job, started: float, ended: float) -> None:
        """It was cancelled."""

    def on_progress(self, job: Job) -> None:
        """It has written with its pen."""

    def on_returned(self, jobs: list[Job]) -> None:
        """They have not run, or may run again, and wait once more."""

    def on_unable(self, why: str) -> None:
        """Workers cannot be started."""
