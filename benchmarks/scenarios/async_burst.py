"""Submit many no-op async tasks at once, collect them all."""

from benchmarks.check import same
from benchmarks.measurement import Measurement, timed
from benchmarks.peers import gtaskman


def run(contestant: type[gtaskman.Contestant], count: int) -> Measurement:
    with contestant() as peer:
        peer.burst(gtaskman.echo_async, range(500))
        seconds, results = timed(lambda: peer.burst(gtaskman.echo_async, range(count)))
    checked = same("async burst", results, range(count))
    return Measurement({"tasks_per_second": count / seconds}, checked)
