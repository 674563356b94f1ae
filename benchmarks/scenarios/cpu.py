"""Keep both workers computing: how much of the cores is the library's own cost?

The ideal is two bare processes doing the same loops at the same time. Bare and managed slices
alternate as bare, managed, managed, bare, so that a drift of the machine's speed cancels out.

The ticker runs through all of them: it is the instrument, not the library, so both sides pay
for it, and its lag beside the bare processes says what the kernel's scheduler alone does to a
hub on a machine whose cores are all busy.
"""

from statistics import mean

import gevent

from benchmarks import tasks
from benchmarks.bare import BareProcesses
from benchmarks.check import same
from benchmarks.measurement import Measurement, timed
from benchmarks.peers.base import WORKERS, Peer
from benchmarks.ticker import Ticker

TRIAL_LOOPS = 50_000


def run(contestant: type[Peer], seconds: float, unit: float) -> Measurement:
    bare_ticker, ticker = Ticker(), Ticker()
    with BareProcesses(WORKERS) as processes, contestant() as peer:
        loops = calibrate(processes, unit)
        count = round(seconds / 2 * WORKERS / unit)

        def bare() -> float:
            with bare_ticker:
                return processes.run(seconds / 2, loops, pause=gevent.sleep)

        def managed() -> float:
            with ticker:
                return count / timed_burst(peer, count, loops)

        first, second, third, last = bare(), managed(), managed(), bare()
    efficiency = mean((second, third)) / mean((first, last))
    metrics = {"efficiency": efficiency, "unit_ms": WORKERS / mean((first, last)) * 1000}
    lags = {
        f"{name}_{label}": value
        for name, lags in (("lag", ticker), ("bare_lag", bare_ticker))
        for label, value in (
            ("p50_ms", lags.percentile(50)),
            ("p99_ms", lags.percentile(99)),
            ("max_ms", lags.worst()),
        )
    }
    return Measurement(metrics | lags, checked=2 * count)


def calibrate(processes: BareProcesses, unit: float) -> int:
    """How many loops take `unit` seconds while the other core is busy too."""
    return round(TRIAL_LOOPS * unit * processes.run(0.3, TRIAL_LOOPS) / processes.count)


def timed_burst(peer: Peer, count: int, loops: int) -> float:
    """Run `count` tasks of `loops` flat out; give back the seconds until the last result."""
    took, results = timed(lambda: peer.burst(tasks.burn, [(loops,)] * count))
    same("cpu", results, [tasks.burn(loops)] * count)
    return took
