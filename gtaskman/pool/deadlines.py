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
        self._due_now: list[tuple[float, int, Any]] = []  # taken off the heap, not fired yet
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

    def entries(self) -> list[Any]:
        """All that is to be fired."""
        return [each[2] for each in (*self._due_now, *self._heap)]

    def close(self) -> None:
        """Forget everything."""
        self._heap.clear()
        self._due_now.clear()
        self._alarm.cancel()
        self._armed = float("inf")

    def _arm(self, when: float) -> None:
        self._alarm.set(when - time.monotonic(), self._due)
        self._armed = when

    def _due(self) -> None:
        self._armed = float("inf")  # the alarm has gone off
        now = time.monotonic()
        heap, due = self._heap, self._due_now
        try:
            while due or (heap and heap[0][0] <= now):
                if not due:
                    # Taken and noted at once: no signal handler can raise in between.
                    due.extend(map(heapq.heappop, (heap,)))
                entry = due[0][2]
                try:
                    if self._alive(entry):
                        self._fire(entry)
                except Exception:
                    del due[:]
                    raise
                del due[:]
        finally:
            # In any case: an exception of one entry must not keep the others from firing.
            self.arm()

    def arm(self) -> None:
        """Be called for the next one."""
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
