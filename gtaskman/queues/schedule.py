"""Jobs by the moment at which something is to become of them."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator

from gtaskman.job import Job

_MANY = 64  # entries below which nobody minds those that no longer matter

Matters = Callable[[float, Job], bool]


class Schedule:
    """A heap of moments (monotonic seconds).

    A job that no longer waits for its moment is left in: ``matters(when, job)`` tells. When most
    are of that kind they are thrown out together.
    """

    def __init__(self, matters: Matters) -> None:
        self._matters = matters
        self._heap: list[tuple[float, int, Job]] = []
        self._order = itertools.count()
        self._sweep_at = _MANY

    def add(self, when: float, job: Job) -> None:
        """Note what comes at ``when``."""
        heapq.heappush(self._heap, (when, next(self._order), job))
        if len(self._heap) > self._sweep_at:
            self._sweep()

    def _sweep(self) -> None:
        # A signal handler may add jobs meanwhile: they go to a heap of their own at first.
        heap, self._heap = self._heap, []
        heap = [each for each in heap if self._matters(each[0], each[2])]
        heapq.heapify(heap)
        self._sweep_at = max(_MANY, 2 * len(heap))
        added, self._heap = self._heap, heap
        for each in added:
            heapq.heappush(self._heap, each)

    def next(self) -> float | None:
        """The first moment that matters, or None."""
        heap = self._heap
        while heap:
            first = heap[0]
            if self._matters(first[0], first[2]):
                return first[0]
            if heap and heap[0] is first:  # a signal handler may have added what comes before it
                heapq.heappop(heap)
        return None

    def due(self, now: float) -> list[Job]:
        """The jobs whose moment has come, which stay in; may be called from any thread."""
        heap, found, places = list(self._heap), [], [0]
        while places:
            place = places.pop()
            if place < len(heap) and heap[place][0] <= now:
                when, _, job = heap[place]
                if self._matters(when, job):
                    found.append(job)
                places += (2 * place + 1, 2 * place + 2)
        return found

    def take(self, now: float) -> Iterator[tuple[float, Job]]:
        """The moments that have come, with their jobs, in order, one after the other taken out."""
        while self._heap and self._heap[0][0] <= now:
            when, _, job = heapq.heappop(self._heap)
            if self._matters(when, job):
                yield when, job

    def __bool__(self) -> bool:
        return bool(self._heap)
