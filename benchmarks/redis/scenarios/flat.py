"""What one completion costs while more and more finished tasks are kept.

Batches are settled and claimed straight through the scripts, so that nothing but the server's
work can grow.
"""

from __future__ import annotations

from statistics import median

from benchmarks.check import same
from benchmarks.measurement import Measurement, timed
from benchmarks.redis.peers import bare
from benchmarks.redis.peers.base import Peer
from gtaskman.redis.ledger import BATCH

TIMED_BATCH = 32
REPEATS = 5


def run(_: type[Peer], few: int, more: int, many: int, sample: int) -> Measurement:
    with bare.Contestant() as peer:
        owner = bare.Owner(peer.ledger, "filler")
        costs = []
        for size in (few, more, many):
            fill(peer, owner, size)
            costs.append(median(cost(peer, owner, sample) for _ in range(REPEATS)))
        finished = many + REPEATS * sample
        checked = same("finished", [peer.progress(), peer.waiting()], [finished, 0])
    metrics = {"growth": costs[-1] / costs[0]}
    metrics |= dict(zip(("few_us", "more_us", "many_us"), costs, strict=True))
    return Measurement(metrics, checked)


def fill(peer: bare.Contestant, owner: bare.Owner, size: int) -> None:
    """Let tasks come and finish until `size` are kept."""
    while (missing := size - peer.progress()) > 0:
        peer.send([b"1"] * min(missing, 16 * BATCH))
        finish(owner, BATCH)


def cost(peer: bare.Contestant, owner: bare.Owner, sample: int) -> float:
    """Microseconds for each of `sample` tasks, to claim and to settle it."""
    peer.send([b"1"] * sample)
    seconds, _ = timed(lambda: finish(owner, TIMED_BATCH))
    return seconds / sample * 1e6


def finish(owner: bare.Owner, limit: int) -> None:
    """Claim and settle all that waits."""
    claims = owner.turn([], limit)
    while claims:
        claims = owner.turn(claims, limit)
