"""How workers that have reached a limit are replaced: a pure decision, without effects.

::

    worn, open --a worker on standby is to take its place--> draining --> stopping
    starting --READY--> standby --fewer than `most` may run sync tasks--> open

A replacement is started before the old worker drains, and so there may be one process more than
``most`` for a while. It stays on standby until fewer than ``most`` workers run, or may be given,
sync tasks: at no moment do more sync tasks run than there may be workers. A worker that drains and
has only async tasks left holds up no replacement.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

from gtaskman.pool.worker import State


class Life(Protocol):
    """What is asked of a worker.

    ``worn`` says that it has reached a limit, ``replaced`` that another worker has its place.
    """

    state: State
    open: bool
    sync: int
    worn: bool
    replaced: bool


W = TypeVar("W", bound=Life)


@dataclasses.dataclass(slots=True)
class Step(Generic[W]):
    """What to do next: start one more worker, open one that is on standby, drain an old one.

    With both ``open`` and ``drain`` the one takes the place of the other; an old one that drains
    already is only noted as replaced.
    """

    fork: bool = False
    open: W | None = None
    drain: W | None = None


def next_step(workers: Sequence[W], most: int) -> Step[W] | None:
    """The next step towards workers that have reached no limit; None when there is none for now.

    ``workers`` are all that live, ``most`` is how many there may be beside one replacement.
    """
    standby = [worker for worker in workers if worker.state is State.STANDBY]
    leaving = [worker for worker in workers if _is_leaving(worker)]
    if standby and (step := _take_over(standby, leaving, workers, most)) is not None:
        return step
    starting = sum(worker.state is State.STARTING for worker in workers)
    if len(leaving) > len(standby) + starting and len(workers) <= most:
        return Step(fork=True)
    return None


def _is_leaving(worker: Life) -> bool:
    return not worker.replaced and (worker.state is State.DRAINING or (worker.worn and worker.open))


def _take_over(
    standby: list[W], leaving: list[W], workers: Sequence[W], most: int
) -> Step[W] | None:
    draining = [worker for worker in leaving if not worker.open]
    worn = sorted((worker for worker in leaving if worker.open), key=_sync)
    if active(workers) < most:
        return Step(open=standby[0], drain=next(iter(draining + worn), None))
    if worn and not worn[0].sync:
        return Step(open=standby[0], drain=worn[0])
    if worn and len(draining) < len(standby):
        # It is busy: its place is free when it has finished what it has begun.
        return Step(drain=worn[0])
    return None


def active(workers: Sequence[Life]) -> int:
    """How many of the workers run sync tasks, or may be given some."""
    return sum(worker.open or worker.sync > 0 for worker in workers)


def _sync(worker: Life) -> int:
    return worker.sync
