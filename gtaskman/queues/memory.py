"""The queue of one process: two lists and an index."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable

from gtaskman.errors import DuplicateTaskError
from gtaskman.job import Job
from gtaskman.queues.base import TaskQueue


class InMemoryTaskQueue(TaskQueue):
    """Jobs of this process, gone with it."""

    shared = False

    def __init__(self) -> None:
        self._sync: collections.deque[Job] = collections.deque()
        self._async: collections.deque[Job] = collections.deque()
        self._withdrawn_sync = 0
        self._withdrawn_async = 0
        self._jobs: dict[str, Job] = {}
        self._claimed = 0
        self._available: list[Callable[[], None]] = []

    def on_available(self, callback: Callable[[], None]) -> None:
        self._available.append(callback)

    def enqueue(self, job: Job) -> None:
        if job.id in self._jobs:
            raise DuplicateTaskError(job.id)
        self._jobs[job.id] = job
        (self._async if job.definition.is_async else self._sync).append(job)
        for callback in self._available:
            callback()

    def admit(self, job: Job) -> bool:
        if self._sync or self._async:
            return False
        if job.id in self._jobs:
            raise DuplicateTaskError(job.id)
        self._jobs[job.id] = job
        job.claimed = True
        self._claimed += 1
        return True

    def claim(self, sync: int, asyncs: int) -> list[Job]:
        jobs: list[Job] = []
        if asyncs and self._async:
            self._withdrawn_async -= self._take(self._async, asyncs, jobs)
        if sync and self._sync:
            self._withdrawn_sync -= self._take(self._sync, sync, jobs)
        return jobs

    def _take(self, line: collections.deque[Job], count: int, jobs: list[Job]) -> int:
        """Move ``count`` jobs; gives how many withdrawn ones were met and dropped."""
        dropped, before = 0, len(jobs)
        while count and line:
            job = line.popleft()
            if job.withdrawn:
                dropped += 1
                continue
            job.claimed = True
            jobs.append(job)
            count -= 1
        self._claimed += len(jobs) - before
        return dropped

    def refund(self, jobs: Iterable[Job]) -> None:
        for job in reversed(sorted(jobs, key=_age)):  # noqa: C413 - equals keep their order
            self._release(job)
            (self._async if job.definition.is_async else self._sync).appendleft(job)

    def retry(self, job: Job) -> None:
        self._release(job)
        (self._async if job.definition.is_async else self._sync).append(job)

    def settle(self, job: Job) -> None:
        if job.claimed:
            job.claimed = False
            self._claimed -= 1
        self._jobs.pop(job.id, None)

    def _release(self, job: Job) -> None:
        if job.claimed:
            job.claimed = False
            self._claimed -= 1

    def cancel(self, task_id: str) -> Job | None:
        job = self._jobs.get(task_id)
        if job is None or job.claimed:
            return None
        # Looking for it in the line would take longer the longer the line is: it is passed over
        # when its turn comes.
        job.withdrawn = True
        if job.definition.is_async:
            self._withdrawn_async += 1
        else:
            self._withdrawn_sync += 1
        del self._jobs[task_id]
        return job

    def waiting(self) -> tuple[int, int]:
        return (
            len(self._sync) - self._withdrawn_sync,
            len(self._async) - self._withdrawn_async,
        )

    def running(self) -> int:
        return self._claimed

    def drop(self) -> list[Job]:
        jobs = [job for job in (*self._async, *self._sync) if not job.withdrawn]
        self._sync.clear()
        self._async.clear()
        self._withdrawn_sync = self._withdrawn_async = 0
        for job in jobs:
            self._jobs.pop(job.id, None)
        return jobs


def _age(job: Job) -> float:
    return job.created_at
