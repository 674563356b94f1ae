"""The dead letters of one process: what is needed to run tasks again that failed for good."""

from __future__ import annotations

import itertools
from typing import NamedTuple

from gtaskman.job import Job
from gtaskman.report import Report
from gtaskman.task import Definition
from gtaskman.terms import Terms
from gtaskman.wire.payload import Payload


class _Letter(NamedTuple):
    report: Report
    definition: Definition
    payload: Payload
    flags: int
    terms: Terms
    unique: str
    cost: int


class DeadLetters:
    """The ones that died last: at most ``keep``, whose arguments take ``keep_bytes`` at most."""

    def __init__(self, keep: int, keep_bytes: int) -> None:
        self._keep = keep
        self._keep_bytes = keep_bytes
        self._bytes = 0
        self.letters: dict[str, _Letter] = {}  # by id, the newest last

    def bound(self, keep: int, keep_bytes: int) -> None:
        """Keep no more than this from now on."""
        self._keep, self._keep_bytes = keep, keep_bytes
        self._evict()

    def add(self, job: Job, report: Report) -> None:
        """Keep a job whose last report this is."""
        self.forget(job.id)
        self.letters[job.id] = _Letter(
            report,
            job.definition,
            _frozen(job.payload),
            job.flags,
            job.terms,
            job.unique,
            job.cost,
        )
        self._bytes += job.cost
        self._evict()

    def job(self, task_id: str) -> Job | None:
        """A new job that does what that one did; None if none is kept."""
        letter = self.letters.get(task_id)
        if letter is None:
            return None
        job = Job(task_id, letter.definition, letter.payload)
        job.created_at = letter.report.created_at
        job.flags = letter.flags
        job.put_under(letter.terms.replace(delay=0.0), letter.unique)
        return job

    def forget(self, task_id: str) -> None:
        """Let go of it, if it is kept."""
        letter = self.letters.pop(task_id, None)
        if letter is not None:
            self._bytes -= letter.cost

    def reports(self, offset: int, limit: int) -> list[Report]:
        """Their last reports, the newest last."""
        letters = list(self.letters.values())
        return [each.report for each in itertools.islice(letters, offset, offset + limit)]

    def _evict(self) -> None:
        letters = self.letters
        # Whatever its size, the newest stays: somebody is about to look at it.
        while len(letters) > self._keep or (self._bytes > self._keep_bytes and len(letters) > 1):
            self.forget(next(iter(letters), ""))

    def __len__(self) -> int:
        return len(self.letters)


def _frozen(payload: Payload) -> Payload:
    """Arguments as they are now: their memory is the caller's again when a task has ended."""
    if not payload.buffers:
        return payload
    return payload._replace(
        buffers=tuple(raw if raw.readonly else memoryview(bytes(raw)) for raw in payload.buffers)
    )
