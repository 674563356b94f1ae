"""What the server's memory grows by for each waiting task, by the size of its envelope.

The same as `memory`, one storey lower: the envelope carries names and times beside an argument.
"""

from __future__ import annotations

from benchmarks.check import same
from benchmarks.measurement import Measurement
from benchmarks.redis.peers import bare
from benchmarks.redis.peers.base import Peer
from benchmarks.redis.scenarios.memory import used

WARM = 100


def run(_: type[Peer], count: int, size: int) -> Measurement:
    with bare.Contestant() as peer:
        peer.send([b"x" * size] * WARM)
        before = used(peer)
        peer.send([b"x" * size] * count)
        checked = same("waiting", [peer.waiting()], [WARM + count])
        return Measurement({"bytes_per_task": (used(peer) - before) / count}, checked)
