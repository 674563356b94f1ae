"""One process that runs a service, as its manager sees it.

::

    launch -> READY, RUN sent -> UP -> ready -> asked to end -> DONE or FAIL -> STOP -> gone
                 '--raised, crashed, too late----------------------------------------^
"""

from __future__ import annotations

import itertools
import logging
import signal
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from gtaskman.errors import FrameError
from gtaskman.latch import Latch
from gtaskman.pool import causes
from gtaskman.pool.alarm import Alarm
from gtaskman.pool.process import Process
from gtaskman.reference import Reference
from gtaskman.report import Failure, FailureKind
from gtaskman.services.calls import Line
from gtaskman.services.options import ServiceOptions
from gtaskman.services.policy import Ending
from gtaskman.task import ASYNC, Definition
from gtaskman.wire import messages
from gtaskman.wire.frames import Frame, head
from gtaskman.wire.messages import SPAN_SIZE, Ended, Fault, Up, order_frame
from gtaskman.wire.payload import Payload, decode_arguments

log = logging.getLogger(__name__)

_RUN = 1  # the number of the only run that its worker ever has
_LEAVING = 2.0  # seconds that a process may take to leave when its service has ended


class Order(NamedTuple):
    """What is sent to a process that is to be a service."""

    definition: Definition
    reference: Reference
    task_id: str
    payload: Payload


class Verdict(NamedTuple):
    """How a process ended: for the policy, in words, and what went wrong."""

    ending: Ending
    message: str
    failure: Failure | None


class Pong(Latch):
    """What a process is doing, when it has answered: its stacks as ``text``."""

    text = ""


class InstanceListener(Protocol):
    """Who is told what becomes of an instance, always on the hub."""

    def on_up(self, instance: Instance) -> None:
        """Its run is entered."""

    def on_ready(self, instance: Instance) -> None:
        """It is ready."""

    def on_progress(self, progress: tuple[float, float, str]) -> None:
        """Its task has written with its pen."""

    def on_message(self, name: str, payload: Any) -> None:
        """It has emitted a message."""

    def on_ended(self, instance: Instance) -> None:
        """Its process is gone."""


