"""``Start``: one start of what many callers may need at once; ``start_once`` makes it.

``started`` starts a manager that only its caller knows.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Protocol, TypeVar

from gevent import getcurrent

from gtaskman.errors import WouldBlockError
from gtaskman.latch import Latch

K = TypeVar("K", bound=Hashable)


class Startable(Protocol):
    """A manager, as :func:`started` sees it."""

    def start(self) -> object:
        """Start it; an exception may come from an interrupt after it has started."""

    def stop(self, timeout: float | None = None) -> None:
        """Stop it, if it has started."""


M = TypeVar("M", bound=Startable)


class Start(Latch):
    """One start of ``what``; it opens when the start has ended, however it went."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._starter = getcurrent()

    def await_end(self) -> None:
        """Wait until the start has ended.

        Raises :class:`WouldBlockError` in a signal handler that interrupts the start itself.
        """
        if not self.done() and getcurrent() is self._starter:
            raise WouldBlockError(
                f"{self._what} is being started by the code that is interrupted here"
            )
        self.wait()


def start_once(starts: dict[K, Start], key: K, what: str, start: Callable[[], object]) -> None:
    """Call ``start``, or, if another caller does so just now, wait until that has ended.

    ``starts`` has the starts that are under way, by ``key``. A start that failed has started
    nothing: the caller looks, and calls this again. Raises what ``start`` raises, and what
    :meth:`Start.await_end` does.
    """
    mine = Start(what)
    current = starts.setdefault(key, mine)  # atomic, and needs no lock
    if current is not mine:
        current.await_end()
        return
    try:
        start()
    finally:
        starts.pop(key, None)
        mine.open()


def started(manager: M) -> M:
    """The manager, started; one whose start is interrupted is stopped, since nobody else can.

    Raises what ``start`` raises.
    """
    try:
        manager.start()
    except BaseException:
        manager.stop(0)
        raise
    return manager
