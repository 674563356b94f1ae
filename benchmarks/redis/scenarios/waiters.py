"""A thousand greenlets of one process that wait for results, each for its own.

The connections are those that this process has more of than before, counted by the server while
all greenlets wait. Then all of it once more, with a ticker beside it that wants to run every
millisecond.
"""

from __future__ import annotations

from typing import Any

import gevent

from benchmarks.check import same
from benchmarks.measurement import Measurement
from benchmarks.redis.peers import gtaskman as peers
from benchmarks.redis.peers.base import PATIENCE, SHARED
from benchmarks.redis.team import Team
from benchmarks.ticker import Ticker

SETTLING = 0.2  # seconds until the server knows that a connection is gone


def run(
    contestant: type[peers.Contestant], greenlets: int, tasks: int, seconds: float
) -> Measurement:
    peer = contestant()
    peer.open()
    with Team(peer, SHARED):
        peer.close()
        gevent.sleep(SETTLING)
        before = connections(peer)
        same("result", [peer.round_trip("nap", 0.001)], [0.001])
        crowd = start(peer, greenlets, 1, 10 * seconds)
        await_submitted(peer, greenlets)
        during = connections(peer)
        checked = collect(crowd, [10 * seconds])
        with Ticker() as ticker:
            checked += collect(start(peer, greenlets, tasks, seconds), [seconds] * tasks)
        peer.close()
    metrics = {
        "lag_p99_ms": ticker.percentile(99),
        "lag_p50_ms": ticker.percentile(50),
        "lag_max_ms": ticker.worst(),
        "reply_connections": float(during["pubsub"] - before["pubsub"]),
        "connections": float(sum(during.values()) - sum(before.values())),
    }
    return Measurement(metrics, checked)


def start(peer: peers.Contestant, greenlets: int, tasks: int, seconds: float) -> list[Any]:
    """Greenlets that each send a task and wait for it, `tasks` times."""

    def work() -> list[float]:
        return [peer.round_trip("nap", seconds) for _ in range(tasks)]

    return [gevent.spawn(work) for _ in range(greenlets)]


def await_submitted(peer: peers.Contestant, count: int) -> None:
    """Return when the server has as many tasks as there are greenlets: now all of them wait."""
    with gevent.Timeout(PATIENCE):
        while peer.client.count() < count:
            gevent.sleep(0.005)


def collect(crowd: list[Any], expected: list[float]) -> int:
    """Wait for the greenlets, and compare what they got."""
    gevent.joinall(crowd, raise_error=True)
    return sum(same("waiters", greenlet.value, expected) for greenlet in crowd)


def connections(peer: peers.Contestant) -> dict[str, int]:
    """How many connections the server has, by their kind."""
    return {kind: len(peer.server.client_list(_type=kind)) for kind in ("normal", "pubsub")}
