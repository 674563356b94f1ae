"""Submit many tasks with a number each, collect the numbers: a burst that carries something."""

from benchmarks import tasks
from benchmarks.check import same
from benchmarks.measurement import Measurement, timed
from benchmarks.peers.base import Peer


def run(contestant: type[Peer], count: int) -> Measurement:
    calls = [(number,) for number in range(count)]
    with contestant() as peer:
        seconds, results = timed(lambda: peer.burst(tasks.echo, calls))
    checked = same("echo", results, range(count))
    return Measurement({"tasks_per_second": count / seconds}, checked)
