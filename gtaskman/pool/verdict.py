"""What becomes of each task of a worker that died: a pure decision, without effects."""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable

from gtaskman.job import Job


class Verdict(enum.Enum):
    """What a dead worker's task has come to."""

    UNTOUCHED = "untouched"  # it never began: it waits again
    BYSTANDER = "bystander"  # it had a part in nothing, but its run is lost
    SUSPECT = "suspect"  # it was running when the worker died
    CULPRIT = "culprit"  # the worker was killed on its account


def judge(
    jobs: Iterable[Job], running: int, begun: int, received: int, culprits: Collection[int]
) -> list[tuple[Job, Verdict]]:
    """Judge ``jobs`` by what the worker's slate says.

    ``running`` is the number of the sync run that it was at (0: none), ``begun`` that of the last
    one it had begun, ``received`` the highest it had read, and ``culprits`` those for whose sake
    it was killed, if it was.

    Sync tasks run in the order of their numbers: those up to ``begun`` had run, and of those that
    had ended only the results are lost. If the last one had ended and none was running, it is
    suspect all the same: its result was on its way when the worker died, perhaps of its size.
    Async tasks that the worker had read were all running, and nobody can say which killed it.
    """
    return [(job, _judge(job, running, begun, received, culprits)) for job in jobs]


def _judge(job: Job, running: int, begun: int, received: int, culprits: Collection[int]) -> Verdict:
    number = job.number
    if number in culprits:
        return Verdict.CULPRIT
    if number > (received if job.definition.is_async else begun):
        return Verdict.UNTOUCHED
    if culprits or not (job.definition.is_async or number == (running or begun)):
        return Verdict.BYSTANDER
    return Verdict.SUSPECT
