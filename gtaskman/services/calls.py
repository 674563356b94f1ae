"""Calls over a service's pipe, the same way in both directions.

::

    caller: call() -> CALL ---> take() -> a greenlet runs the method
            Call.get() <------- ANSWER <- what it returned or raised

Both ends have a :class:`Line`. Calls run side by side, each in a greenlet of its own.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any, Protocol

import gevent

from gtaskman.child import outcome
from gtaskman.errors import (
    PayloadError,
    RemoteTraceback,
    ServiceCallFailed,
    ServiceDown,
    WaitTimeout,
)
from gtaskman.home import Home, HomeLatch
from gtaskman.wire.frames import Frame
from gtaskman.wire.messages import ANSWER, CALL, RAISED, Ended, Fault
from gtaskman.wire.payload import (
    Payload,
    decode_arguments,
    decode_value,
    encode_arguments,
    encode_value,
)


class Mouth(Protocol):
    """Whoever can say something over the pipe, with the next turn of the loop."""

    def say(self, kind: int, flags: int, number: int, payload: Payload) -> None:
        """Say it."""


class Call(HomeLatch):
    """The future of one call: it can be waited for from anywhere, like a task's handle."""

    _flags = 0
    _answer: tuple[bytes, Any] | None = None  # as it came, until somebody asks
    _value: Any = None
    _decoded = False
    _down: str | None = None

    def __init__(self, service: str, method: str, place: Home) -> None:
        super().__init__(place)
        self.service = service
        self.method = method

    def get(self, timeout: float | None = None) -> Any:
        """What the method returned; waits for it at most ``timeout`` seconds (for ever if None).

        Raises what the method raised, its own type with the traceback of its process as the
        cause, or :class:`ServiceCallFailed` where that type is not to be had here;
        :class:`ServiceDown` if its process ended before it answered; and ``TimeoutError`` if the
        wait is over before the method is, which goes on.
        """
        if not self.wait(timeout):
            raise WaitTimeout(
                f"{self.method}() of service {self.service!r} has not answered within {timeout} s,"
                " and goes on"
            )
        if self._down is not None:
            raise ServiceDown(self._down, self.service)
        if self._flags & RAISED:
            raise self._error()
        if not self._decoded:
            assert self._answer is not None
            try:
                self._value = decode_value(self._flags, *self._answer)
            except Exception as error:
                raise PayloadError(
                    f"what {self.method}() of service {self.service!r} returned cannot be decoded"
                    f" here: {type(error).__name__}: {error}"
                ) from error
            self._decoded = True
        return self._value

    def successful(self) -> bool:
        """Whether it was answered with a value."""
        return self.done() and self._down is None and not self._flags & RAISED

    def settle(self, flags: int, body: bytes, buffers: Any) -> None:
        """The answer has come."""
        self._flags, self._answer = flags, (body, buffers)
        self.open()

    def give_up(self, why: str) -> None:
        """No answer will come."""
        self._down = why
        self.open()

    def _error(self) -> BaseException:
        assert self._answer is not None
        fault = Fault(*pickle.loads(self._answer[0]))
        text = RemoteTraceback(fault.traceback) if fault.traceback else None
        error = _own_error(fault) or ServiceCallFailed(
            self.service, self.method, fault.exc_type, fault.message, fault.traceback
        )
        error.__cause__ = text
        return error

    def __repr__(self) -> str:
        return f"<Call {self.method}() of service {self.service!r}>"


def _own_error(fault: Fault) -> BaseException | None:
    """The method's own exception, if it can be raised here.

    A request to stop that was meant for the other side must not stop this one.
    """
    if fault.exception is None:
        return None
    try:
        error = pickle.loads(fault.exception)
    except Exception:
        return None
    return error if isinstance(error, Exception) else None


def encode(service: str, method: str, args: Any, kwargs: dict[str, Any], limit: int) -> Payload:
    """What a call sends. Raises :class:`PayloadError`."""
    try:
        return encode_arguments((method, *args), kwargs, limit)
    except PayloadError as error:
        raise PayloadError(
            f"the arguments of {method}() of service {service!r} cannot travel: {error}"
        ) from error.__cause__


class Line:
    """One end of the calls of a service, on its hub.

    ``mouth`` says what we say, ``find(name)`` gives the method that the other side may call, and
    no answer is larger than ``limit`` bytes.
    """

    def __init__(self, mouth: Mouth, find: Callable[[str], Callable[..., Any]], limit: int) -> None:
        self._mouth = mouth
        self._find = find
        self._limit = limit
        self._number = 0
        self._calls: dict[int, Call] = {}
        self._broken: str | None = None

    # --- calling

    def make(self, call: Call, payload: Payload) -> None:
        """Make a call, with what it sends."""
        if self._broken is not None:
            call.give_up(f"{call.method}() of service {call.service!r}: {self._broken}")
            return
        self._number += 1
        self._calls[self._number] = call
        self._mouth.say(CALL, payload.flags, self._number, payload)

    def break_off(self, why: str) -> None:
        """The other side is gone: no call is answered any more."""
        self._broken = why
        calls, self._calls = self._calls, {}
        for call in calls.values():
            call.give_up(f"{call.method}() of service {call.service!r}: {why}")

    # --- hearing

    def take(self, frame: Frame) -> None:
        """A CALL or an ANSWER has come."""
        kind, flags, number, body, buffers = frame
        # The body is valid only until the next read.
        if kind == CALL:
            gevent.spawn(self._serve, number, flags, bytes(body), buffers)
            return
        call = self._calls.pop(number, None)
        if call is not None:
            call.settle(flags, bytes(body), buffers)

    def _serve(self, number: int, flags: int, body: bytes, buffers: Any) -> None:
        try:
            (method, *args), kwargs = decode_arguments(flags, body, buffers)
            answer = encode_value(self._find(method)(*args, **kwargs), self._limit)
            flags = answer.flags
        except BaseException as error:
            flags, answer = RAISED, self._fault(error)
        self._mouth.say(ANSWER, flags, number, answer)

    def _fault(self, error: BaseException) -> Payload:
        trace = error.__traceback__
        # Without our own frame, which tells the reader nothing.
        error = error.with_traceback(trace.tb_next if trace is not None else None)
        return outcome.failed(Ended.ERROR, error, self._limit).payload
