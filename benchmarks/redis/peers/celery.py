"""Celery: prefork with far prefetch, late acknowledgement, results in Redis.

Two workers with one child each: a third to a half faster here than one worker with two children.
Acknowledged late, so that Celery too runs a task again whose worker died. Many at a time go
through Kombu's own publish batch, which Celery's tasks can be sent through.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from celery import Celery
from celery.result import ResultSet

from benchmarks.redis import tasks
from benchmarks.redis.peers.base import (
    CONCURRENCY,
    PATIENCE,
    SHARED,
    WORKERS,
    Peer,
    server_url,
)

app = Celery("benchmarks", broker=server_url(), backend=server_url())
app.conf.update(
    task_acks_late=True,
    task_create_missing_queues=True,
    worker_prefetch_multiplier=64,
    worker_disable_rate_limits=True,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
    broker_transport_options={"max_connections": 3 * CONCURRENCY},
    redis_max_connections=3 * CONCURRENCY,
)

COMING_AND_GOING = ("celery", "unacked", "unacked_index", "unacked_mutex")  # beside results' keys

TASKS = {
    function.__name__: app.task(name=function.__name__)(function) for function in tasks.FUNCTIONS
}


class Contestant(Peer):
    def commands(self, style: str) -> list[list[str]]:
        quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "ERROR"]
        worker = [sys.executable, "-m", "celery", "-A", __name__, "worker", *quiet]
        if style == SHARED:
            pool = ["-P", "gevent", "-c", str(CONCURRENCY), "--prefetch-multiplier", "2"]
        else:
            pool = ["-P", "prefork", "-c", "1"]
        return [[*worker, *pool, "-n", f"{number}@benchmarks"] for number in range(WORKERS)]

    def enqueue(self, task: str, arguments: Sequence[Any]) -> list[Any]:
        delay = TASKS[task].delay
        return [delay(argument) for argument in arguments]

    def enqueue_many(self, task: str, arguments: Sequence[Any]) -> list[Any]:
        send = TASKS[task].apply_async
        with app.producer_or_acquire() as producer, producer.batch():
            return [send((argument,), producer=producer) for argument in arguments]

    def results(self, handles: Sequence[Any]) -> list[Any]:
        return list(ResultSet(list(handles)).join_native(timeout=PATIENCE))

    def round_trip(self, task: str, argument: Any) -> Any:
        return TASKS[task].delay(argument).get(timeout=PATIENCE)

    def waiting(self) -> int:
        return self.server.llen("celery")

    def progress(self) -> int:
        with self.server.pipeline(transaction=True) as together:
            together.dbsize()
            together.exists(*COMING_AND_GOING)
            keys, others = together.execute()
        return int(keys - others)

    def close(self) -> None:
        app.close()
