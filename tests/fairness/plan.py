"""What a play does: all of it follows from the seed."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

MIB = 1024 * 1024


@dataclasses.dataclass(frozen=True)
class Plan:
    """One play; what is random while it goes on follows from ``seed`` as well."""

    seed: int
    config: dict[str, Any]
    held: int  # long sync tasks, fewer than there may be workers
    held_async: int  # long async tasks
    delayed: int  # tasks that are not due before the play is over
    kinds: tuple[str, ...]  # of the short ones
    rounds: int
    poison: float  # the share of tasks that kill their worker
    unreadable: bool  # whether there is a task that no worker has memory to read
    kills: int  # how many workers with a long task are killed

    @property
    def most(self) -> int:
        """How many workers there may be."""
        return int(self.config["max_processes"])


def make_plan(seed: int) -> Plan:
    """The plan of this seed."""
    chance = random.Random(seed)
    most = chance.randint(1, 4)
    held = chance.randint(0, most - 1)
    # A worker with a long async task takes no sync ones, by the rules: then the short ones are
    # async as well.
    held_async = chance.choice([0, 0, 0, 1, 5])
    kinds = ("async",) if held_async else chance.choice([("sync",), ("sync", "async")])
    config = {
        "min_processes": chance.randint(0, most),
        "max_processes": most,
        "max_jobs_per_process": 50,
        "prefetch": chance.choice([1, 2, 2, 4]),
        "max_prefetch": chance.choice([4, 64]),
        # A worker with a long async task is replaced only once: one more process may live.
        "max_tasks_per_process": chance.choice([None, None, 1, 3, 10]) if held_async < 2 else None,
        "max_age": chance.choice([None, None, None, 0.2]),
        "sync_patience": 0.05,
        "kill_grace": 5.0,
        "ttl": chance.choice([0.1, 60.0]),
    }
    return Plan(
        seed,
        config,
        held,
        held_async,
        chance.choice([0, 20]),
        kinds,
        chance.randint(5, 25),
        chance.choice([0.0, 0.05]) if "sync" in kinds else 0.0,
        chance.random() < 0.2 and "sync" in kinds,
        chance.choice([0, 0, 1]) if held else 0,
    )
