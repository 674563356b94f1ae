"""What a manager must do at a certain moment on behalf of its queue: no polling, two timers."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from gtaskman.job import Job
from gtaskman.pool.alarm import Alarm
from gtaskman.pool.deadlines import Deadlines
from gtaskman.queues import TaskQueue


class Timetable:
    """Calls ``on_due()`` when time has changed something in the queue, and ``on_late(job)`` for a
    job that was claimed in time and has not begun in time.
    """

    def __init__(
        self,
        loop: Any,
        queue: TaskQueue,
        on_due: Callable[[], None],
        on_late: Callable[[Job], None],
    ) -> None:
        self._queue = queue
        self._on_due = on_due
        self._on_late = on_late
        self._alarm = Alarm(loop)
        self._armed = math.inf  # when it goes off, on the monotonic clock
        self._starts = Deadlines(loop, self._start_is_due, _is_in_worker)

    def mind(self) -> None:
        """The queue has something new that time will change."""
        seconds = self._queue.due()
        if seconds is None:
            return
        when = time.monotonic() + seconds
        if when < self._armed:
            self._alarm.set(seconds, self._go_off)
            self._armed = when

    def _go_off(self) -> None:
        self._armed = math.inf
        try:
            self._on_due()
        finally:
            # In any case: after an exception the tasks that are due later must still begin.
            self.mind()

    def watch(self, job: Job) -> None:
        """See to it that a claimed job begins by its ``start_by``."""
        self._starts.add(job.start_by, job)

    def _start_is_due(self, job: Job) -> None:
        if job.running:
            job.start_by = 0.0  # it was in time, should it have to run once more
        else:
            self._on_late(job)

    def recover(self) -> None:
        """Set all timers anew, after a signal handler has raised."""
        self._armed = math.inf
        self.mind()
        self._starts.arm()

    def close(self) -> None:
        """Forget everything."""
        self._alarm.cancel()
        self._armed = math.inf
        self._starts.close()


def _is_in_worker(job: Job) -> bool:
    return bool(job.number and job.start_by) and not job.handle.done()
