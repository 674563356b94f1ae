"""``Latch``: something that happens once, and can be waited for from anywhere.

From greenlets of any hub, from native threads with and without a hub, and by ``gevent.wait`` and
its kin. It is the future under a task's handle, so a wait that finds it open costs nothing, and
one that does not costs one switch.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from typing import Any

from gevent import Greenlet, getcurrent, monkey
from gevent._hub_local import get_hub_if_exists

from gtaskman.errors import ForkedManagerError, WouldBlockError

_allocate_lock = monkey.get_original("_thread", "allocate_lock")
# Guards the lists of waiters of all latches: held for an append or a swap, never longer.
# Reentrant, since a collection of garbage, or a signal's handler, may open a latch meanwhile.
_allocate_guard = monkey.get_original("_thread", "RLock")
_guard = _allocate_guard()
_FOR_EVER = 1e9  # seconds


class _Greenlet:
    """A greenlet that waits. A wake-up that comes late finds nobody."""

    __slots__ = ("greenlet", "hub")

    def __init__(self, hub: Any) -> None:
        self.hub = hub
        self.greenlet = getcurrent()

    def switch(self) -> None:
        if self.greenlet is not None:
            self.greenlet.switch()

    def wake(self, here: Any, at_once: bool) -> None:
        hub = self.hub
        if hub is not here:
            _call_in(hub, self.switch)
        elif at_once and getcurrent() is hub and _keeps_errors(self.greenlet, hub):
            self.switch()
        else:
            hub.loop.run_callback(self.switch)


def _keeps_errors(greenlet: Any, hub: Any) -> bool:
    """Whether an exception that ends the greenlet is not raised in who switched to it.

    That of a raw greenlet is, and would be taken for one of the callback that wakes it.
    """
    return isinstance(greenlet, Greenlet) or greenlet is hub.parent


class _Thread:
    """A native thread without a hub that waits."""

    __slots__ = ("lock",)

    def __init__(self) -> None:
        self.lock = _allocate_lock()
        self.lock.acquire()

    def wake(self, _here: Any, _at_once: bool) -> None:
        with contextlib.suppress(RuntimeError):  # woken already, before an interrupt of wake()
            self.lock.release()


class _Link:
    """A callback of ``rawlink``, which is called in its own hub."""

    __slots__ = ("callback", "hub", "latch")

    def __init__(self, hub: Any, callback: Callable[[Any], object], latch: Latch) -> None:
        self.hub, self.latch = hub, latch
        self.callback: Callable[[Any], object] | None = callback

    def call(self) -> None:
        if self.callback is not None:
            self.callback(self.latch)

    def wake(self, here: Any, _at_once: bool) -> None:
        self.latch._links = [*(self.latch._links or ()), self]
        if self.hub is here:
            self.hub.loop.run_callback(self.call)
        else:
            _call_in(self.hub, self.call)


def _call_in(hub: Any, callback: Callable[[], None]) -> None:
    """Call back in another thread's hub, unless that has gone with its thread."""
    loop = hub.loop
    if loop is not None:
        with contextlib.suppress(ValueError):  # destroyed since
            loop.run_callback_threadsafe(callback)


