"""Whether a process of a service is well: its health, its size and its age.

Only what the options ask for costs anything: without them there is no timer.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable

import gevent

from gtaskman.errors import GTaskmanError
from gtaskman.home import Home
from gtaskman.loops import SupervisedLoop
from gtaskman.pool.alarm import Alarm
from gtaskman.services.calls import Call, encode
from gtaskman.services.instance import Instance
from gtaskman.services.options import ServiceOptions

log = logging.getLogger(__name__)

_SIZE_EVERY = 1.0  # seconds between two looks at the memory
_AGAIN = 5.0  # seconds until a replacement that did not come is asked for again


class Watch:
    """Watches one process while it is the service.

    ``on_unwell(why)`` is called when it should be restarted; ``on_outgrown(why)`` when it should
    be replaced, and now and then again until it is.
    """

    def __init__(
        self,
        service: str,
        instance: Instance,
        options: ServiceOptions,
        home: Home,
        limit: int,
        on_unwell: Callable[[str], None],
        on_outgrown: Callable[[str], None],
    ) -> None:
        self._service = service
        self._instance = instance
        self._options = options
        self._home = home
        self._limit = limit
        self._on_unwell = on_unwell
        self._on_outgrown = on_outgrown
        self._size, self._age = Alarm(home.loop), Alarm(home.loop)
        self._checks: SupervisedLoop | None = None
        self._unwell = False  # the check itself says so right now, which may stop this watch
        self._begin()

    def _begin(self) -> None:
        options = self._options
        if options.health is not None:
            checks = functools.partial(self._check_health, options.health)
            self._checks = SupervisedLoop(f"the health check of service {self._service!r}", checks)
            self._checks.start()
        if options.max_rss is not None:
            self._size.set(_SIZE_EVERY, self._look_at_size, options.max_rss)
        if options.max_age is not None:
            why = f"it has been running for {options.max_age:g} s (max_age)"
            self._age.set(options.max_age, self._outgrow, why)

    def stop(self) -> None:
        """Watch no more."""
        self._size.cancel()
        self._age.cancel()
        checks, self._checks = self._checks, None
        if checks is not None and not self._unwell:
            checks.stop()

    def _outgrow(self, why: str) -> None:
        self._size.cancel()
        self._age.set(_AGAIN, self._outgrow, why)
        self._on_outgrown(why)

    def _look_at_size(self, most: int) -> None:
        size = self._instance.rss()
        if size > most:
            self._outgrow(f"it has {size / 2**20:.0f} MiB, over max_rss={most / 2**20:.0f} MiB")
        else:
            self._size.set(_SIZE_EVERY, self._look_at_size, most)

    def _check_health(self, method: str) -> None:
        failures, options = 0, self._options
        while True:
            gevent.sleep(options.health_every)
            why = self._ask(method)
            failures = failures + 1 if why else 0
            if why:
                log.warning("service %r is unwell: %s() %s", self._service, method, why)
            if failures >= options.health_failures:
                times = f"{failures} times in a row" if failures > 1 else "once"
                self._unwell = True
                self._on_unwell(f"its health check {method}() has failed {times}: it {why}")
                return

    def _ask(self, method: str) -> str | None:
        """Why the check fails, or None."""
        call = Call(self._service, method, self._home)
        self._instance.line.make(call, encode(self._service, method, (), {}, self._limit))
        seconds = self._options.health_timeout
        if not call.wait(seconds):
            return f"has not answered within {seconds:g} s"
        try:
            return "has answered False" if call.get() is False else None
        except GTaskmanError as error:
            return str(error)
        except Exception as error:
            return f"has raised {type(error).__name__}: {error}"
