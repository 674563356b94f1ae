"""``Watcher``: waits for a descriptor on a gevent loop, and keeps waiting whatever is raised.

gevent stops an io watcher for good when its callback raises, and a signal handler may raise in any
callback: a KeyboardInterrupt that the application survives would leave a pipe that is never read
again. Every io watcher of the package that lives longer than one wait is therefore one of these.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

log = logging.getLogger(__name__)

READ, WRITE = 1, 2
_PAUSE = 0.1  # seconds until a callback that failed is called again


class Watcher:
    """Calls back when ``fd`` is readable or writable (``events``), until it is stopped.

    An ``Exception`` out of the callback is logged under ``name``, once in a row, and the callback
    is called again after a pause. Anything else, such as KeyboardInterrupt, goes where gevent
    sends it, and the callback is called again in the next turn of the loop. So a callback must
    accept to be called when there is nothing to read, and must be able to resume its work.
    """

    def __init__(self, loop: Any, fd: int, events: int, name: str, ref: bool = False) -> None:
        self._loop = loop
        self._name = name
        self._io = loop.io(fd, events, ref=ref)
        self._pause: Any = None
        self._started = False
        self._callback: Callable[..., None] = _nothing
        self._args: tuple[Any, ...] = ()
        self._calls: Iterator[None] | None = None
        self._logged = ""

    @property
    def active(self) -> bool:
        """Whether the loop watches the descriptor now."""
        return bool(self._io.active)

    def start(self, callback: Callable[..., None], *args: Any) -> None:
        """Call ``callback(*args)`` whenever the descriptor is ready."""
        self._callback, self._args = callback, args
        self._started = True
        self._arm()

    def stop(self) -> None:
        """Call nothing; it can be started again."""
        self._started = False
        self._io.stop()
        if self._pause is not None:
            self._pause.stop()
            self._pause.close()
            self._pause = None

    def close(self) -> None:
        """Stop for good."""
        self.stop()
        self._io.close()
        self._callback, self._args, self._calls = _nothing, (), None

    def _arm(self) -> None:
        if self._calls is None:
            self._calls = self._call_always()
            next(self._calls)
        self._io.start(self._calls.__next__)

    def _call_always(self) -> Iterator[None]:
        # A generator and no function: it is resumed inside of the try, whereas a signal handler
        # may raise before the first instruction of a function.
        try:
            while True:
                yield
                try:
                    self._callback(*self._args)
                except Exception as error:
                    self._call_later(error)
        except GeneratorExit:
            raise
        except BaseException:
            # gevent handles it, and stops the io watcher after that.
            self._calls = None
            self._loop.run_callback(self._call_again)
            raise

    def _call_later(self, error: Exception) -> None:
        if repr(error) != self._logged:
            self._logged = repr(error)
            log.exception("%s: handling what came has failed; it is tried again", self._name)
        if self._started:
            self._io.stop()
            self._pause = self._loop.timer(_PAUSE, ref=False)
            self._pause.start(self._call_again)

    def _call_again(self) -> None:
        if self._started:
            self._arm()
            assert self._calls is not None
            next(self._calls)


def _nothing() -> None:
    """What a closed watcher calls."""
