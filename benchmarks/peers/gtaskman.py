"""gtaskman itself, through its public names only, with the same plain functions as its peers."""

from collections.abc import Iterable, Sequence
from typing import Any

import gevent

import gtaskman
from benchmarks import tasks
from benchmarks.peers.base import WORKERS, Arguments, Function, Peer


@gtaskman.task(kind="async")
def noop_async() -> None:
    tasks.noop()


@gtaskman.task(kind="async")
def nap_async(seconds: float) -> float:
    gevent.sleep(seconds)
    return seconds


class Contestant(Peer):
    """A manager with two workers, unless the scenario says otherwise."""

    def __init__(self, **configuration: Any) -> None:
        sizes = {"min_processes": WORKERS, "max_processes": WORKERS}
        self._configuration = gtaskman.Configuration(**sizes | configuration)
        self.workers = self._configuration.min_processes

    def open(self) -> None:
        self.manager = gtaskman.TaskManager(config=self._configuration)
        self.manager.start()

    def close(self) -> None:
        self.manager.stop(timeout=10)

    def burst(self, function: Function, calls: Sequence[Arguments]) -> list[Any]:
        handles = [self.manager.submit(function, *call) for call in calls]
        return [handle.get() for handle in handles]

    def round_trip(self, function: Function, *arguments: Any) -> Any:
        return self.manager.submit(function, *arguments).get()

    def map(self, function: Function, arguments: Sequence[Any], chunksize: int) -> Iterable[Any]:
        return self.manager.map(function, arguments, chunksize=chunksize)
