"""What a task leaves behind in the greenlet that it ran in: a ``gevent.Timeout`` that still runs.

It would be raised into the next task. Looking for it is slow, so it is done only after a task that
left more watchers active than there were, and less and less often while nothing is found: tasks
may leave connections or greenlets of their own, which harm no other task.
"""

from __future__ import annotations

import gc
import logging
import sys
from typing import Any

from gevent import Timeout, getcurrent
from greenlet import greenlet as PlainGreenlet  # noqa: N812 - a class, whatever its name

from gtaskman.child.run import Run

log = logging.getLogger(__name__)

_MOST_SKIPPED = 1023  # times that a search is left out after many that found nothing


class Leftovers:
    """Cancels the timeouts that sync tasks leave running in ``greenlet``, where all of them run."""

    def __init__(self, greenlet: Any) -> None:
        self._greenlet = greenlet
        self._skip = self._skipped = 0

    def look(self, run: Run) -> None:
        """This run has left some watcher active."""
        if self._skipped < self._skip:
            self._skipped += 1
            return
        found = _running_timeouts(self._greenlet)
        self._skip = 0 if found else min(2 * self._skip + 1, _MOST_SKIPPED)
        self._skipped = 0
        for timeout in found:
            timeout.close()
            log.warning("task %s left a gevent.Timeout running: it was cancelled", run.name)


def _running_timeouts(greenlet: Any) -> list[Timeout]:
    # By their exact types: isinstance() asks an object for its class, and lazy ones wake for that.
    timeouts = [each for each in gc.get_objects() if issubclass(type(each), Timeout)]
    return [each for each in timeouts if each.pending and greenlet in (each.timer.args or ())]


def references(waiting: Any) -> int:
    """How many references there are to a greenlet that is in a variable of the caller."""
    return sys.getrefcount(waiting)


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
