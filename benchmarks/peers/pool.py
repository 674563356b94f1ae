"""`multiprocessing.Pool`, with its defaults."""

import multiprocessing
from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.peers.base import WORKERS, Arguments, Function, Peer


class Contestant(Peer):
    map_keeps_order = False  # its fastest map does not

    def open(self) -> None:
        self._pool = multiprocessing.Pool(WORKERS)

    def close(self) -> None:
        self._pool.close()
        self._pool.join()

    def burst(self, function: Function, calls: Sequence[Arguments]) -> list[Any]:
        results = [self._pool.apply_async(function, call) for call in calls]
        return [result.get() for result in results]

    def round_trip(self, function: Function, *arguments: Any) -> Any:
        return self._pool.apply(function, arguments)

    def map(self, function: Function, arguments: Sequence[Any], chunksize: int) -> Iterable[Any]:
        return self._pool.imap_unordered(function, arguments, chunksize=chunksize)
