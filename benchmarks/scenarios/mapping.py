"""Map a no-op function over many values, in chunks.

`multiprocessing.Pool` runs its unordered map, the fastest it has; the others keep the order.
"""

from benchmarks import tasks
from benchmarks.check import same
from benchmarks.measurement import Measurement, timed
from benchmarks.peers.base import Peer


def run(contestant: type[Peer], count: int, chunksize: int) -> Measurement:
    with contestant() as peer:
        list(peer.map(tasks.echo, range(10 * chunksize), chunksize))
        seconds, results = timed(lambda: list(peer.map(tasks.echo, range(count), chunksize)))
        ordered = results if peer.map_keeps_order else sorted(results)
    checked = same("map", ordered, range(count))
    return Measurement({"values_per_second": count / seconds}, checked)
