"""Whether anything that a task left behind may still reach the greenlet that it ran in.

A ``gevent.Timeout`` that still runs, or any other callback that is to switch or throw into the
greenlet, refers to it: so the number of references tells, at the cost of reading it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from gevent import getcurrent
from greenlet import greenlet as PlainGreenlet  # noqa: N812 - a class, whatever its name

references: Callable[[Any], int] = sys.getrefcount
"""How many references there are to a greenlet that is in a variable of the caller."""


def _references_of_a_kept_one() -> int:
    def wait() -> None:
        own = getcurrent()
        own.parent.switch()

    kept = PlainGreenlet(wait)
    kept.switch()
    return references(kept)


KEPT: int = _references_of_a_kept_one()
"""What :func:`references` gives of a greenlet that is kept for the next task, and held by nothing
else: counted here, since it differs between versions of Python."""
