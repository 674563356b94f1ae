"""Mutants of the code: earlier behaviour put back, which the judge must find out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent

from gtaskman.courier import Courier
from gtaskman.errors import GTaskmanError
from gtaskman.pool.pool import Pool
from gtaskman.pool.worker import Worker
from gtaskman.queues.redis import Berth, RedisJob, RedisTaskQueue
from gtaskman.shared import SharedManager


def arm(name: str) -> None:
    """Change this process, if ``name`` is one of ``MUTANTS``."""
    if name in MUTANTS:
        MUTANTS[name]()


def _ids_for_keys() -> None:
    """Two queues of one manager share the names of their tasks."""
    RedisTaskQueue.prefix = lambda _self, _name: ""  # type: ignore[method-assign]


def _runs_by_id() -> None:
    """A task comes back while its old run stops, and the end of that run is taken for its own."""

    def settle(self: Berth, job: RedisJob, settlement: Any) -> None:
        if self.held.pop(job.id, None) is not None:
            self.outbox.append(settlement)

    def leave(self: SharedManager, job: Any) -> None:
        if self._jobs.pop(job.key, None) is not None and not self._jobs:
            self._on_idle()

    on_completed = SharedManager.on_completed

    def completed_by_id(self: SharedManager, completed: Any) -> None:
        for job, *_ in completed:
            if job.key in self._jobs:
                self._jobs[job.key] = job
        on_completed(self, completed)

    finish = SharedManager._finish

    def finish_by_id(self: SharedManager, job: Any, *rest: Any) -> None:
        if job.key in self._jobs:
            self._jobs[job.key] = job
        finish(self, job, *rest)

    Berth.settle = settle  # type: ignore[method-assign]
    Courier._is_stopping = lambda _self, _key: False  # type: ignore[method-assign]
    SharedManager._leave = leave  # type: ignore[method-assign]
    SharedManager.on_completed = completed_by_id  # type: ignore[method-assign]
    SharedManager._finish = finish_by_id  # type: ignore[method-assign]


def _one_error_ends_the_courier() -> None:
    """The greenlet that keeps the lease expects no other errors than those of the package."""

    def run(self: Courier) -> None:
        while True:
            try:
                self._berths = self._berths or self._queue.berths()
                for berth in self._berths:
                    if not berth.entered:
                        self._enter(berth)
                self._work()
            except GTaskmanError:
                gevent.sleep(0.1)
            except Exception:
                return

    Courier._run = run  # type: ignore[method-assign]


def _prefetched_like_free() -> None:
    """The server hands over as much as may be prefetched, and what is stuck stays."""
    Pool.free = lambda self: self.room(128, 128)  # type: ignore[method-assign]
    Courier.reconsider = lambda _self: None  # type: ignore[method-assign]
    Courier._return_unplaced = lambda _self: None  # type: ignore[method-assign]
    Worker.recall = lambda _self: None  # type: ignore[method-assign]


def _stopped_is_unbegun() -> None:
    """What was stopped before a lease ended goes back as if it had never begun."""
    RedisJob.interrupted = RedisJob.refund  # type: ignore[method-assign]


def _a_refused_vow_loses_its_turn() -> None:
    """A refusal leaves a turn in the middle, with what it has taken so far."""

    def vow(self: Berth, claim: Any) -> bool:
        return self.ledger.vow(self.owner, claim.id, claim.token)

    Berth._vow = vow  # type: ignore[method-assign]


MUTANTS: dict[str, Callable[[], None]] = {
    "ids for keys": _ids_for_keys,
    "runs by id": _runs_by_id,
    "one error ends the courier": _one_error_ends_the_courier,
    "prefetched like free": _prefetched_like_free,
    "stopped is unbegun": _stopped_is_unbegun,
    "a refused vow": _a_refused_vow_loses_its_turn,
}
