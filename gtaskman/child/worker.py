"""One worker: reads orders from its pipe, runs them, says how they went.

::

    pipe -> hub callback -> inbox -> main greenlet        sync: one after the other
                         -> TaskGreenlet                  async: side by side
    doorbell (SIGURG) -> the running task's greenlet      when that task keeps the hub from running

Sync tasks run in the main greenlet, since a callback of the hub could not block. The hub cannot
read the pipe while a task computes; so the manager rings SIGURG, and the handler, which runs
between two instructions of the task, reads it instead.
"""

from __future__ import annotations

import collections
import contextvars
import os
import signal
import time
import traceback
from types import FrameType
from typing import Any, NoReturn

from gevent import Greenlet, getcurrent
from gevent.event import Event
from gevent.hub import get_hub
from greenlet import GreenletExit

from gtaskman.child import boot, outcome
from gtaskman.child.outcome import Outcome
from gtaskman.child.pen import Pen
from gtaskman.child.targets import Targets, Unresolved
from gtaskman.context import Current, running
from gtaskman.errors import Cancelled, FrameError, SoftTimeout
from gtaskman.report import DEFERRED
from gtaskman.wire import messages
from gtaskman.wire.channel import Channel
from gtaskman.wire.frames import Frame, head
from gtaskman.wire.messages import Ended, Order, Why
from gtaskman.wire.payload import decode_arguments
from gtaskman.wire.settings import Settings
from gtaskman.wire.slate import Slate

_FLUSH_AFTER = 200e-6  # seconds for which results of tiny tasks are gathered into one write

_ENDED_BY = {
    Why.CANCELLED: Ended.CANCELLED,
    Why.TIMEOUT: Ended.TIMEOUT,
    Why.SOFT_TIMEOUT: Ended.TIMEOUT,
}


class Stop:
    """That a run must stop, why, and whether its task has been told."""

    __slots__ = ("told", "why")

    def __init__(self, why: Why) -> None:
        self.why = why
        self.told = False

    def tell(self) -> BaseException:
        """What is thrown into the task, once."""
        self.told = True
        if self.why is Why.SOFT_TIMEOUT:
            return SoftTimeout("the task reached its soft time limit")
        return Cancelled(self.why.name.lower())


