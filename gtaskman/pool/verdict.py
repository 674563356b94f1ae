"""What becomes of each task of a worker that died: a pure decision, without effects."""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable
from typing import NamedTuple

from gtaskman.job import Job


class Verdict(enum.Enum):
    """What a dead worker's task has come to."""

    UNTOUCHED = "untouched"  # it never began: it waits again
    UNREAD = "unread"  # the worker died while it read it: it waits again, but not for ever
    DOUBTFUL = "doubtful"  # it ran, but it was rather a large order being read: as for UNREAD
    BYSTANDER = "bystander"  # it had a part in nothing, but its run is lost
    SUSPECT = "suspect"  # it was running when the worker died
    CULPRIT = "culprit"  # the worker was killed on its account


class Traces(NamedTuple):
    """What the slate of a dead worker says; all are numbers of runs, 0 stands for none."""

    running: int = 0  # the sync run that it was at
    begun: int = 0  # the last sync run that it had begun
    received: int = 0  # the highest that it had read
    arriving: int = 0  # the last large one that it had begun to read


def judge(
    jobs: Iterable[Job], traces: Traces, culprits: Collection[int]
) -> list[tuple[Job, Verdict]]:
    """Judge ``jobs`` by what the worker's slate says.

    ``culprits`` are the runs for whose sake it was killed, if it was.

    Sync tasks run in the order of their numbers: those up to ``begun`` had run, and of those that
    had ended only the results are lost. If the last one had ended and none was running, it is
    suspect all the same: its result was on its way when the worker died, perhaps of its size.
    Async tasks that the worker had read were all running, and nobody can say which killed it.
    A large order that was not read to its end may be what the worker died of, for want of memory.
    """
    return [(job, _judge(job, traces, culprits)) for job in jobs]


def _judge(job: Job, traces: Traces, culprits: Collection[int]) -> Verdict:
    number = job.number
    if number in culprits:
        return Verdict.CULPRIT
    if number == traces.arriving > traces.received and not culprits:
        return Verdict.UNREAD
    if number > (traces.received if job.definition.is_async else traces.begun):
        return Verdict.UNTOUCHED
    last = traces.running or traces.begun
    if culprits or not (job.definition.is_async or number == last):
        return Verdict.BYSTANDER
    return Verdict.DOUBTFUL if traces.arriving > traces.received else Verdict.SUSPECT