class Instance(Process):
    """The parent's end of one process of a service."""

    def __init__(
        self,
        number: int,
        loop: Any,
        limit: int,
        listener: InstanceListener,
        options: ServiceOptions,
        find: Callable[[str], Callable[..., Any]],
        on_gone: Callable[[Instance, FrameError | None], None],
    ) -> None:
        super().__init__(number, loop, limit, _hear, on_gone, messages.FROM_SERVICE)
        self.listener = listener
        self._on_gone = on_gone
        self.line = Line(self, find, limit)
        self.ready_at: float | None = None  # monotonic
        self.asked = False  # it was told to end
        self.unwell: str | None = None  # why it was, if that was for its own sake
        self.refused: str | None = None  # why it never lived
        self._options = options
        self._entered = False
        self._pings = itertools.count(1)
        self._pongs: dict[int, Pong] = {}  # that are yet to come
        self._outcome: tuple[Ended | None, Fault | None] | None = None  # how its run ended
        self._alarm = Alarm(loop)  # what comes next unless it does what it is expected to do

    # --- predicates

    @property
    def takes_calls(self) -> bool:
        """Whether it is ready, and nobody has told it to end."""
        return self.ready_at is not None and not self.asked and self._outcome is None

    @property
    def ran(self) -> float:
        """Seconds for which it has been ready; 0.0 if it never was."""
        return time.monotonic() - self.ready_at if self.ready_at is not None else 0.0

    # --- what it is told

    def order(self, order: Order, attempt: int) -> None:
        """Say what it is to be; it hears that when it is up."""
        definition, reference, task_id, payload = order
        self.put(messages.DEFINE, definition.number, messages.pack((definition.name, reference)))
        flags = definition.flags | ASYNC | payload.flags
        frame = order_frame(
            flags, _RUN, definition.number, attempt, task_id, 0.0, payload.body, payload.buffers
        )
        self.channel.put_frame(frame, payload.buffers)
        self.channel.flush()
        self._alarm.set(self._options.start_timeout, self._too_late)

    def say(self, kind: int, flags: int, number: int, payload: Payload) -> None:
        """Say something with the next turn of the loop."""
        if not self.channel.closed:
            body, buffers = payload.body, payload.buffers
            self.channel.put_frame(head(kind, flags, number, len(body), buffers) + body, buffers)
            self.channel.soon()

    def ask(self, unwell: str | None = None) -> None:
        """Tell it to end; if it does not, signals follow. ``unwell``: why, for its own sake."""
        if self.asked:
            if unwell is None:
                self.unwell = None  # somebody wants it now, whatever its health
            return
        self.asked, self.unwell = True, unwell
        if self._outcome is None:
            self._alarm.set(self._options.terminate_timeout, self._terminate)
            if self._entered:
                self._say_end()

    def _say_end(self) -> None:
        self.put(messages.END, 0)
        self.channel.flush()
        self.ring()

    def ping(self) -> Pong:
        """Ask what it is doing, now."""
        number, pong = next(self._pings), Pong()
        self._pongs[number] = pong
        self.put(messages.PING, number)
        self.channel.flush()
        self.ring()
        return pong

    def _terminate(self) -> None:
        options = self._options
        self.kill_reason = f"it did not end within {options.terminate_timeout:g} s of being asked"
        self.signal(signal.SIGTERM)
        left = options.terminate_timeout_hard - options.terminate_timeout
        self._alarm.set(left, self._kill)

    def _kill(self) -> None:
        self.kill_reason = (
            f"it did not end within {self._options.terminate_timeout_hard:g} s of being asked,"
            " and ignored SIGTERM"
        )
        self._end_now(self.kill_reason)

    def _too_late(self) -> None:
        seconds = self._options.start_timeout
        self._end_now(f"it was not ready within {seconds:g} s (start_timeout)")

    def _end_now(self, reason: str) -> None:
        self.end(reason)
        if self.pid is None:
            # Nobody knows whether it will ever live, and it is not waited for.
            self._on_gone(self, None)

    def _linger(self) -> None:
        self.end(f"its process was still there {_LEAVING:g} s after the service had ended")

    # --- what it says

    def hear(self, frame: Frame) -> None:
        """It has said something."""
        kind, flags, _, body, buffers = frame
        if kind in (messages.CALL, messages.ANSWER):
            self.line.take(frame)
        elif kind == messages.UP:
            self._is_up(flags)
        elif kind == messages.PROGRESS:
            self.listener.on_progress(messages.unpack(body))
        elif kind == messages.TELL:
            self._pass_on(flags, body, buffers)
        elif kind in (messages.DONE, messages.VOIDS):
            self._has_ended(None, None)
        elif kind == messages.FAIL:
            self._has_ended(Ended(flags), Fault(*messages.unpack(body[SPAN_SIZE:])))
        elif kind == messages.PONG:
            pong = self._pongs.pop(frame.number)
            pong.text = messages.Stack(*messages.unpack(body)).text
            pong.open()
        elif kind == messages.READY:
            self.pid = frame.number  # its starter may tell it later than it speaks
        else:
            raise FrameError(f"a message of the unexpected kind {kind}")

    def _is_up(self, flags: int) -> None:
        if not self._entered:
            self._entered = True
            self.listener.on_up(self)
            if self.asked:
                self._say_end()
        if flags == Up.READY and self.ready_at is None:
            self.ready_at = time.monotonic()
            if not self.asked:
                self._alarm.cancel()
                self.listener.on_ready(self)

    def _pass_on(self, flags: int, body: memoryview, buffers: Any) -> None:
        try:
            (name, payload), _ = decode_arguments(flags, body, buffers)
        except Exception:
            # Its class cannot be had here: no reason to end the service.
            log.exception("a message of service process %s cannot be decoded here", self.pid)
        else:
            self.listener.on_message(name, payload)

    def _has_ended(self, how: Ended | None, fault: Fault | None) -> None:
        """Its run has: the process has nothing left to do."""
        self._outcome = (how, fault)
        self.put(messages.STOP, 0)
        self.channel.flush()
        self._alarm.set(_LEAVING, self._linger)

    # --- its end

    def verdict(self) -> Verdict:
        """How it has ended."""
        ending, message, failure = self._judge()
        if self.asked and self.unwell is None:
            return Verdict(Ending.ASKED, message, failure)
        if self.unwell is not None:
            crash = Failure(FailureKind.CRASH, self.unwell)
            return Verdict(Ending.FAILED, self.unwell, failure or crash)
        return Verdict(ending, message, failure)

    def _judge(self) -> Verdict:
        if self.refused is not None:
            message = f"it could not be started: {self.refused}"
            return Verdict(Ending.FAILED, message, Failure(FailureKind.CRASH, message))
        if self._outcome is not None:
            return _judge_run(*self._outcome)
        cause = causes.death(self)
        if cause.exitcode == 0 and self.kill_reason is None:
            return Verdict(Ending.RETURNED, cause.message, None)
        return Verdict(Ending.FAILED, cause.message, cause)

    def close(self) -> None:
        """Let go of everything that belongs to it."""
        self._alarm.cancel()
        super().close()


def _hear(instance: Instance, frames: list[Frame]) -> None:
    heard = 0
    try:
        for frame in frames:
            heard += 1
            instance.hear(frame)
    except BaseException:
        del frames[:heard]  # a signal handler has raised: the rest follows
        raise


def _judge_run(how: Ended | None, fault: Fault | None) -> Verdict:
    if how is None or how is Ended.CANCELLED or fault is None:
        return Verdict(Ending.RETURNED, "its run has returned", None)
    message = f"{fault.exc_type}: {fault.message}" if fault.message else str(fault.exc_type)
    failure = Failure(FailureKind.ERROR, fault.message, fault.exc_type, fault.traceback)
    if how is Ended.UNRESOLVED:
        return Verdict(
            Ending.HOPELESS, f"its code cannot be imported in its process: {message}", failure
        )
    if how is Ended.UNDECODED:
        return Verdict(
            Ending.HOPELESS, f"its options cannot be decoded in its process: {message}", failure
        )
    return Verdict(Ending.FAILED, f"it raised {message}", failure)
