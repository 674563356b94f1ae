"""`concurrent.futures.ProcessPoolExecutor`, with its defaults."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from benchmarks.peers.base import WORKERS, Arguments, Function, Peer


class Contestant(Peer):
    def open(self) -> None:
        self._executor = ProcessPoolExecutor(WORKERS)

    def close(self) -> None:
        self._executor.shutdown()

    def burst(self, function: Function, calls: Sequence[Arguments]) -> list[Any]:
        futures = [self._executor.submit(function, *call) for call in calls]
        return [future.result() for future in futures]

    def round_trip(self, function: Function, *arguments: Any) -> Any:
        return self._executor.submit(function, *arguments).result()

    def map(self, function: Function, arguments: Sequence[Any], chunksize: int) -> Iterable[Any]:
        return self._executor.map(function, arguments, chunksize=chunksize)
