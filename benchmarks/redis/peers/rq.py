"""RQ with two `SimpleWorker`s.

RQ's default worker forks for each job, which takes it milliseconds and nobody else does so.
`SimpleWorker` keeps one process for all jobs, as the workers of all others here do: the fastest
that RQ has, bought with the isolation of jobs from one another.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from redis import Redis
from rq import Queue

from benchmarks.redis import tasks
from benchmarks.redis.peers.base import PATIENCE, WORKERS, Peer, server_url, tool

# The workers log every job at INFO, also to where nobody reads.
logging.getLogger("rq").setLevel(logging.WARNING)

TASKS = {function.__name__: function for function in tasks.FUNCTIONS}


class Contestant(Peer):
    def open(self) -> None:
        self._connection = Redis.from_url(server_url())
        self._queue = Queue(connection=self._connection)

    def close(self) -> None:
        self._connection.close()

    def commands(self, style: str) -> list[list[str]]:  # noqa: ARG002 - the same for all
        simple = ["-w", "rq.worker.SimpleWorker", "--disable-job-desc-logging", "--quiet"]
        return [[tool("rq"), "worker", *simple, "--url", server_url()]] * WORKERS

    def enqueue(self, task: str, arguments: Sequence[Any]) -> list[Any]:
        enqueue, function = self._queue.enqueue, TASKS[task]
        return [enqueue(function, argument) for argument in arguments]

    def enqueue_many(self, task: str, arguments: Sequence[Any]) -> list[Any]:
        prepare, function = Queue.prepare_data, TASKS[task]
        data = [prepare(function, (each,)) for each in arguments]
        return list(self._queue.enqueue_many(data))

    def results(self, handles: Sequence[Any]) -> list[Any]:
        return [job.latest_result(timeout=PATIENCE).return_value for job in handles]

    def waiting(self) -> int:
        return int(self._queue.count)

    def progress(self) -> int:
        return int(self.server.zcard("rq:finished:default"))
