"""arq: two processes of many jobs each.

arq finds jobs and results by polling only, every half a second unless told otherwise, and nothing
but that would be measured. So its workers poll every 10 ms, from where on they drain a queue no
faster, and every millisecond where somebody waits for each job.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from arq import create_pool
from arq.connections import RedisSettings
from arq.worker import func

from benchmarks.redis import tasks
from benchmarks.redis.peers.base import (
    CONCURRENCY,
    PATIENCE,
    PROMPT,
    WORKERS,
    AsyncioPeer,
    server_url,
    tool,
)

THRIFTY_POLL, PROMPT_POLL, RESULT_POLL = 0.01, 0.001, 0.001  # seconds

SILENCE = {"version": 1, "loggers": {"arq": {"level": "ERROR"}}}


async def echo(_: Any, value: int) -> int:
    return value


async def nap(_: Any, seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


async def where(_: Any, seconds: float) -> int:
    return tasks.where(seconds)


async def weigh(_: Any, text: str) -> int:
    return tasks.weigh(text)


class WorkerSettings:
    """What arq's command reads; only what stands in the class itself."""

    functions = [func(function) for function in (echo, nap, where, weigh)]
    redis_settings = RedisSettings.from_dsn(server_url())
    max_jobs = CONCURRENCY
    poll_delay = THRIFTY_POLL
    keep_result = 3600


class PromptSettings:
    """The same for a client that waits for each job."""

    functions = WorkerSettings.functions
    redis_settings = WorkerSettings.redis_settings
    max_jobs = WorkerSettings.max_jobs
    poll_delay = PROMPT_POLL
    keep_result = WorkerSettings.keep_result


class Contestant(AsyncioPeer):
    def open(self) -> None:
        self._pool = self.wait(create_pool(WorkerSettings.redis_settings))

    def close(self) -> None:
        self.wait(self._pool.aclose())
        super().close()

    def commands(self, style: str) -> list[list[str]]:
        log = ["--custom-log-dict", f"{__name__}.SILENCE"]
        settings = "PromptSettings" if style == PROMPT else "WorkerSettings"
        return [[tool("arq"), f"{__name__}.{settings}", *log]] * WORKERS

    def enqueue(self, task: str, arguments: Sequence[Any]) -> list[Any]:
        async def one_by_one() -> list[Any]:
            return [await self._pool.enqueue_job(task, argument) for argument in arguments]

        return self.wait(one_by_one())

    def enqueue_many(self, task: str, arguments: Sequence[Any]) -> list[Any]:
        return self.enqueue(task, arguments)

    def results(self, handles: Sequence[Any]) -> list[Any]:
        async def one_by_one() -> list[Any]:
            return [await job.result(PATIENCE, poll_delay=RESULT_POLL) for job in handles]

        return self.wait(one_by_one())

    def waiting(self) -> int:
        return self.server.zcard("arq:queue")

    def progress(self) -> int:
        return -self.waiting()  # a job leaves the queue with its result, not before
