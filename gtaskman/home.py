"""``Home``: the hub that something lives on, and how everybody else reaches it there.

That of the thread that starts it, or one on a native thread of its own. Other threads hand their
calls over; a fork of the process finds out that nothing of this is its own.
"""

from __future__ import annotations

import atexit
import logging
import os
import time
from collections.abc import Callable
from typing import Any, TypeVar

from gevent import getcurrent, monkey
from gevent._hub_local import get_hub_if_exists
from gevent.hub import get_hub

from gtaskman.errors import GTaskmanError, WouldBlockError
from gtaskman.latch import Latch, foreign

log = logging.getLogger(__name__)

T = TypeVar("T")

HANDOVER = 30.0  # seconds that another thread waits for our hub to take its call
_GOING = 5.0  # seconds that a thread of ours may take to go
_STALLED = 4.0  # seconds after which a hub that has not answered is said to stand still


class Home:
    """Where something lives; ``what`` is that, in an error's words."""

    def __init__(self, what: str) -> None:
        self.pid = os.getpid()
        self.hub: Any = None  # None before anybody lives here, and in a fork
        self.loop: Any = None
        self.forked = False
        self.kept_alive = False  # the loop does not end
        self._what = what
        self._keeper: Any = None  # keeps the loop alive while it is to be, and only then
        self._asked = self._answered = 0.0  # by other threads, whether our hub runs
        self.left = Latch()  # opens when nobody lives here any more
        self._thread_gone: Latch | None = None  # where there is a thread of our own

    # --- moving in and out

    def settle(self) -> None:
        """Live on this thread's hub."""
        self.hub = get_hub()
        self.loop = self.hub.loop
        self._keeper = self.loop.async_()

    def settle_apart(self, begin: Callable[[], None]) -> None:
        """Live on the hub of a new native thread; ``begin`` is called there.

        Raises what that raises.
        """
        hub = get_hub_if_exists()
        if hub is not None and getcurrent() is hub:
            raise WouldBlockError(
                "this would start a manager in a callback of the hub, where nothing can wait: start"
                " it in a greenlet (gevent.spawn), or before"
            )
        started, errors = Latch(), []
        gone = self._thread_gone = Latch()
        _apart.add(self)

        def run() -> None:
            try:
                self.settle()
                begin()
            except BaseException as error:
                errors.append(error)
                self._unsettle()
            started.open()
            if not errors:
                self._stay()
            get_hub().destroy(destroy_loop=True)
            _apart.discard(self)
            gone.open()

        # The original: a patched one would be a greenlet on the caller's hub.
        monkey.get_original("_thread", "start_new_thread")(run, ())
        interrupt = _wait_through(started)
        if errors:
            self._thread_gone = None
            raise errors[0]
        if interrupt is not None:
            raise interrupt

    def _unsettle(self) -> None:
        """Take :meth:`settle` back, so that it can be tried again."""
        if self._keeper is not None:
            self._keeper.close()
        self.hub = self.loop = self._keeper = None

    def _stay(self) -> None:
        """Live here until :meth:`leave`, whatever somebody's code throws out of the hub."""
        while not self.left.done():
            try:
                self.left.wait()
            except BaseException:
                # Whoever waits for us would never be told that we are gone.
                log.exception("something was thrown into the thread of a manager, which goes on")

    def leave(self) -> None:
        """Live here no more; on our hub."""
        self._keeper.close()
        self.left.open()

    def await_left(self) -> None:
        """Wait until everything has gone from here, a thread of our own included.

        Raises what :meth:`check` does.
        """
        self.check()
        self.left.wait()
        self.await_thread()

    def await_thread(self, timeout: float | None = None) -> None:
        """Wait until the thread of our own has gone, if there is one."""
        if self._thread_gone is not None and not self.is_here():
            self._thread_gone.wait(timeout)

    def forget(self) -> None:
        """In a fork of the process: nothing of this is ours."""
        self.forked = True
        self.hub = None
        if self._keeper is not None:
            self._keeper.stop()

    # --- being there

    def check(self) -> Any:
        """The hub. Raises :class:`ForkedManagerError` in a fork of the process, and
        :class:`GTaskmanError` when our thread has ended: nothing will happen here any more."""
        if self.forked:
            raise foreign(self.pid, self._what)
        if self.deserted:
            raise GTaskmanError(
                f"{self._what} lived on a thread that has ended: stop it in that thread before, or"
                " use Configuration(background=True)"
            )
        return self.hub

    @property
    def deserted(self) -> bool:
        """Whether our thread has ended while somebody still lived here."""
        return self.hub is not None and self.hub.dead and not self.left.done()

    def is_here(self) -> bool:
        """Whether this thread's hub is the one."""
        return get_hub_if_exists() is self.hub

    def keep_alive(self) -> None:
        """Let nobody's ``hub.join()`` end while there is something to do."""
        if not self.kept_alive:
            self.kept_alive = True
            self._keeper.start(_nothing)

    def let_go(self) -> None:
        """There is nothing to do."""
        self.kept_alive = False
        self._keeper.stop()

    # --- reaching it

    def post(self, function: Callable[..., Any], *args: Any) -> bool:
        """Call ``function`` on our hub: now if this is it, else as soon as it comes to that.

        Gives whether it will be called: not once the hub has been destroyed.
        """
        if self.is_here():
            function(*args)
            return True
        return self._hand_over(function, *args)

    def _hand_over(self, function: Callable[..., Any], *args: Any) -> bool:
        try:
            self.loop.run_callback_threadsafe(function, *args)
        except ValueError:  # gevent: "operation on destroyed loop"
            return False
        return True

    def ask(self, function: Callable[[], T]) -> T:
        """What ``function`` gives on our hub, whichever thread asks; here before there is one."""
        self.check()
        if self.hub is None or self.is_here() or self.left.done():
            return function()
        done, results, errors = Latch(), [], []

        def call() -> None:
            try:
                results.append(function())
            except BaseException as error:
                errors.append(error)
            done.open()

        if not self._hand_over(call):
            self.check()
            return function()
        if not done.wait(HANDOVER):
            raise GTaskmanError(
                f"the hub of the manager has not run for {HANDOVER:.0f} s: the thread that made it"
                " must wait cooperatively, or use Configuration(background=True)"
            )
        if errors:
            raise errors[0]
        return results[0]

    def is_stalled(self) -> bool:
        """Whether our hub has not answered since the last call of this, from another thread."""
        if self.loop is None or self.left.done():
            return False
        now = time.monotonic()
        if self._asked > self._answered:
            return now - self._asked > _STALLED
        self._asked = now
        self._hand_over(self._answer)
        return False

    def _answer(self) -> None:
        self._answered = time.monotonic()


class HomeLatch(Latch):
    """A latch that is opened on the hub of a :class:`Home`; in its fork a wait raises."""

    def __init__(self, place: Home) -> None:
        self._place = place

    def _home(self) -> Any:
        return self._place.check()

    def _stalled(self) -> None:
        self._place.check()
        if self._place.is_stalled():
            log.warning(
                "this thread waits for a manager whose hub does not run (%s). The thread that made"
                " the manager must run its hub (wait cooperatively), or give the manager a thread"
                " of its own: Configuration(background=True)",
                self,
            )


def _wait_through(latch: Latch) -> BaseException | None:
    """Wait for what takes a moment, and give what was raised into the wait, such as a kill.

    Given up halfway, it would go on in the other thread, and be begun once more here.
    """
    interrupt = None
    while not latch.done():
        try:
            latch.wait()
        except BaseException as error:
            interrupt = error
    return interrupt


def _nothing() -> None:
    pass


_apart: set[Home] = set()  # those with a thread of their own, until that has taken its hub down


def _at_exit() -> None:
    """An interpreter that ends while a thread takes its hub down may crash."""
    for home in list(_apart):
        if home.left.done() and home.pid == os.getpid():
            home.await_thread(_GOING)


atexit.register(_at_exit)
