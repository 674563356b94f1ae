"""One peer in one scenario, in a process of its own; the answer is one line of JSON.

python -m benchmarks.host.contestant PEER SCENARIO '{"count": 1000}'
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from statistics import mean, quantiles
from time import perf_counter
from typing import Any

import gtaskman
from benchmarks import tasks
from benchmarks.catalog import OURS
from benchmarks.check import same
from benchmarks.host.shared import WORKERS, Shared
from benchmarks.measurement import Measurement, timed
from benchmarks.ticker import Ticker

WARM_UP = 500  # tasks before anything is timed

Manager = gtaskman.TaskManager | gtaskman.Client


@contextlib.contextmanager
def manager_of(peer: str) -> Iterator[Manager]:
    """The embedded manager, or a client of the shared one; all its workers are up."""
    if peer == OURS:
        with Shared() as shared, gtaskman.Client(shared.url) as client:
            yield _warm(client)
        return
    sizes = {"min_processes": WORKERS, "max_processes": WORKERS}
    with gtaskman.TaskManager(config=gtaskman.Configuration(**sizes)) as manager:
        yield _warm(manager)


def _warm(manager: Manager) -> Manager:
    pids: set[int] = set()
    while len(pids) < WORKERS:
        pids |= {each.get() for each in [manager.submit(tasks.where, 0.02) for _ in range(WORKERS)]}
    for _ in range(WARM_UP):
        manager.submit(tasks.noop).get()
    return manager


def round_trip(manager: Manager, count: int) -> Measurement:
    took = []
    results = []
    for _ in range(count):
        begin = perf_counter()
        results.append(manager.submit(tasks.noop).get())
        took.append((perf_counter() - begin) * 1e6)
    cuts = quantiles(took, n=100)
    metrics = {"mean_us": mean(took), "p50_us": cuts[49], "p99_us": cuts[98]}
    return Measurement(metrics, same("round trips", results, [None] * count))


def burst(manager: Manager, count: int) -> Measurement:
    def work() -> list[Any]:
        return [each.get() for each in [manager.submit(tasks.noop) for _ in range(count)]]

    seconds, results = timed(work)
    checked = same("a burst", results, [None] * count)
    return Measurement({"tasks_per_second": count / seconds}, checked)


def big(manager: Manager, megabytes: int) -> Measurement:
    size = megabytes * 1_000_000
    with Ticker() as ticker:
        seconds, result = timed(lambda: manager.submit(bytes, size).get())
    checked = same("a large result", [len(result), result.count(0)], [size, size])
    return Measurement({"seconds": seconds, "lag_max_ms": ticker.worst()}, checked)


SCENARIOS: dict[str, Callable[..., Measurement]] = {
    "round_trip": round_trip,
    "burst": burst,
    "big": big,
}


def main() -> None:
    peer, scenario, size = sys.argv[1:]
    with manager_of(peer) as manager:
        measured = SCENARIOS[scenario](manager, **json.loads(size))
    print(json.dumps(asdict(measured)), flush=True)


if __name__ == "__main__":
    main()
