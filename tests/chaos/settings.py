"""What a run tells each process that it starts."""

from __future__ import annotations

import functools
import os

import msgspec

NAME = "GTASKMAN_CHAOS"


class Settings(msgspec.Struct, frozen=True):
    """Of one process; most are those of the whole run."""

    url: str
    journal: str
    lease: float = 1.0  # seconds
    lost: float = 0.0  # the share of replies that get lost
    unheard: float = 0.0  # the share of messages that get lost
    slips: float = 0.0  # the share of turns in which a manager's own code fails
    cancels: float = 0.05  # the share of tasks that somebody cancels
    crowd: int = 0  # tasks that a sender sends at once, instead of some now and then
    replicas: int = 0  # that must have a task before it counts as sent
    mutant: str = ""  # see ``faults`` and ``mutants``
    queues: tuple[str, ...] = ("default",)  # that a manager serves
    grace: float = 0.1  # seconds that a task has to stop
    processes: int = 2  # workers of a manager
    refused: bool = False  # the server may refuse what a sender wants: it tries again
    seed: int = 0

    def environment(self) -> dict[str, str]:
        """What the process finds them in."""
        return {NAME: msgspec.json.encode(self).decode()}


@functools.cache
def settings() -> Settings:
    """Those of this process."""
    return msgspec.json.decode(os.environ[NAME], type=Settings)
