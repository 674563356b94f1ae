"""What the server's memory grows by, for each waiting task with a text as its argument.

The client has gone when the server is asked: what it costs while connected is not the tasks'.
"""

from __future__ import annotations

from benchmarks.check import same
from benchmarks.measurement import Measurement
from benchmarks.redis.peers.base import Peer

WARM = 100


def run(contestant: type[Peer], count: int, size: int) -> Measurement:
    peer = contestant()
    peer.open()
    peer.enqueue_many("weigh", ["x" * size] * WARM)
    before = used(peer)
    peer.enqueue_many("weigh", ["x" * size] * count)
    checked = same("waiting", [peer.waiting()], [WARM + count])
    peer.close()
    return Measurement({"bytes_per_task": (used(peer) - before) / count}, checked)


def used(peer: Peer) -> int:
    """Bytes of the server's memory in use."""
    return int(peer.server.info("memory")["used_memory"])
