"""Submit many no-op async tasks at once, collect them all."""

from benchmarks.check import same
from benchmarks.measurement import Measurement, timed
from benchmarks.peers import gtaskman


def run(contestant: type[gtaskman.Contestant], count: int) -> Measurement:
    with contestant() as peer:
        peer.burst(gtaskman.noop_async, [()] * 500)
        seconds, results = timed(lambda: peer.burst(gtaskman.noop_async, [()] * count))
    checked = same("async burst", results, [None] * count)
    return Measurement({"tasks_per_second": count / seconds}, checked)
