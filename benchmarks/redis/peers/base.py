"""What a scenario may ask of a contestant.

A peer's methods hold nothing but that peer's own calls: they are what is timed. Tasks go by the
names of the functions in `benchmarks.redis.tasks` and take one argument each:

| task | does |
| --- | --- |
| `echo` | the no-op, with a number there and back, so that each result can be told apart |
| `nap` | sleeps, without keeping others waiting where the peer has a way for that |
| `where` | blocks its worker process for a moment and says which it was |
| `weigh` | takes a text |
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import redis

T = TypeVar("T")

WORKERS = 2
CONCURRENCY = 100  # of each worker, where tasks share one
PATIENCE = 60  # seconds for any one result
PROCESSES, PROMPT, SHARED = "processes", "prompt", "shared"  # styles of workers
URL_VARIABLE = "GTASKMAN_BENCHMARK_URL"


def server_url() -> str:
    """Where the private server of this measurement is."""
    return os.environ[URL_VARIABLE]


def tool(name: str) -> str:
    """The path of a command that was installed beside this interpreter."""
    return str(Path(sys.executable).parent / name)


class Peer(ABC):
    """The client side of a contestant, and the commands that start its workers."""

    workers = WORKERS

    @abstractmethod
    def commands(self, style: str) -> list[list[str]]:
        """What starts the workers, two processes altogether.

        `style` is what they are best at: `PROCESSES` for throughput of tasks that compute,
        `PROMPT` for one task at a time that somebody waits for, `SHARED` for tasks that wait
        themselves, `CONCURRENCY` at a time in each process where the peer has a way for that.
        """

    @abstractmethod
    def enqueue(self, task: str, arguments: Sequence[Any]) -> list[Any]:
        """One call after the other, one for each argument; the handles."""

    @abstractmethod
    def enqueue_many(self, task: str, arguments: Sequence[Any]) -> list[Any]:
        """All of them, by the fastest call that the peer offers for many; the handles."""

    @abstractmethod
    def results(self, handles: Sequence[Any]) -> list[Any]:
        """Every result, in order, waiting for those that are not there yet."""

    @abstractmethod
    def waiting(self) -> int:
        """How many tasks wait on the server."""

    @abstractmethod
    def progress(self) -> int:
        """A number that rises by one with each result that reaches the server.

        Where it starts means nothing. It must be cheap to ask for: the workers are being timed.
        """

    def round_trip(self, task: str, argument: Any) -> Any:
        """Send one task and wait for its result."""
        return self.results(self.enqueue(task, [argument]))[0]

    def open(self) -> None:  # noqa: B027 - most have no such step
        """Connect the client, where that is a step of its own."""

    def close(self) -> None:  # noqa: B027
        """Disconnect it."""

    def pause(self, seconds: float) -> None:
        """Wait as the peer's client does."""
        time.sleep(seconds)

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @cached_property
    def server(self) -> redis.Redis:
        """A plain connection, to look at the server from outside."""
        return redis.Redis.from_url(server_url())


class AsyncioPeer(Peer):
    """A peer whose client lives on an asyncio loop; the whole of a timed part runs inside it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()

    def wait(self, work: Awaitable[T]) -> T:
        """Run the loop until `work` is done."""
        return self._loop.run_until_complete(work)

    def close(self) -> None:
        self._loop.close()
