"""Events: who wants to hear of what, and telling them without ever holding anybody up."""

from __future__ import annotations

import collections
import logging
from collections.abc import Callable, Iterable
from typing import Any

import gevent
from greenlet import GreenletExit

from gtaskman.loops import SupervisedLoop

log = logging.getLogger(__name__)

Callback = Callable[[Any], object]
_MOST = 100_000  # events that may wait for a callback that does not return
_FORGET = "forget"  # told apart from an event of that name by identity


class Events:
    """Callbacks by the name of an event.

    They are called one after the other, in the order of the events, in a greenlet of their own:
    one that waits delays the next ones, and nothing else; one that raises is logged.
    """

    def __init__(self) -> None:
        self.callbacks: dict[str, list[tuple[Callback, bool]]] = {}  # empty if nobody listens
        self.dropped = 0  # events that were dropped, since too many waited
        self._due: collections.deque[tuple[str, Any]] = collections.deque()
        self._loop = SupervisedLoop("the dispatcher of events", self._deliver)

    def on(self, event: str, callback: Callback) -> None:
        """Call ``callback(payload)`` at every ``event``."""
        self._add(event, callback, once=False)

    def once(self, event: str, callback: Callback) -> None:
        """Call ``callback(payload)`` at the next ``event`` only."""
        self._add(event, callback, once=True)

    def off(self, event: str, callback: Callback | None = None) -> None:
        """Do not call ``callback`` any more (without one: nobody) at ``event``."""
        left = [
            (each, once)
            for each, once in self.callbacks.get(event, ())
            if callback is not None and each != callback
        ]
        if left:
            self.callbacks[event] = left
        else:
            self.callbacks.pop(event, None)

    def emit(self, event: str, payload: Any) -> None:
        """Tell everybody who listens to ``event``; returns at once."""
        if event not in self.callbacks:
            return
        if len(self._due) >= _MOST:
            self._drop(event)
            return
        self._due.append((event, payload))
        self._begin()

    def _begin(self) -> None:
        """For subclasses: have what is due delivered."""
        if not self._loop.running:
            self._loop.start()

    def forget_after(self, events: Iterable[str]) -> None:
        """Forget the present callbacks of these events once all that was emitted is delivered."""
        for event in events:
            if event in self.callbacks:
                self._due.append((_FORGET, (event, self.callbacks[event])))
                self._begin()

    def _drop(self, event: str) -> None:
        self.dropped += 1
        if self.dropped == 1:
            log.error(
                "callbacks of events do not keep up: %d wait, and further ones are dropped, such"
                " as %r",
                _MOST,
                event,
            )

    def _add(self, event: str, callback: Callback, once: bool) -> None:
        if not callable(callback):
            raise TypeError(f"the callback of {event!r} must be callable, not {callback!r:.80}")
        self.callbacks[event] = [*self.callbacks.get(event, ()), (callback, once)]

    def _deliver(self) -> None:
        while self._due:
            event, payload = self._due.popleft()
            if event is _FORGET:
                self._forget(*payload)
                continue
            for registered in self.callbacks.get(event, ()):
                if registered[1]:
                    self._remove(event, registered)
                try:
                    registered[0](payload)
                except (Exception, gevent.Timeout, GreenletExit):
                    log.exception("a callback of %r raised; nothing else is disturbed", event)

    def _forget(self, event: str, callbacks: Iterable[tuple[Callback, bool]]) -> None:
        for registered in callbacks:
            self._remove(event, registered)

    def _remove(self, event: str, registered: tuple[Callback, bool]) -> None:
        left = [each for each in self.callbacks.get(event, ()) if each is not registered]
        if left:
            self.callbacks[event] = left
        else:
            self.callbacks.pop(event, None)
