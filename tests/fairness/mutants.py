"""Faults that a pool may have: each is put back for one play after the other until one finds it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from gtaskman.pool import pool, turnover, verdict, worker
from gtaskman.wire.messages import FAIL, SPAN


def _mean_of_runs_that_never_began() -> Any:
    """A cancelled prefetched run counts as one that took since the machine was started."""
    original = worker.Worker.take_ended

    def take_ended(self: worker.Worker, frames: Any, *rest: Any) -> Any:
        spans = [SPAN.unpack_from(each.body) for each in frames if each.kind == FAIL]
        found = original(self, frames, *rest)
        for began, ended in spans:
            if not began:
                self.mean = self.mean * 1.2 if self.mean else ended
        return found

    return mock.patch.object(worker.Worker, "take_ended", take_ended)


def _no_limit_while_replacing() -> Any:
    """Workers that drain are not counted, whatever they still run."""

    def spare(self: pool.Pool, _now: float) -> int:
        workers = self._workers.values()
        counted = sum(each.open or each.state is worker.State.STARTING for each in workers)
        return max(0, self._config.max_processes - counted)

    return mock.patch.multiple(pool.Pool, _spare=spare)


def _replacements_open_at_once() -> Any:
    """A replacement takes tasks though the old worker has not finished its own."""
    return mock.patch.object(turnover, "active", return_value=0)


def _unreadable_for_ever() -> Any:
    """A task that no worker survives reading is given to one after the other."""
    unread = verdict.Verdict.UNREAD
    original = pool.Pool._pronounce

    def pronounce(self: pool.Pool, job: Any, found: Any, *rest: Any) -> None:
        original(self, job, verdict.Verdict.UNTOUCHED if found is unread else found, *rest)

    return mock.patch.object(pool.Pool, "_pronounce", pronounce)


def _no_recall() -> Any:
    """What stands behind a long task stays there."""
    return mock.patch.object(worker.Worker, "recall", return_value=None)


def _neighbours_are_blamed() -> Any:
    """All tasks of a dead worker are said to have killed it."""

    def judge(jobs: Any, *_: Any) -> Any:
        return [(job, verdict.Verdict.SUSPECT) for job in jobs]

    return mock.patch.object(worker, "judge", judge)


MUTANTS: dict[str, Callable[[], Any]] = {
    "mean of runs that never began": _mean_of_runs_that_never_began,
    "no limit while replacing": _no_limit_while_replacing,
    "replacements open at once": _replacements_open_at_once,
    "unreadable for ever": _unreadable_for_ever,
    "no recall": _no_recall,
    "neighbours are blamed": _neighbours_are_blamed,
}


@contextlib.contextmanager
def mutated(name: str) -> Iterator[None]:
    """The pool with this fault."""
    with MUTANTS[name]():
        yield
