"""`loky`, the executor of joblib."""

from collections.abc import Iterable, Sequence
from typing import Any

import loky

from benchmarks.peers.base import WORKERS, Arguments, Function, Peer


class Contestant(Peer):
    def open(self) -> None:
        self._executor = loky.get_reusable_executor(max_workers=WORKERS)

    def close(self) -> None:
        self._executor.shutdown(wait=True, kill_workers=True)

    def burst(self, function: Function, calls: Sequence[Arguments]) -> list[Any]:
        futures = [self._executor.submit(function, *call) for call in calls]
        return [future.result() for future in futures]

    def round_trip(self, function: Function, *arguments: Any) -> Any:
        return self._executor.submit(function, *arguments).result()

    def map(self, function: Function, arguments: Sequence[Any], chunksize: int) -> Iterable[Any]:
        return self._executor.map(function, arguments, chunksize=chunksize)
