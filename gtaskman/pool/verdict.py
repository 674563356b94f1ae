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
    jobs: Iterable[Job], running: int, received: int, culprits: Collection[int]
) -> list[tuple[Job, Verdict]]:
    """Judge ``jobs``, in the order in which they were sent.

    ``running`` is the number of the sync run that the worker had begun (0: none), ``received``
    the highest number it had read, and ``culprits`` those for whose sake it was killed, if it was.

    Sync tasks run in order: those sent before the running one had run, and only their results are
    lost; those after it had not begun. Async tasks that the worker had read were all running, and
    nobody can say which of them killed it.
    """
    judged = []
    met_running = False
    for job in jobs:
        number = job.number
        if number in culprits:
            verdict = Verdict.CULPRIT
        elif job.definition.is_async:
            verdict = _judge_async(number, received, culprits)
        elif number == running:
            verdict = Verdict.BYSTANDER if culprits else Verdict.SUSPECT
        elif number > received or met_running or not running:
            verdict = Verdict.UNTOUCHED if number > running else Verdict.BYSTANDER
        else:
            verdict = Verdict.BYSTANDER
        met_running = met_running or number == running
        judged.append((job, verdict))
    return judged


def _judge_async(number: int, received: int, culprits: Collection[int]) -> Verdict:
    if number > received:
        return Verdict.UNTOUCHED
    return Verdict.BYSTANDER if culprits else Verdict.SUSPECT
