"""What one contestant found out in one scenario and one round."""

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Measurement:
    """Metrics by name, and how many results were compared with the right ones to get them."""

    metrics: dict[str, float]
    checked: int


def timed(work: Callable[[], T]) -> tuple[float, T]:
    """Run `work` and give back the seconds it took and its result."""
    start = perf_counter()
    result = work()
    return perf_counter() - start, result
