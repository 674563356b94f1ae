"""``Start``: one start of what many callers may need at once; ``start_once`` makes it."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TypeVar

from gevent import getcurrent

from gtaskman.errors import WouldBlockError
from gtaskman.latch import Latch

K = TypeVar("K", bound=Hashable)


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
