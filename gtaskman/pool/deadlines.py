"""Many deadlines on one timer of the loop."""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable
from typing import Any

from gtaskman.pool.alarm import Alarm

_MANY = 64  # entries below which nobody minds those that are over


class Deadlines:
    """A heap of moments, with what is to happen then.

    Whoever no longer needs his entry leaves it: it is looked at when its moment comes, and
    ``alive(entry)`` says whether it still matters. When most do not, they are thrown out together.
    """

    def __init__(
        self, loop: Any, fire: Callable[[Any], None], alive: Callable[[Any], bool]
    ) -> None:
        self._fire = fire
        self._alive = alive
        self._heap: list[tuple[float, int, Any]] = []
        self._order = itertools.count()
        self._alarm = Alarm(loop)
        self._armed = float("inf")
        self._sweep_at = _MANY

    def add(self, when: float, entry: Any) -> None:
        """Have ``fire(entry)`` called at ``when``, a monotonic time."""
        heapq.heappush(self._heap, (when, next(self._order), entry))
        if when < self._armed:
            self._arm(when)
        if len(self._heap) > self._sweep_at:
            self._sweep()

    def close(self) -> None:
        """Forget everything."""
        self._heap.clear()
        self._alarm.cancel()
        self._armed = float("inf")

    def _arm(self, when: float) -> None:
        self._armed = when
        self._alarm.set(when - time.monotonic(), self._due)

    def _due(self) -> None:
        self._armed = float("inf")
        now = time.monotonic()
        heap = self._heap
        try:
            while heap and heap[0][0] <= now:
                entry = heapq.heappop(heap)[2]
                if self._alive(entry):
                    self._fire(entry)
        finally:
            # In any case: an exception of one entry must not keep the others from firing.
            self._arm_for_next()

    def _arm_for_next(self) -> None:
        heap = self._heap
        while heap and not self._alive(heap[0][2]):
            heapq.heappop(heap)
        if heap and heap[0][0] < self._armed:
            self._arm(heap[0][0])

    def _sweep(self) -> None:
        # In place: whoever goes through the heap right now must not be left with an old one.
        self._heap[:] = [each for each in self._heap if self._alive(each[2])]
        heapq.heapify(self._heap)
        self._sweep_at = max(_MANY, 2 * len(self._heap))
