"""One huge argument, one huge result: how fast, and does the parent's hub freeze meanwhile?

Only the passage is timed and ticked. The worker makes and hashes contents in tasks of their
own, before and after; the parent does so while no ticker runs. One worker, so that the task
that asks for the digest meets the payload it is about.
"""

import gevent

from benchmarks import tasks
from benchmarks.check import same
from benchmarks.measurement import Measurement, timed
from benchmarks.peers import gtaskman
from benchmarks.ticker import Ticker

MEGA = 1_000_000
KINDS = {
    "bytes": (bytes, tasks.prepare_bytes),
    "bytearray": (bytearray, tasks.prepare_bytearray),
}


def run(contestant: type[gtaskman.Contestant], megabytes: int) -> Measurement:
    size = megabytes * MEGA
    metrics: dict[str, float] = {"idle_lag_max_ms": idle_lag()}
    with contestant(min_processes=1, max_processes=1) as peer:
        for kind in KINDS:
            metrics |= send(peer, kind, size) | receive(peer, kind, size)
    metrics["lag_max_ms"] = max(
        value
        for name, value in metrics.items()
        if name.startswith(("to_", "from_")) and "lag" in name
    )
    return Measurement(metrics, checked=2 * len(KINDS))


def idle_lag() -> float:
    """What the ticker shows on a hub with nothing to do, for about as long as a passage takes."""
    with Ticker() as ticker:
        gevent.sleep(0.3)
    return ticker.worst()


def send(peer: gtaskman.Contestant, kind: str, size: int) -> dict[str, float]:
    """Pass an argument of `size` bytes to the worker, which then says what it got."""
    make, _ = KINDS[kind]
    payload = make(tasks.content(size, size))
    with Ticker() as ticker:
        seconds, length = timed(lambda: peer.round_trip(tasks.keep, payload))
    there = peer.round_trip(tasks.digest_of_kept, 0)
    same(f"{kind} argument", [length, there], [size, tasks.digest(payload)])
    return passage(f"to_{kind}", size, seconds, ticker)


def receive(peer: gtaskman.Contestant, kind: str, size: int) -> dict[str, float]:
    """Get a result of `size` bytes from the worker, which said beforehand what it would be."""
    _, prepare = KINDS[kind]
    there = peer.round_trip(prepare, size)
    with Ticker() as ticker:
        seconds, payload = timed(lambda: peer.round_trip(tasks.give, 0))
    same(f"{kind} result", [len(payload), tasks.digest(payload)], [size, there])
    return passage(f"from_{kind}", size, seconds, ticker)


def passage(name: str, size: int, seconds: float, ticker: Ticker) -> dict[str, float]:
    """The metrics of one passage."""
    return {f"{name}_mb_per_second": size / MEGA / seconds, f"{name}_lag_max_ms": ticker.worst()}
