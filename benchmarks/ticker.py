"""A greenlet that wants to run every millisecond, and how late it was each time.

This is what an application's requests feel while the library works on their hub.
"""

import time
from statistics import quantiles
from types import TracebackType
from typing import Self

import gevent

PERIOD = 0.001


class Ticker:
    """Ticks as long as the `with` block lasts; `lags` are milliseconds, one per tick."""

    def __init__(self) -> None:
        self.lags: list[float] = []

    def __enter__(self) -> Self:
        self._greenlet = gevent.spawn(self._tick)
        gevent.sleep(0)  # so that the first tick is on its way before the work starts
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        gevent.sleep(2 * PERIOD)  # so that a hub which was blocked to the end is seen to be late
        self._greenlet.kill()

    def _tick(self) -> None:
        while True:
            due = time.perf_counter() + PERIOD
            gevent.sleep(PERIOD)
            self.lags.append(max(0.0, time.perf_counter() - due) * 1000)

    def percentile(self, percent: int) -> float:
        """The lag, in milliseconds, that `percent` of the ticks stayed below."""
        return quantiles(self.lags, n=100, method="inclusive")[percent - 1]

    def worst(self) -> float:
        """The longest lag, in milliseconds."""
        return max(self.lags)
