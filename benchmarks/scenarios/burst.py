"""Submit many no-op sync tasks at once, collect them all."""

from benchmarks import tasks
from benchmarks.check import same
from benchmarks.measurement import Measurement, timed
from benchmarks.peers.base import Peer


def run(contestant: type[Peer], count: int) -> Measurement:
    with contestant() as peer:
        seconds, results = timed(lambda: peer.burst(tasks.noop, [()] * count))
    checked = same("burst", results, [None] * count)
    return Measurement({"tasks_per_second": count / seconds}, checked)
