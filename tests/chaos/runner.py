"""A process with a manager and its workers: ``python -m chaos.runner``; SIGTERM ends it well."""

from __future__ import annotations

import os
import random
import signal
from typing import Any

import gevent
from gevent.event import Event

import gtaskman
from chaos import faults, journal, mutants, work
from chaos.settings import settings
from gtaskman.queues.redis import RedisTaskQueue
from gtaskman.redis.ledger import Beat, Ledger, Turn


def _observe(slips: float, dice: random.Random) -> None:
    """Note every beat and turn, and the server's word on every end."""
    beat, turn = Ledger.beat, Ledger.turn

    def observed_beat(self: Ledger, owner: str, lease: float, first: bool = False) -> Beat:
        told = beat(self, owner, lease, first)
        journal.write("beat", owner)
        return told

    def observed_turn(self: Ledger, owner: str, request: str, settlements: Any, *rest: Any) -> Turn:
        if dice.random() < slips:
            raise OSError(journal.SLIP)
        told = turn(self, owner, request, settlements, *rest)
        journal.write("turn", owner, len(told.claims))
        for each, verdict in zip(settlements, told.verdicts, strict=True):
            journal.write("settled", each.id, each.token, each.outcome, verdict)
        return told

    Ledger.beat = observed_beat  # type: ignore[method-assign]
    Ledger.turn = observed_turn  # type: ignore[method-assign]


def main() -> None:
    """Run tasks until SIGTERM."""
    chosen = settings()
    faults.arm(chosen)
    mutants.arm(chosen.mutant)
    journal.witness()
    _observe(chosen.slips, random.Random(chosen.seed))
    over = Event()
    gevent.signal_handler(signal.SIGTERM, over.set)
    os.environ[work.MANAGER] = str(os.getpid())
    manager = gtaskman.TaskManager(
        RedisTaskQueue(chosen.url, lease=chosen.lease, queues=chosen.queues),
        gtaskman.Configuration(
            min_processes=1,
            max_processes=chosen.processes,
            max_jobs_per_process=8,
            kill_grace=chosen.grace,
        ),
    )
    with manager:
        journal.write("up")
        over.wait()
    journal.write("down")


if __name__ == "__main__":
    main()
