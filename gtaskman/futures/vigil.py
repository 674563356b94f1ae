"""``Vigil``: keeps a patched thread waiting for what comes from another thread.

The futures of ``concurrent.futures`` wait with locks. In a patched thread that is a wait in its
hub, and a hub on which nothing goes on ends a wait with ``LoopExit``: it does not know that a
manager on the hub of another thread is at work.
"""

from __future__ import annotations

import contextlib
from typing import Any

from gevent import monkey
from gevent.hub import get_hub

_here = monkey.get_original("_thread", "_local")()  # of the native thread


class Vigil:
    """Keeps the hub of one thread alive while calls are open that it submitted."""

    def __init__(self, hub: Any) -> None:
        self.hub = hub
        self._open = 0
        self._watcher = hub.loop.async_()

    def begin(self) -> None:
        """One more call is open; in its own thread."""
        self._open += 1
        if self._open == 1:
            self._watcher.start(_nothing)

    def end(self) -> None:
        """A call has ended; in any thread."""
        loop = self.hub.loop
        if loop is not None:  # its thread may have taken its hub down
            with contextlib.suppress(ValueError):  # does so just now
                loop.run_callback_threadsafe(self._end)

    def _end(self) -> None:
        self._open -= 1
        if not self._open:
            self._watcher.stop()


def begin_vigil(manager_hub: Any) -> Vigil | None:
    """That of this thread, begun; None where none is needed.

    A thread that is not patched waits for a lock natively, and the hub of the manager itself does
    not stand still.
    """
    if not monkey.is_module_patched("threading"):
        return None
    hub = get_hub()
    if hub is manager_hub or manager_hub is None:
        return None
    vigil: Vigil | None = getattr(_here, "vigil", None)
    if vigil is None or vigil.hub is not hub:
        vigil = _here.vigil = Vigil(hub)
    vigil.begin()
    return vigil


def _nothing() -> None:
    pass
