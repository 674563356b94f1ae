"""Huey with two process workers.

Without `notify_result` its workers are half as fast again; with it a client that waits is told of
a result, and has it eighty times sooner than by Huey's polling. So there are two of it, each where
it is the better one: `prompt` where somebody waits for one task at a time, `quick` everywhere else.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from huey import RedisHuey

from benchmarks.redis import tasks
from benchmarks.redis.peers.base import (
    CONCURRENCY,
    PATIENCE,
    PROMPT,
    SHARED,
    WORKERS,
    Peer,
    server_url,
    tool,
)

# A greenlet worker takes a connection for each task at a time.
URL = f"{server_url()}?max_connections={3 * CONCURRENCY}"

quick = RedisHuey("benchmarks", url=URL)
prompt = RedisHuey("benchmarks", url=URL, notify_result=True)

QUICK_TASKS = {function.__name__: quick.task()(function) for function in tasks.FUNCTIONS}
PROMPT_TASKS = {function.__name__: prompt.task()(function) for function in tasks.FUNCTIONS}


class Contestant(Peer):
    def commands(self, style: str) -> list[list[str]]:
        instance = f"{__name__}.{'prompt' if style == PROMPT else 'quick'}"
        consumer = [tool("huey_consumer"), instance, "--no-periodic", "--quiet", "--worker-type"]
        if style == SHARED:
            patched = [sys.executable, "-m", "gevent.monkey", *consumer]
            return [[*patched, "greenlet", "--workers", str(CONCURRENCY)]] * WORKERS
        return [[*consumer, "process", "--workers", str(WORKERS)]]

    def enqueue(self, task: str, arguments: Sequence[Any]) -> list[Any]:
        enqueue = QUICK_TASKS[task]
        return [enqueue(argument) for argument in arguments]

    def enqueue_many(self, task: str, arguments: Sequence[Any]) -> list[Any]:
        return list(QUICK_TASKS[task].map(arguments))

    def results(self, handles: Sequence[Any]) -> list[Any]:
        return [each.get(blocking=True, timeout=PATIENCE) for each in handles]

    def round_trip(self, task: str, argument: Any) -> Any:
        return PROMPT_TASKS[task](argument).get(blocking=True, timeout=PATIENCE)

    def waiting(self) -> int:
        return int(quick.pending_count())

    def progress(self) -> int:
        return int(quick.storage.result_store_size())

    def close(self) -> None:
        for each in (quick, prompt):
            each.storage.pool.disconnect()