class Latch:
    """Closed until :meth:`open`, and open for ever after."""

    # On the class: most are opened before anybody waits, and making one costs nothing.
    _opened = False
    _waiters: list[Any] | None = None
    _links: list[_Link] | None = None  # those that are about to be called

    def open(self) -> None:
        """Open it and wake whoever waits."""
        self._opened = True
        # Who adds itself after this line finds it open and does not wait.
        if self._waiters is not None:
            self.wake()

    def wake(self, at_once: bool = False) -> None:
        """Wake whoever waits; it is open.

        ``at_once`` switches to a greenlet of this hub right here: for a callback of the hub that
        has done all it had to do, since whoever is woken may do anything.
        """
        with _guard:
            waiters, self._waiters = self._waiters, None
        if not waiters:
            return
        here = get_hub_if_exists()
        try:
            while waiters:
                waiters[0].wake(here, at_once)
                del waiters[0]
        finally:
            if waiters:  # an interrupt, such as KeyboardInterrupt: the rest is woken all the same
                self._wake_later(waiters, here)

    def _wake_later(self, waiters: list[Any], here: Any) -> None:
        with _guard:
            self._waiters = [*waiters, *(self._waiters or ())]
        if here is not None:
            here.loop.run_callback(self.wake)
        else:
            self.wake()

    def done(self) -> bool:
        """Whether it has happened."""
        return self._opened

    ready = done  # the name that gevent's own futures use

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is open, at most ``timeout`` seconds; gives whether it is.

        Raises :class:`WouldBlockError` in a callback of the hub, where nothing can wait.
        """
        if self._opened:
            return True
        home = self._home()
        hub = get_hub_if_exists()
        if hub is None:
            return self._wait_in_thread(timeout)
        if getcurrent() is hub:
            raise WouldBlockError(
                "this would wait in a callback of the hub, where nothing can wait:"
                " do it in a greenlet (gevent.spawn)"
            )
        if home is not None and hub is not home:
            return self._wait_for_other_hub(hub, timeout)
        if timeout is None and hub is not home:
            # Nothing on this loop may be going on: it must not think that all is over.
            timeout = _FOR_EVER
        return self._wait_in_greenlet(hub, timeout)

    def _wait_for_other_hub(self, hub: Any, timeout: float | None) -> bool:
        """Wait for what the hub of another thread opens, and look now and then if it still runs."""
        end = time.monotonic() + (_FOR_EVER if timeout is None else timeout)
        while (left := end - time.monotonic()) > _PATIENCE:
            if self._wait_in_greenlet(hub, _PATIENCE):
                return True
            self._stalled()
        return self._wait_in_greenlet(hub, left)

    def _home(self) -> Any:
        """For subclasses: the hub that opens it; None if that may be any. It may also say, by
        raising, that the wait would never end."""
        return None

    def _stalled(self) -> None:
        """For subclasses: another thread than that of the hub has waited for a while.

        It may also say, by raising, that the wait would never end.
        """

    def _wait_in_greenlet(self, hub: Any, timeout: float | None) -> bool:
        waiter = _Greenlet(hub)
        timer = None
        self.watch(waiter)
        try:
            if timeout is not None:
                timer = hub.loop.timer(max(timeout, 0))
                # Counted from now, not from when the loop last looked at the clock.
                timer.start(waiter.switch, update=True)
            while not self._opened:
                hub.switch()
                if timer is not None and not timer.active and not timer.pending:
                    break
        finally:
            waiter.greenlet = None
            if timer is not None:
                timer.close()
            if not self._opened:
                self._remove(waiter)
        return self._opened

    def _wait_in_thread(self, timeout: float | None) -> bool:
        waiter = _Thread()
        end = None if timeout is None else time.monotonic() + timeout
        self.watch(waiter)
        while not self._opened:
            left = _PATIENCE if end is None else min(_PATIENCE, end - time.monotonic())
            if left <= 0 or (not waiter.lock.acquire(True, left) and left < _PATIENCE):
                break
            if not self._opened:
                self._stalled()
        if not self._opened:
            self._remove(waiter)
        return self._opened

    def watch(self, waiter: Any) -> None:
        """Call ``waiter.wake(hub, at_once)`` once it is open, right where that happens.

        On any thread, perhaps in a callback of a hub: it must not wait.
        """
        with _guard:
            if self._waiters is None:
                self._waiters = [waiter]
            else:
                self._waiters.append(waiter)
        if self._opened:
            # It opened while we added ourselves, and may not have seen us.
            self.open()

    def _remove(self, waiter: Any) -> None:
        with _guard:
            if self._waiters is not None and waiter in self._waiters:
                self._waiters.remove(waiter)
                self._waiters = self._waiters or None

    # --- gevent's protocol of things that can be waited for

    def rawlink(self, callback: Callable[[Any], object]) -> None:
        """Call ``callback(self)`` in this thread's hub once it is open."""
        from gevent import get_hub

        self.watch(_Link(get_hub(), callback, self))

    def unlink(self, callback: Callable[[Any], object]) -> None:
        """Take a :meth:`rawlink` back."""
        with _guard:
            for waiter in self._links or ():
                if waiter.callback == callback:
                    waiter.callback = None
            for waiter in self._waiters or ():
                if isinstance(waiter, _Link) and waiter.callback == callback:
                    self._waiters = [w for w in self._waiters or () if w is not waiter] or None
                    return


_PATIENCE = 5.0  # seconds after which a thread that waits for another one's hub looks around


def foreign(pid: int, what: str) -> ForkedManagerError:
    """What to raise in a fork of the process ``pid`` to which ``what`` belongs."""
    return ForkedManagerError(
        f"{what} belongs to process {pid}, of which this one is a fork: its workers report"
        " there. Make a manager of your own in this process; gtaskman.submit does so by itself"
    )


def _renew_guard() -> None:
    """In a fork of the process: another thread, which is not here, may have held it."""
    global _guard
    _guard = _allocate_guard()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_guard)
