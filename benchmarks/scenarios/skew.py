"""A few long tasks among many short ones: does a short one ever wait behind a long one?

The tasks sleep, so that neither the number of cores nor their noise enters: only the order in
which the workers are given work does. The order is shuffled with a fixed seed, the same for
every contestant, and one with no long task at the very end, which no scheduler could mend.
`greedy_to_ideal` is what a scheduler reaches that knows nothing beforehand
and hands the next task to the first free worker, with no cost at all.
"""

import heapq
import random

from benchmarks import tasks
from benchmarks.check import same
from benchmarks.measurement import Measurement, timed
from benchmarks.peers.base import WORKERS, Peer

SEED = 13


def run(contestant: type[Peer], count: int, share: float, long: float, short: float) -> Measurement:
    durations = shuffled(count, share, long, short)
    ideal = max(sum(durations) / WORKERS, max(durations))
    calls = [(duration,) for duration in durations]
    with contestant() as peer:
        makespan, results = timed(lambda: peer.burst(tasks.nap, calls))
    checked = same("skew", results, durations)
    metrics = {
        "makespan_ms": makespan * 1000,
        "to_ideal": makespan / ideal,
        "greedy_to_ideal": greedy(durations) / ideal,
    }
    return Measurement(metrics, checked)


def shuffled(count: int, share: float, long: float, short: float) -> list[float]:
    """`share` of the `count` tasks are long, the rest short; always in the same order."""
    many = round(count * share)
    durations = [long] * many + [short] * (count - many)
    random.Random(SEED).shuffle(durations)
    return durations


def greedy(durations: list[float]) -> float:
    """The makespan of handing each task, in order, to the worker that is free first."""
    free = [0.0] * WORKERS
    for duration in durations:
        heapq.heapreplace(free, free[0] + duration)
    return max(free)
