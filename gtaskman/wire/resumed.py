"""``Resumed``: a callback of the loop that is called again after a signal handler has raised in it.

gevent forgets a callback, or a timer, when it calls it. A KeyboardInterrupt that the application
survives would leave undone what the callback was to do, for good.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any


class Resumed:
    """Give :attr:`call` to the loop, or use :meth:`soon`; ``function()`` is called then.

    What leaves it goes where gevent sends it. If that is no ``Exception``, ``function`` is called
    again in the next turn of the loop: it must accept that.
    """

    def __init__(self, loop: Any, function: Callable[[], None]) -> None:
        self._loop = loop
        self._function = function
        calls = self._call_always()
        next(calls)
        self.call: Callable[[], None] = calls.__next__

    def soon(self) -> None:
        """Call it in the next turn of the loop."""
        self._loop.run_callback(self.call)

    def _call_always(self) -> Iterator[None]:
        # A generator and no function: it is resumed inside of the try, whereas a signal handler
        # may raise before the first instruction of a function, or where a loop begins again.
        while True:
            try:
                while True:
                    yield
                    self._function()
            except GeneratorExit:
                raise
            except Exception:
                self._loop.handle_error(self, *sys.exc_info())
            except BaseException:
                self.soon()
                self._loop.handle_error(self, *sys.exc_info())
