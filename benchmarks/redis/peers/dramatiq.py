"""Dramatiq with results in Redis.

Its workers fetch two messages for each thread at once, so that more threads mean larger batches:
32 are faster than its default of 8, and than 64, though no-op tasks gain nothing from threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from benchmarks.redis import tasks
from benchmarks.redis.peers.base import (
    CONCURRENCY,
    PATIENCE,
    SHARED,
    WORKERS,
    Peer,
    server_url,
    tool,
)

THREADS = 32

broker = RedisBroker(url=server_url())
broker.add_middleware(Results(backend=RedisBackend(url=server_url())))
dramatiq.set_broker(broker)

TASKS = {
    function.__name__: dramatiq.actor(function, store_results=True) for function in tasks.FUNCTIONS
}


class Contestant(Peer):
    def commands(self, style: str) -> list[list[str]]:
        program = "dramatiq-gevent" if style == SHARED else "dramatiq"
        threads = CONCURRENCY if style == SHARED else THREADS
        sizes = ["--processes", str(WORKERS), "--threads", str(threads)]
        return [[tool(program), __name__, *sizes, "--skip-logging"]]

    def enqueue(self, task: str, arguments: Sequence[Any]) -> list[Any]:
        send = TASKS[task].send
        return [send(argument) for argument in arguments]

    def enqueue_many(self, task: str, arguments: Sequence[Any]) -> list[Any]:
        message = TASKS[task].message
        group = dramatiq.group([message(argument) for argument in arguments]).run()
        return list(group.children)

    def results(self, handles: Sequence[Any]) -> list[Any]:
        return [each.get_result(block=True, timeout=PATIENCE * 1000) for each in handles]

    def waiting(self) -> int:
        return self.server.llen("dramatiq:default")

    def progress(self) -> int:
        return -self.server.hlen("dramatiq:default.msgs")

    def close(self) -> None:
        broker.client.close()
