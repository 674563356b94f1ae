"""What follows when a process of a service has ended: a pure decision, without effects."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import NamedTuple

from gtaskman.services.options import RestartPolicy, ServiceOptions


class Ending(enum.Enum):
    """How a process of a service came to its end."""

    ASKED = "asked"  # somebody stopped it
    RETURNED = "returned"  # its run returned, or it exited with 0
    FAILED = "failed"  # it raised, crashed, was not ready in time, or was unwell
    HOPELESS = "hopeless"  # it failed, and every other one would fail in the same way


class Next(enum.Enum):
    """What follows."""

    REST = enum.auto()  # nothing, until somebody starts it
    GIVE_UP = enum.auto()  # nothing, and that is a failure
    RESTART = enum.auto()  # it is started again


class Decision(NamedTuple):
    """What follows an end; ``delay`` is the wait for a restart in seconds, ``streak`` the ends in
    a row that it was long for, ``reason`` why it is given up."""

    next: Next
    delay: float = 0.0
    streak: int = 0
    reason: str = ""


_REST = Decision(Next.REST)


def decide(
    options: ServiceOptions,
    ending: Ending,
    *,
    streak: int,
    ran: float,
    restarts: Sequence[float],
    now: float,
    chance: float,
) -> Decision:
    """Decide what follows.

    It ended by itself ``streak`` times in a row before, and ``ran`` for so many seconds this time;
    ``restarts`` are the moments of its restarts so far, on the clock of ``now``; ``chance`` is a
    number from 0 to 1 by chance, for the jitter.
    """
    if ending is Ending.ASKED:
        return _REST
    if ending is Ending.HOPELESS:
        return Decision(Next.GIVE_UP, reason="every other start would fail in the same way")
    if ending is Ending.RETURNED and options.restart is not RestartPolicy.ALWAYS:
        return _REST
    if options.restart is RestartPolicy.NEVER:
        return Decision(Next.GIVE_UP, reason="it is never restarted")
    recent = sum(now - each < options.window for each in restarts)
    if options.max_restarts is not None and recent >= options.max_restarts:
        reason = f"it was restarted {recent} times within {options.window:g} s"
        return Decision(Next.GIVE_UP, reason=reason)
    row = 1 if ran >= options.stable_after else streak + 1
    return Decision(Next.RESTART, options.backoff.delay(row, chance), row)
