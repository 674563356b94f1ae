"""gtaskman through its public names: one manager of two workers, and a `Client`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import gevent

import gtaskman
from benchmarks.redis import tasks
from benchmarks.redis.peers.base import CONCURRENCY, PATIENCE, WORKERS, Peer, server_url


@gtaskman.task
def echo(value: int) -> int:
    return tasks.echo(value)


@gtaskman.task(kind="async")
def nap(seconds: float) -> float:
    gevent.sleep(seconds)
    return seconds


@gtaskman.task
def where(seconds: float) -> int:
    return tasks.where(seconds)


@gtaskman.task
def weigh(text: str) -> int:
    return tasks.weigh(text)


TASKS: dict[str, Any] = {"echo": echo, "nap": nap, "where": where, "weigh": weigh}


class Contestant(Peer):
    def open(self) -> None:
        self.client = gtaskman.Client(server_url())

    def close(self) -> None:
        self.client.close()

    def commands(self, style: str) -> list[list[str]]:  # noqa: ARG002 - the same for all
        sizes = ["--min", str(WORKERS), "--max", str(WORKERS), "--jobs", str(CONCURRENCY)]
        return [[sys.executable, "-m", "gtaskman", "run", __name__, "--url", server_url(), *sizes]]

    def enqueue(self, task: str, arguments: Sequence[Any]) -> list[Any]:
        submit, function = self.client.submit, TASKS[task]
        return [submit(function, argument) for argument in arguments]

    def enqueue_many(self, task: str, arguments: Sequence[Any]) -> list[Any]:
        make = TASKS[task].task
        return self.client.submit_many(make(argument) for argument in arguments)

    def results(self, handles: Sequence[Any]) -> list[Any]:
        return [handle.get(timeout=PATIENCE) for handle in handles]

    def round_trip(self, task: str, argument: Any) -> Any:
        return self.client.submit(TASKS[task], argument).get(timeout=PATIENCE)

    def waiting(self) -> int:
        return self.client.count(gtaskman.TaskStatus.WAITING)

    def progress(self) -> int:
        return self.client.count(finished=True)

    def pause(self, seconds: float) -> None:
        gevent.sleep(seconds)
