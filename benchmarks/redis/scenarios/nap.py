"""Drain a queue of tasks that sleep, many at a time where the peer has a way for that."""

from __future__ import annotations

from benchmarks.measurement import Measurement
from benchmarks.redis.peers.base import SHARED, Peer
from benchmarks.redis.scenarios.drain import drain


def run(contestant: type[Peer], count: int, seconds: float) -> Measurement:
    return drain(contestant, SHARED, "nap", [seconds] * count)
