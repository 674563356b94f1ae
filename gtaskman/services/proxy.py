"""``Service``: what a manager gives for an id, to call the service's methods."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from gtaskman.services.calls import Call
from gtaskman.services.record import Record


class Service:
    """A service, to be called.

    ``services["web"].set_greeting("hi")`` is ``services["web"].call("set_greeting", "hi")``: both
    give a :class:`Call` at once, whose ``get`` waits for the answer.
    """

    def __init__(self, record: Record) -> None:
        self._record = record

    def call(self, method: str, /, *args: Any, **kwargs: Any) -> Call:
        """Call a method that is marked ``@remote``, in one of the running instances in turn.

        Raises here, at once: :class:`ServiceMethodError` if there is no such method,
        :class:`ServiceDown` if the service does not run, :class:`PayloadError` if the arguments
        cannot travel.
        """
        record = self._record
        record.check_method(method)
        payload = record.encode(method, args, kwargs)
        call = record.new_call(method)
        record.home.post(record.make_call, call, payload)
        return call

    def call_all(self, method: str, /, *args: Any, **kwargs: Any) -> list[Call]:
        """:meth:`call`, in each of the running instances."""
        record = self._record
        record.check_method(method)
        payload = record.encode(method, args, kwargs)
        calls = []
        for instance in record.open_instances():
            call = record.new_call(method)
            record.home.post(instance.line.make, call, payload)
            calls.append(call)
        return calls

    def __getattr__(self, name: str) -> Callable[..., Call]:
        if name.startswith("_"):
            raise AttributeError(name)
        self._record.check_method(name)
        return functools.partial(self.call, name)

    def __dir__(self) -> list[str]:
        return sorted({"call", "call_all", *self._record.callable})

    def __repr__(self) -> str:
        return f"<Service {self._record.task.id} {self._record.status.state.value}>"
