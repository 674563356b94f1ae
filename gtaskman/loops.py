"""``SupervisedLoop``: one recovery rule for every long-lived greenlet of the package.

Whatever leaves the body of such a loop is logged with the loop's name, and the body is started
again after a back-off: an exception, a ``gevent.Timeout`` of other code, a kill. A loop that
cannot work reports that to ``on_failure``, so that its owner stops with an error instead of
staying alive without doing anything.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import gevent
from gevent import get_hub

from gtaskman.backoff import Backoff

log = logging.getLogger(__name__)

_BACKOFF = Backoff(first=0.1, factor=2.0, maximum=10.0, jitter=0.0)
_HEALTHY = 10.0  # seconds after which a run that fails is no failure in a row
# For the main greenlet: Ctrl-C, and a request to end the process.
_FOR_MAIN = (KeyboardInterrupt, SystemExit)
Run = Callable[[], object]
OnFailure = Callable[[BaseException], object]


class SupervisedLoop:
    """Runs ``run`` in a greenlet of this thread's hub until it returns, and again after a failure.

    ``name`` says in logs what the loop does, such as ``"the dispatcher of events"``. ``run`` may
    be the whole loop, or one pass over the work that is there: it returns when there is nothing
    left to do, and :meth:`start` starts it again.

    Between two failures in a row the loop waits for ``backoff``; a failure follows the one before
    unless ``run`` called :meth:`progressed` in between, or ran for 10 seconds.
    With ``on_failure``, the failure number ``max_failures`` in a row ends the loop and calls
    ``on_failure(error)`` once, in the loop's greenlet; ``max_failures=1`` means that the first one
    does. Without it the loop is started again for ever.

    ``KeyboardInterrupt`` and ``SystemExit`` are passed on to the main greenlet, as gevent does,
    and the loop goes on. To be used on one hub.
    """

    def __init__(
        self,
        name: str,
        run: Run,
        on_failure: OnFailure | None = None,
        *,
        max_failures: int = 10,
        backoff: Backoff = _BACKOFF,
    ) -> None:
        self.name = name
        self.failures = 0  # in a row
        self._run = run
        self._on_failure = on_failure
        self._max_failures = max_failures
        self._backoff = backoff
        self._greenlet: gevent.Greenlet | None = None
        self._began = 0.0
        self._stopping = False

    @property
    def running(self) -> bool:
        """Whether ``run`` runs, or is about to be started again after a failure."""
        return self._greenlet is not None

    def start(self) -> None:
        """Start the loop, unless it runs already; returns at once."""
        if self._greenlet is None:
            self._stopping = False
            self._spawn()

    def stop(self) -> None:
        """End the loop by a kill; returns at once. It may be started again."""
        self._stopping = True
        greenlet, self._greenlet = self._greenlet, None
        if greenlet is not None:
            greenlet.kill(block=False)

    def join(self, timeout: float | None = None) -> bool:
        """Wait until the loop has ended, at most ``timeout`` seconds; gives whether it has."""
        end = None if timeout is None else time.monotonic() + timeout
        while (greenlet := self._greenlet) is not None:
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                return False
            greenlet.join(left)
        return True

    def progressed(self) -> None:
        """Note that the loop does its work: failures are counted from 0 again."""
        self.failures = 0

    def _spawn(self) -> None:
        greenlet = self._greenlet = gevent.spawn(self._supervise)
        # A kill before the greenlet's first switch ends it without any code of ours.
        greenlet.rawlink(self._on_end)

    def _on_end(self, greenlet: gevent.Greenlet) -> None:
        if self._greenlet is greenlet:
            log.error("%s was killed; it is started again", self.name)
            self._spawn()

    def _supervise(self) -> None:
        greenlet = gevent.getcurrent()
        while self._greenlet is greenlet:
            try:
                self._began = time.monotonic()
                self._run()
                self.failures = 0
            except BaseException as error:
                if self._greenlet is not greenlet or self._recover(error):
                    continue
            # Not in a finally: a greenlet that a kill ends outside of run is started again.
            if self._greenlet is greenlet:
                self._greenlet = None

    def _recover(self, error: BaseException) -> bool:
        """Log what ended ``run`` and wait for the back-off; gives whether to start it again."""
        if get_hub().loop is None:
            return False  # the thread ends, and its hub was destroyed
        if time.monotonic() - self._began > _HEALTHY:
            self.failures = 0
        self.failures += 1
        if isinstance(error, _FOR_MAIN):
            self._pass_on(error)
            return True
        if self._on_failure is not None and self.failures >= self._max_failures:
            log.critical(
                "%s failed %d times in a row and is given up",
                self.name,
                self.failures,
                exc_info=error,
            )
            self._greenlet = None
            self._give_up(error)
            return False
        wait = self._backoff.delay(self.failures, 0.0) if self.failures > 1 else 0.0
        log.error(
            "%s failed; it is started again%s",
            self.name,
            f" in {wait:g} s" if wait else "",
            exc_info=error,
        )
        self._wait(wait)
        return True

    def _pass_on(self, error: BaseException) -> None:
        log.warning("%s was interrupted by %r and goes on", self.name, error)
        try:
            get_hub().handle_error(gevent.getcurrent(), type(error), error, error.__traceback__)
        except BaseException as further:
            log.error("%s was interrupted by %r and goes on", self.name, further)

    def _give_up(self, error: BaseException) -> None:
        assert self._on_failure is not None
        try:
            self._on_failure(error)
        except Exception:
            log.exception("%s could not report its failure", self.name)

    def _wait(self, seconds: float) -> None:
        """Wait for the back-off, whatever is thrown in meanwhile."""
        try:
            gevent.sleep(seconds)
        except BaseException as error:
            if not self._stopping:
                log.error("%s was interrupted by %r while it waited", self.name, error)
            if isinstance(error, _FOR_MAIN):
                self._pass_on(error)


def guarded(what: str, function: Callable[..., object]) -> Callable[..., None]:
    """``function`` as a callback of the hub: an exception is logged, and ``what`` names it.

    For timers and callbacks that must arm themselves again. ``KeyboardInterrupt`` and
    ``SystemExit`` are raised.
    """

    def call(*args: Any) -> None:
        try:
            function(*args)
        except _FOR_MAIN:
            raise
        except BaseException:
            log.exception("%s failed", what)

    return call