class Worker:
    """The child's side of a pipe, from READY to the end of the process."""

    def __init__(self, fd: int, slate: Slate, settings: Settings) -> None:
        self._hub: Any = get_hub()
        self._main: Any = getcurrent()
        self._loop = self._hub.loop
        self._slate = slate
        self._limit = settings.max_frame
        self._channel = Channel(fd, self._loop, settings.max_frame, self._on_frames, self._on_close)
        self._targets = Targets(settings.main)
        self._inbox: collections.deque[Order] = collections.deque()
        self._greenlets: dict[int, TaskGreenlet] = {}
        self._spare: list[TaskGreenlet] | None = [] if settings.reuse_greenlets else None
        self._stops: dict[int, Stop] = {}
        self._running = 0  # the sync run that the doorbell may interrupt, or 0
        self._parked = False  # the main greenlet waits for orders
        self._busy = 0  # code of ours runs that must not be interrupted
        self._rung = False  # the doorbell rang while it could not be answered
        self._bell_frame: FrameType | None = None  # where the doorbell found the running task
        self._ending = False
        self._flushed = 0.0

    # --- life

    def serve(self) -> NoReturn:
        """Say READY, then work until told to stop."""
        signal.signal(signal.SIGURG, self._on_doorbell)
        signal.siginterrupt(signal.SIGURG, False)
        self._channel.start()
        self._send(messages.READY, 0)
        self._channel.flush()
        while not self._ending:
            while self._inbox:
                self._run_sync(self._inbox.popleft())
            self._rest()
        boot.flush_output()
        self._channel.drain()
        boot.leave()

    def _rest(self) -> None:
        """Tell what is done, and wait for orders."""
        self._channel.flush()
        boot.flush_output()
        if self._inbox or self._ending:
            return
        self._parked = True
        self._hub.switch()
        self._parked = False

    def _wake(self) -> None:
        # Only the main greenlet's own wait is ended here, never one inside a task.
        if self._parked:
            self._parked = False
            self._main.switch()

    # --- what the manager says

    def _on_frames(self, frames: list[Frame]) -> None:
        last = 0
        for frame in frames:
            if frame.kind == messages.RUN:
                order = messages.unpack_order(frame.number, frame.flags, frame.body, frame.buffers)
                last = order.number
                self._accept(order)
            else:
                self._heed(frame)
        if last:
            self._slate.receive(last)
        if self._parked and (self._inbox or self._ending):
            self._loop.run_callback(self._wake)

    def _accept(self, order: Order) -> None:
        if not order.flags & messages.ASYNC:
            self._inbox.append(order)
            return
        if self._spare:
            greenlet = self._spare.pop()
            greenlet.order = order
            self._greenlets[order.number] = greenlet
            self._loop.run_callback(greenlet.switch)
            return
        self._greenlets[order.number] = greenlet = TaskGreenlet(self, order)
        greenlet.start()

    def _heed(self, frame: Frame) -> None:
        if frame.kind == messages.DEFINE:
            self._targets.define(frame.number, messages.unpack(frame.body))
        elif frame.kind == messages.CANCEL:
            self._stop_run(frame.number, Why(frame.flags))
        elif frame.kind == messages.RECALL:
            self._give_back()
        elif frame.kind == messages.PING:
            self._answer_ping(frame.number, self._bell_frame)
        elif frame.kind == messages.STOP:
            self._ending = True

    def _on_close(self, error: FrameError | None) -> None:
        # The manager is gone, or the pipe carries nonsense: nobody is left to work for.
        boot.flush_output()
        os._exit(0 if error is None else 1)

    def _give_back(self) -> None:
        numbers = [order.number for order in self._inbox]
        self._inbox.clear()
        self._send(messages.RETURNED, 0, messages.pack(numbers))
        self._channel.flush()

    def _answer_ping(self, number: int, frame: FrameType | None) -> None:
        text = "".join(traceback.format_stack(frame)) if frame else self._stacks()
        jobs = len(self._inbox) + len(self._greenlets) + (1 if self._running else 0)
        stack = messages.Stack(self._running, jobs, text)
        self._send(messages.PONG, number, messages.pack(stack))
        self._channel.flush()

    def _stacks(self) -> str:
        """Where the running tasks wait."""
        frames = [greenlet.gr_frame for greenlet in self._greenlets.values()]
        if self._running and self._main is not getcurrent():
            frames.append(self._main.gr_frame)
        return "\n".join("".join(traceback.format_stack(each)) for each in frames if each)

    # --- stopping a run

    def _stop_run(self, number: int, why: Why) -> None:
        """CANCEL came, read by the hub or by the doorbell. A stale one finds nothing to stop."""
        for order in self._inbox:
            if order.number == number:
                self._inbox.remove(order)
                self._finish(order, 0.0, 0.0, outcome.stopped(_ENDED_BY[why]))
                self._channel.flush()
                return
        if number == self._running or number in self._greenlets:
            self._stops[number] = Stop(why)
            # Whoever reads this in the task itself raises there, before the hub comes round.
            self._loop.run_callback(self._interrupt, number)

    def _interrupt(self, number: int) -> None:
        """Throw into a task that waits cooperatively; runs in the hub."""
        stop = self._stops.get(number)
        if stop is None or stop.told:
            return
        greenlet = self._greenlets.get(number)
        if greenlet is None and number == self._running:
            self._main.throw(stop.tell())
        elif greenlet is not None and greenlet.begun:
            greenlet.throw(stop.tell())
        elif greenlet is not None:
            greenlet.skip = True  # it finds out before it begins, and says so

    def _on_doorbell(self, _signal: int, frame: FrameType | None) -> None:
        """Read the pipe for a hub that a task keeps from running."""
        if self._busy or self._channel.reading or getcurrent() is self._hub:
            # Whoever is at it reads the pipe soon, or looks at this before a task goes on.
            self._rung = True
            return
        self._answer_bell(frame)

    def _answer_bell(self, frame: FrameType | None) -> None:
        self._rung = False
        self._bell_frame = frame
        self._busy += 1
        try:
            self._channel.read()
        finally:
            self._busy -= 1
            self._bell_frame = None
        # Only what runs right here is raised into: a CANCEL meant for a task that has ended
        # meanwhile finds no stop, and hits nobody.
        current = getcurrent()
        number = self._running if current is self._main else getattr(current, "number", 0)
        stop = self._stops.get(number)
        if stop is not None and not stop.told:
            raise stop.tell()

    def _at_ease(self) -> None:
        """Leave code of ours: a bell that rang meanwhile is answered before the task goes on."""
        self._busy -= 1
        if self._rung and not self._busy and getcurrent() is not self._hub:
            self._answer_bell(None)

    # --- running

    def _run_sync(self, order: Order) -> None:
        started = time.monotonic()
        self._slate.begin(order.number, started)
        try:
            ended = self._attempt(order, None)
        except (Cancelled, SoftTimeout) as error:
            # The bell rang between the task's last instruction and our first.
            ended = self._stopped_by(order, error)
        self._running = 0
        self._slate.end()
        now = time.monotonic()
        self._finish(order, started, now, ended)
        if order.flags & messages.ONCE or now - self._flushed > _FLUSH_AFTER:
            self._channel.flush()
            self._flushed = now

    def run_async(self, greenlet: TaskGreenlet, order: Order) -> None:
        """Run one async task in its greenlet."""
        started = time.monotonic()
        if greenlet.skip:
            ended = outcome.stopped(_ENDED_BY[self._stops[order.number].why])
        else:
            greenlet.begun = True
            ended = self._attempt(order, greenlet)
        greenlet.number = 0
        del self._greenlets[order.number]
        self._finish(order, started, time.monotonic(), ended)

    def _attempt(self, order: Order, greenlet: TaskGreenlet | None) -> Outcome:
        """Run an order to its outcome; nothing that the task does gets past this."""
        name = order.id
        try:
            target = self._targets.get(order.target)
            name = self._targets.name(order.target)
            args, kwargs = self._decode(order)
        except Unresolved as error:
            return outcome.failed(Ended.UNRESOLVED, error.__cause__ or error)
        except BaseException as error:
            return outcome.failed(Ended.UNDECODED, error)
        pen = Pen(lambda body: self._send_progress(order.number, body), self._loop.run_callback)
        deadline = time.time() + order.limit if order.limit else None
        current = Current(order.id, name, order.attempt, deadline, pen)
        try:
            try:
                if greenlet is None:
                    self._running = order.number
                else:
                    greenlet.number = order.number
                if self._rung:
                    self._answer_bell(None)
                value = contextvars.Context().run(_call, target, order, args, kwargs, current)
                if pen.deferred and value is DEFERRED:
                    value = _wait_for(pen)
            finally:
                # From here on no bell may raise: one store, which nothing can come between.
                if greenlet is None:
                    self._running = 0
                else:
                    greenlet.number = 0
        except BaseException as error:
            ended = self._stopped_by(order, error)
        else:
            ended = self._ended_by(pen, name, value)
        pen.close()
        return ended

    def _decode(self, order: Order) -> tuple[tuple[Any, ...], dict[str, Any]]:
        try:
            return decode_arguments(order.flags, order.body, order.buffers)
        except Exception as error:
            # Its classes may live in the main module, which only tasks of its own bring in here.
            if not self._targets.decode_with_main(error):
                raise
            return decode_arguments(order.flags, order.body, order.buffers)

    def _ended_by(self, pen: Pen, name: str, value: Any) -> Outcome:
        """What a task that returned has come to: its value, or what it said with its pen."""
        if pen.error is not None:
            return outcome.failed(Ended.ERROR, pen.error)
        return outcome.completed(name, pen.result if pen.ended else value, self._limit)

    def _stopped_by(self, order: Order, error: BaseException) -> Outcome:
        """What an exception that left the task means."""
        stop = self._stops.get(order.number)
        if isinstance(error, SoftTimeout) and stop is not None:
            return outcome.failed(Ended.TIMEOUT, error)
        if isinstance(error, GreenletExit):
            return outcome.stopped(_ENDED_BY[stop.why] if stop is not None else Ended.CANCELLED)
        return outcome.failed(Ended.ERROR, error)

    # --- what the manager is told

    def _finish(self, order: Order, started: float, ended: float, result: Outcome) -> None:
        self._stops.pop(order.number, None)
        kind, flags, payload = result
        body = outcome.span(started, ended) + payload.body
        self._busy += 1
        try:
            start = head(kind, flags, order.number, len(body), payload.buffers)
            self._channel.put_frame(start, body, payload.buffers)
            self._channel.soon()
        finally:
            self._busy -= 1

    def _send(self, kind: int, number: int, body: bytes = b"") -> None:
        self._channel.put(head(kind, 0, number, len(body)) + body)
        self._channel.soon()

    def _send_progress(self, number: int, values: tuple[float, float, str]) -> None:
        self._busy += 1
        try:
            self._send(messages.PROGRESS, number, messages.pack(values))
            if getcurrent() is self._main:
                self._channel.drain()
            else:
                self._channel.flush()
        finally:
            self._at_ease()


class TaskGreenlet(Greenlet):  # type: ignore[misc] # gevent has no type hints
    """The greenlet of an async task; kept for the next one if the configuration says so."""

    def __init__(self, worker: Worker, order: Order) -> None:
        Greenlet.__init__(self)
        self.worker = worker
        self.order = order
        self.number = 0  # the run that the doorbell may interrupt, or 0
        self.begun = False
        self.skip = False

    def _run(self) -> None:
        worker = self.worker
        worker.run_async(self, self.order)
        while worker._spare is not None:
            self.begun = self.skip = False
            worker._spare.append(self)
            worker._hub.switch()
            worker.run_async(self, self.order)


def _call(
    target: Any, order: Order, args: tuple[Any, ...], kwargs: dict[str, Any], current: Current
) -> Any:
    running.set(current)
    flags = order.flags
    if flags & messages.CLASS:
        return target.revive(order.id, kwargs).run(current.progress)
    if flags & messages.CHUNK:
        return [target(item) for item in args[0]]
    return target(*args, **kwargs)


def _wait_for(pen: Pen) -> None:
    """A task that goes on after its ``run``: wait until it says that it has ended."""
    if not pen.ended:
        ended = Event()
        pen._on_end = ended.set
        ended.wait()
