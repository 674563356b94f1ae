"""Submit one no-op task, wait for its result, submit the next."""

from __future__ import annotations

from functools import partial
from statistics import quantiles

from benchmarks.check import same
from benchmarks.measurement import Measurement, timed
from benchmarks.redis.peers.base import PROMPT, Peer
from benchmarks.redis.team import Team

WARM = 50


def run(contestant: type[Peer], count: int) -> Measurement:
    with contestant() as peer, Team(peer, PROMPT):
        for number in range(WARM):
            peer.round_trip("echo", number)
        trips = [timed(partial(peer.round_trip, "echo", number)) for number in range(count)]
    checked = same("round trips", [result for _, result in trips], range(count))
    steps = quantiles([seconds * 1e6 for seconds, _ in trips], n=100, method="inclusive")
    return Measurement({"p50_us": steps[49], "p99_us": steps[98]}, checked)
