"""One client, one call at a time, and nobody who takes the tasks."""

from __future__ import annotations

from benchmarks.check import same
from benchmarks.measurement import Measurement, timed
from benchmarks.redis.peers.base import Peer

WARM = 100


def run(contestant: type[Peer], count: int) -> Measurement:
    with contestant() as peer:
        peer.enqueue("echo", range(WARM))
        seconds, handles = timed(lambda: peer.enqueue("echo", range(count)))
        checked = same("waiting", [peer.waiting(), len(handles)], [WARM + count, count])
    return Measurement({"tasks_per_second": count / seconds}, checked)
