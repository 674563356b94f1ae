"""taskiq with its stream broker, which acknowledges, and results in Redis.

Its list broker, which forgets what a dead worker had, is no faster here. A result is polled for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

from benchmarks.redis import tasks
from benchmarks.redis.peers.base import (
    CONCURRENCY,
    PATIENCE,
    WORKERS,
    AsyncioPeer,
    server_url,
    tool,
)

RESULT_POLL = 0.001  # seconds

broker = RedisStreamBroker(server_url(), consumer_id="0").with_result_backend(
    RedisAsyncResultBackend(server_url(), result_ex_time=3600)
)


async def echo(value: int) -> int:
    return value


async def nap(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


async def where(seconds: float) -> int:
    return tasks.where(seconds)


async def weigh(text: str) -> int:
    return tasks.weigh(text)


TASKS = {
    function.__name__: broker.task(function.__name__)(function)
    for function in (echo, nap, where, weigh)
}


class Contestant(AsyncioPeer):
    def open(self) -> None:
        self.wait(broker.startup())

    def close(self) -> None:
        self.wait(broker.shutdown())
        super().close()

    def commands(self, style: str) -> list[list[str]]:  # noqa: ARG002 - the same for all
        sizes = ["--workers", str(WORKERS), "--max-async-tasks", str(CONCURRENCY)]
        return [[tool("taskiq"), "worker", f"{__name__}:broker", *sizes, "--log-level", "ERROR"]]

    def enqueue(self, task: str, arguments: Sequence[Any]) -> list[Any]:
        async def one_by_one() -> list[Any]:
            return [await TASKS[task].kiq(argument) for argument in arguments]

        return self.wait(one_by_one())

    def enqueue_many(self, task: str, arguments: Sequence[Any]) -> list[Any]:
        return self.enqueue(task, arguments)

    def results(self, handles: Sequence[Any]) -> list[Any]:
        async def one_by_one() -> list[Any]:
            return [
                (await each.wait_result(check_interval=RESULT_POLL, timeout=PATIENCE)).return_value
                for each in handles
            ]

        return self.wait(one_by_one())

    def waiting(self) -> int:
        return self.server.xlen("taskiq")

    def progress(self) -> int:
        with self.server.pipeline(transaction=True) as together:
            together.dbsize()
            together.exists("taskiq", "autoclaim:taskiq:taskiq")
            keys, others = together.execute()
        return int(keys - others)
