"""Submit one no-op task, wait for it, submit the next."""

from benchmarks import tasks
from benchmarks.check import same
from benchmarks.measurement import Measurement, timed
from benchmarks.peers.base import Peer


def run(contestant: type[Peer], count: int) -> Measurement:
    with contestant() as peer:
        seconds, results = timed(lambda: [peer.round_trip(tasks.noop) for _ in range(count)])
    checked = same("round trips", results, [None] * count)
    return Measurement({"round_trips_per_second": count / seconds}, checked)
