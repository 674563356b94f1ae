"""Drain a queue of no-op tasks."""

from __future__ import annotations

from benchmarks.measurement import Measurement
from benchmarks.redis.peers.base import PROCESSES, Peer
from benchmarks.redis.scenarios.drain import drain


def run(contestant: type[Peer], count: int) -> Measurement:
    return drain(contestant, PROCESSES, "echo", range(count))
