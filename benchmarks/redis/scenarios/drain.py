"""A full queue before two workers that are up and warm: how long until all results are there?

The workers are halted while the queue is filled; the clock starts as they are let go. It stops
when the last result is on the server, whoever may collect it: nobody's client takes a core from
its workers, unless its results come to it by themselves. The results are collected and compared
after that, and how fast all was in the client's hands is a figure of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import Any

from benchmarks.check import same
from benchmarks.measurement import Measurement
from benchmarks.redis.peers.base import Peer
from benchmarks.redis.team import Team

LOOK_EVERY = 0.002
TIMEOUT = 90.0


def drain(contestant: type[Peer], style: str, task: str, arguments: Sequence[Any]) -> Measurement:
    with contestant() as peer, Team(peer, style) as team:
        team.halt()
        handles = peer.enqueue_many(task, arguments)
        goal = peer.progress() + len(arguments)
        start = perf_counter()
        team.go()
        while peer.progress() < goal:
            if perf_counter() > start + TIMEOUT:
                missing = goal - peer.progress()
                raise TimeoutError(f"{missing:,} results were missing after {TIMEOUT:.0f} s")
            peer.pause(LOOK_EVERY)
        done = perf_counter() - start
        results = peer.results(handles)
        collected = perf_counter() - start
    checked = same(task, results, arguments)
    count = len(arguments)
    metrics = {"tasks_per_second": count / done, "collected_per_second": count / collected}
    return Measurement(metrics, checked)
