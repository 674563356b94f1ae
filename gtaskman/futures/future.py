"""``Future``: a ``concurrent.futures.Future`` of a task."""

from __future__ import annotations

import concurrent.futures
from typing import TYPE_CHECKING, Any

from gtaskman.handle import TaskHandle

if TYPE_CHECKING:
    from gtaskman.futures.vigil import Vigil
    from gtaskman.futures.work import Work

# Seconds. A patched thread that waits without an end would take an empty hub for the end.
_FOR_EVER = 1e9


class Future(concurrent.futures.Future[Any]):
    """The future of a call; ``handle`` is the :class:`gtaskman.TaskHandle` of its task.

    As in the original, :meth:`cancel` takes back only a call that no worker has.
    ``handle.cancel()`` also stops one that runs, and :meth:`result` then raises
    ``CancelledError``; ``handle.report`` and ``handle.progress()`` say how far it is.
    ``handle`` is None for a call that could not travel.
    """

    def __init__(self, handle: TaskHandle | None, work: Work) -> None:
        super().__init__()
        self.handle = handle
        self.vigil: Vigil | None = None  # of the thread that submitted it
        # Kept until the call has ended, as the original keeps it: an argument may be a proxy whose
        # object lives as long as the last proxy of it, which the worker has not made yet.
        self.call: Any = None
        self._work = work

    def running(self) -> bool:
        """Whether a worker has it, so that it cannot be cancelled any more."""
        return not self.done() and self.handle is not None and self.handle.taken

    def cancel(self) -> bool:
        """Take the call back if it waits; gives whether it will not be run."""
        if not self.done():
            self._work.withdraw([self])
        return self.cancelled()

    def result(self, timeout: float | None = None) -> Any:
        """What the call returned, or its exception raised; waits at most ``timeout`` seconds.

        Raises :class:`gtaskman.ForkedManagerError` where it would wait in vain, in a fork.
        """
        if not self.done():
            self._work.check_home()
        return super().result(_FOR_EVER if timeout is None else timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """The exception that the call raised, or None; waits at most ``timeout`` seconds.

        Raises :class:`gtaskman.ForkedManagerError` where it would wait in vain, in a fork.
        """
        if not self.done():
            self._work.check_home()
        return super().exception(_FOR_EVER if timeout is None else timeout)

    def note_cancelled(self) -> None:
        """Its task was cancelled: whoever waits is woken, and callbacks are called."""
        super().cancel()
        self.set_running_or_notify_cancel()
