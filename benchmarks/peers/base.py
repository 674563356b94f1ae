"""What a scenario may ask of a contestant.

A peer's methods hold nothing but that peer's own calls: they are what is timed.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Self

from benchmarks import tasks

WORKERS = 2
WARM_TIMEOUT = 15.0

Function = Callable[..., Any]
Arguments = tuple[Any, ...]


class Peer(ABC):
    """A pool of worker processes, two unless asked otherwise, open as the `with` block lasts."""

    workers = WORKERS
    map_keeps_order = True

    @abstractmethod
    def open(self) -> None:
        """Start the pool."""

    @abstractmethod
    def close(self) -> None:
        """Stop it, workers included."""

    @abstractmethod
    def burst(self, function: Function, calls: Sequence[Arguments]) -> list[Any]:
        """Submit one task per call, all at once; then collect every result, in order."""

    @abstractmethod
    def round_trip(self, function: Function, *arguments: Any) -> Any:
        """Submit one task and wait for its result."""

    def map(self, function: Function, arguments: Sequence[Any], chunksize: int) -> Iterable[Any]:
        """The peer's own map over processes."""
        raise NotImplementedError(f"{type(self).__name__} has no map")

    def warm(self) -> None:
        """Return only when every worker has run something: starting is not what is timed."""
        deadline = time.monotonic() + WARM_TIMEOUT
        while len(set(self.burst(tasks.where, [(0.02,)] * self.workers))) < self.workers:
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"{self.workers} workers were not up within {WARM_TIMEOUT:.0f} s"
                )
        self.burst(tasks.noop, [()] * 500)

    def __enter__(self) -> Self:
        self.open()
        self.warm()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
