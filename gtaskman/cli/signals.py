"""``Signals``: what signals ask for, one after the other. Their handlers only enqueue."""

from __future__ import annotations

import collections
import logging
import signal
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any

import gevent
from gevent.event import Event
from gevent.hub import get_hub

log = logging.getLogger(__name__)


def put_off(numbers: Iterable[int]) -> None:
    """Let signals wait until there are :class:`Signals` for them, even through an exec."""
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)


class Signals:
    """Signals, and what else was :meth:`put`, in the order in which they came.

    For the main thread. Those that were put off come now.
    """

    def __init__(self, numbers: Iterable[int]) -> None:
        self._arrived: collections.deque[int] = collections.deque()
        self._news = Event()
        self._failure: BaseException | None = None  # that ended a greenlet of ours
        # An event may not be set in the middle of anything; the loop may be woken.
        self._waker = get_hub().loop.async_()
        self._waker.start(self._news.set)
        numbers = list(numbers)
        for number in numbers:
            signal.signal(number, self._note)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.put(number)

    def put(self, number: int) -> None:
        """Add one more."""
        self._arrived.append(number)
        self._waker.send()

    def spawn(self, function: Callable[..., object], *args: Any) -> None:
        """Run ``function`` in a greenlet; what it raises is raised by :meth:`next`.

        For work without which the command would stay alive and do nothing.
        """
        gevent.spawn(self._run, function, args)

    def _run(self, function: Callable[..., object], args: tuple[Any, ...]) -> None:
        try:
            function(*args)
        except BaseException as error:
            log.debug("%r failed", function, exc_info=True)
            self._failure = error
            self._waker.send()

    def next(self) -> int:
        """The next one; waits for it cooperatively.

        Raises what ended a greenlet of :meth:`spawn`.
        """
        while not self._arrived and self._failure is None:
            self._news.wait()
            self._news.clear()
        if self._failure is not None:
            raise self._failure
        return self._arrived.popleft()
