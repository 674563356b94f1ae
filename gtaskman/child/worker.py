"""One worker: reads orders from its pipe, runs them, says how they went.

::

    pipe -> hub callback -> inbox -> main greenlet        sync: one after the other
                         -> TaskGreenlet                  async: side by side
    doorbell (SIGURG) -> the running task's greenlet      when that task keeps the hub from running

Sync tasks run in the main greenlet, since a callback of the hub could not block; while something
that an earlier one left may still raise there, each in a greenlet of its own. The hub cannot read
the pipe while a task computes; so the manager rings SIGURG, and the handler, which runs
between two instructions of the task, reads it instead.
"""

from __future__ import annotations

import collections
import contextvars
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, NoReturn

from gevent import Timeout, getcurrent, monkey
from gevent.event import Event
from gevent.exceptions import HubDestroyed, LoopExit
from gevent.hub import get_hub
from greenlet import GreenletExit
from greenlet import greenlet as PlainGreenlet  # noqa: N812 - a class, whatever its name

from gtaskman.child import boot, leftovers, outcome, seal, signals
from gtaskman.child.outcome import Outcome
from gtaskman.child.pen import Pen
from gtaskman.child.run import Run
from gtaskman.child.targets import Targets, Unresolved
from gtaskman.context import running
from gtaskman.errors import Cancelled, FrameError, SoftTimeout
from gtaskman.report import DEFERRED
from gtaskman.wire import messages
from gtaskman.wire.channel import Channel
from gtaskman.wire.frames import Frame, head
from gtaskman.wire.messages import ASYNC, RUN, Ended, Why
from gtaskman.wire.payload import EMPTY, Payload
from gtaskman.wire.settings import Settings
from gtaskman.wire.slate import Slate

log = logging.getLogger(__name__)

_FLUSH_AFTER = 200e-6  # seconds for which results of tiny tasks are gathered into one write

_ROOM = 200  # frames that the doorbell's handler may need above the task that it interrupts

_HELD = 0.1  # seconds without a turn of the hub that an async task is reported for

_LINGER = 100e-6  # seconds for which the next order is looked for before the worker sleeps

_get_ident = monkey.get_original("_thread", "get_ident")  # gevent's tells greenlets apart
_pack_void = messages.VOID.pack
_NO_ARGUMENTS: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})
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

    def __init__(
        self, fd: int, slate: Slate, settings: Settings, descriptors: Sequence[int] = ()
    ) -> None:
        self.descriptors = tuple(descriptors)  # what it was given beside its pipe
        self.targets = Targets(settings.main)
        self.limit = messages.payload_limit(settings.max_frame)
        self._attendant: Callable[[Frame], None] | None = None
        self._thread = _get_ident()
        self._hub: Any = get_hub()
        self._main: Any = getcurrent()
        self._loop = self._hub.loop
        self._slate = slate
        self._max_result = settings.max_result
        self._channel = Channel(
            fd,
            self._loop,
            settings.max_frame,
            messages.TO_SERVICE,
            self._on_frames,
            self._on_close,
            resumes=False,
        )
        self._channel.on_flush = self._put_voids
        self._channel.announce_large(self._on_large)
        self._voids: list[bytes] = []  # runs that returned nothing, and nobody knows of yet
        self._inbox: collections.deque[Run] = collections.deque()
        self._greenlets: dict[int, TaskGreenlet] = {}
        self._spare: list[TaskGreenlet] | None = [] if settings.reuse_greenlets else None
        self._stops: dict[int, Stop] = {}
        self._begun = 0  # the sync run that is being prepared or runs, or 0
        self._running = 0  # the sync run that the doorbell may interrupt, or 0
        self._parked = False  # the main greenlet waits for orders
        self._busy = 0  # code of ours runs that must not be interrupted
        self._rung = False  # the doorbell rang while it could not be answered
        self._bell_frame: FrameType | None = None  # where the doorbell found the running task
        self._ending = False
        self._flushed = 0.0
        self._telling = False  # what async tasks have printed is written with the hub's next turn
        self._turns = 0  # how often the hub went on to other greenlets after async runs began
        self._turn_due = False
        self._held: set[int] = set()  # targets of async runs that were reported for blocking
        self._posted: collections.deque[Callable[[], None]] = collections.deque()
        self._forked: Any = None  # in a fork that a task made: the greenlet that made it
        self._sync: Any = self._main  # the greenlet that sync tasks run in
        self._away = False  # the main greenlet waits for a turn of the hub, or for a sync task
        self._unheld = 0  # references to the main greenlet when no task has left any
        self._brisk = False  # orders follow at once

    # --- life

    def serve(self) -> NoReturn:
        """Say READY, then work until told to stop."""
        self._listen_to_bell()
        # What is buffered would be written by the task's fork as well.
        os.register_at_fork(before=boot.flush_output, after_in_child=self._on_fork)
        self._hub.handle_system_error = self._on_system_error
        self._give_way()
        self._unheld = leftovers.references(self._main)
        self._channel.start(self._on_readable)
        # As its number, the pid: its starter may tell it later than we speak.
        self._send(messages.READY, os.getpid())
        self._channel.flush()
        while not self._ending:
            while self._inbox:
                if leftovers.references(self._main) > self._unheld and self._is_held():
                    self._run_apart(self._inbox.popleft())
                else:
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
        self._slate.end()
        if self._brisk and not self._greenlets and self._linger():
            return
        since = time.monotonic()
        self._park()
        # As long again went into falling asleep and waking, where several processes are in line.
        self._brisk = time.monotonic() - since < 2 * _LINGER

    def _park(self) -> None:
        """Wait in the hub for an order."""
        self._parked = True
        try:
            self._wait()
        finally:
            self._parked = False

    def _wait(self) -> None:
        """Wait in the hub until anything switches to the main greenlet, or raises there."""
        try:
            self._hub.switch()
        except (LoopExit, HubDestroyed):
            raise
        except BaseException as error:
            if self._forked is not None:
                self._leave_fork(error)
            if isinstance(error, Timeout):
                error.close()  # else it refers to this greenlet until the garbage is collected
            log.warning("an earlier task left something running that raised", exc_info=error)

    def _give_way(self) -> None:
        """Wait for one turn of the hub."""
        self._away = True
        self._loop.run_callback(self._come_back)
        while self._away:
            self._wait()

    def _come_back(self) -> None:
        self._away = False
        self._main.switch()

    def _listen_to_bell(self) -> None:
        signal.signal(signal.SIGURG, self._on_doorbell)
        signal.siginterrupt(signal.SIGURG, False)

    def _on_system_error(self, kind: type[BaseException], value: Any, trace: Any = None) -> None:
        """A greenlet has ended with SystemExit or the like; the hub would end this process."""
        stray = issubclass(kind, self._hub.SYSTEM_ERROR) and self._attendant is None
        if not stray or self._forked is not None:
            type(self._hub).handle_system_error(self._hub, kind, value, trace)
            return
        log.warning(
            "a greenlet that a task spawned ended with %s: the worker goes on",
            kind.__name__,
            exc_info=(kind, value, trace),
        )

    def _linger(self) -> bool:
        """Look for the next order a moment longer; whether it came.

        Falling asleep and waking costs more than a tiny task. Done only while orders have been
        following at once, so that a worker that is left alone sleeps.
        """
        read, end = self._channel.read, time.monotonic() + _LINGER
        while time.monotonic() < end:
            os.sched_yield()  # whoever is to send the next order may have no other core
            read()
            if self._inbox or self._greenlets or self._ending:
                return True
        self._brisk = False
        return False

    def _on_readable(self) -> None:
        """The pipe has something; in the hub, as the last thing of this callback."""
        self._channel.read()
        # Only the main greenlet's own wait is ended here, never one inside a task.
        if self._parked and (self._inbox or self._ending):
            self._parked = False
            self._main.switch()

    # --- what the manager says

    def _on_frames(self, frames: list[Frame]) -> None:
        last = 0
        for frame in frames:
            kind, flags, number, body, buffers = frame
            if kind != RUN:
                self._heed(frame)
                continue
            last = number
            if flags & ASYNC:
                self._begin(Run(number, flags, body, buffers))
            else:
                self._inbox.append(Run(number, flags, body, buffers))
        if last:
            self._slate.receive(last)

    def _on_large(self, kind: int, number: int) -> None:
        # There may be no memory for it: then the page says which order ended this process.
        if kind == RUN:
            self._slate.arrive(number)

    def _begin(self, run: Run) -> None:
        runner = self._spare_greenlet() if self._spare else None
        if runner is None:
            runner = TaskGreenlet(self._run_asyncs, self._hub)
        runner.skip = runner.begun = False
        self._greenlets[run.number] = runner
        self._loop.run_callback(runner.switch, run)

    def _spare_greenlet(self) -> TaskGreenlet | None:
        """A kept greenlet, if one is left that nothing of its last task refers to."""
        while self._spare:
            runner = self._spare.pop()
            if runner.dead:
                continue  # a timeout that its task left running ended it
            if leftovers.references(runner) <= leftovers.KEPT:
                return runner
            self._loop.run_callback(runner.throw)
        return None

    def _heed(self, frame: Frame) -> None:
        if frame.kind == messages.DEFINE:
            self.targets.define(frame.number, messages.unpack(frame.body))
        elif frame.kind == messages.CANCEL:
            self.stop_run(frame.number, Why(frame.flags))
        elif frame.kind == messages.RECALL:
            self._give_back()
        elif frame.kind == messages.PING:
            self._answer_ping(frame.number, self._bell_frame)
        elif frame.kind == messages.STOP:
            self._ending = True
        elif self._attendant is not None:
            self._attendant(frame)
        else:
            raise FrameError(f"a message of the unknown kind {frame.kind}")

    def _on_close(self, error: FrameError | None) -> None:
        # The manager is gone, or the pipe carries nonsense: nobody is left to work for.
        boot.flush_output()
        os._exit(0 if error is None else 1)

    def _give_back(self) -> None:
        numbers = [run.number for run in self._inbox]
        self._send(messages.RETURNED, 0, messages.pack(numbers))
        self._inbox.clear()
        self._channel.flush()

    def _answer_ping(self, number: int, frame: FrameType | None) -> None:
        text = "".join(traceback.format_stack(frame)) if frame else self._stacks()
        jobs = len(self._inbox) + len(self._greenlets) + (1 if self._running else 0)
        text = text[: self.limit // 4]  # a character takes up to four bytes
        stack = messages.Stack(os.getpid(), self._running, jobs, text)
        self._send(messages.PONG, number, messages.pack(stack))
        self._channel.flush()

    def _stacks(self) -> str:
        """Where the running tasks wait; with somebody in attendance, what every greenlet does."""
        if self._attendant is not None:
            from gevent.util import format_run_info  # slow to import, and seldom needed

            return "\n".join(format_run_info())
        frames = [greenlet.gr_frame for greenlet in self._greenlets.values()]
        if self._running and self._sync is not getcurrent():
            frames.append(self._sync.gr_frame)
        return "\n".join("".join(traceback.format_stack(each)) for each in frames if each)

    # --- stopping a run

    def stop_run(self, number: int, why: Why = Why.CANCELLED) -> None:
        """Stop a run: CANCEL came, read by the hub or by the doorbell, or the run itself says so.

        A stale one finds nothing to stop.
        """
        for run in self._inbox:
            if run.number == number:
                self._inbox.remove(run)
                self._finish(run, 0.0, outcome.stopped(_ENDED_BY[why]))
                self._channel.flush()
                return
        stop = self._stops.get(number)
        if stop is not None and stop.why is Why.CANCELLED and why is not Why.CANCELLED:
            return  # a limit that is reached meanwhile does not interrupt its clean-up
        if number in (self._running, self._begun) or number in self._greenlets:
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
            self._sync.throw(stop.tell())
        elif greenlet is not None and greenlet.begun:
            greenlet.throw(stop.tell())
        elif greenlet is not None:
            greenlet.skip = True  # it finds out before it begins, and says so
        # One that is still being imported or decoded is not interrupted: it finds this afterwards.

    def _on_doorbell(self, _signal: int, frame: FrameType | None) -> None:
        """Read the pipe for a hub that a task keeps from running."""
        # The task that is interrupted may be close to the recursion limit.
        limit = sys.getrecursionlimit()
        sys.setrecursionlimit(limit + _ROOM)
        try:
            self._heed_doorbell(frame)
        finally:
            try:
                sys.setrecursionlimit(limit)
            except RecursionError:  # just here: the task is at its limit
                self._loop.run_callback(sys.setrecursionlimit, limit)

    def _heed_doorbell(self, frame: FrameType | None) -> None:
        busy = self._busy or self._channel.reading or getcurrent() is self._hub
        if busy or self._number_here() == 0:
            # Code of ours was interrupted: the hub reads the pipe soon, or the next task finds
            # this before it begins.
            self._rung = True
            return
        self._answer_bell(frame)

    def _number_here(self) -> int | None:
        """The run of the current greenlet; 0 in code of ours, None in a greenlet of a task's."""
        current = getcurrent()
        if current is self._sync:
            return self._running
        return 0 if current is self._main else getattr(current, "number", None)

    def _answer_bell(self, frame: FrameType | None) -> None:
        self._bell_frame = frame
        self._rung = True
        while self._rung:  # it may ring again while it is being answered
            self._rung = False
            self._busy += 1
            try:
                self._channel.read()
                self._run_posted()
            finally:
                self._busy -= 1
        self._bell_frame = None
        if self._parked:
            # It was read here, so that the hub does not find it on the pipe any more.
            self._loop.run_callback(self._on_readable)
        # Only what runs right here is raised into: a CANCEL meant for a task that has ended
        # meanwhile finds no stop, and hits nobody.
        self._heed_stop(self._number_here() or 0)

    def _heed_stop(self, number: int) -> None:
        """Raise into a run that was stopped, unless it has been told."""
        stop = self._stops.get(number)
        if stop is not None and not stop.told:
            raise stop.tell()

    def _at_ease(self) -> None:
        """Leave code of ours: a bell that rang meanwhile is answered before the task goes on."""
        self._busy -= 1
        if self._rung and not self._busy and getcurrent() is not self._hub:
            self._answer_bell(sys._getframe(1))

    # --- running

    def _run_sync(self, run: Run) -> None:
        started = time.monotonic()
        self._slate.begin(run.number, started)
        self._begun = run.number
        try:
            ended = self._attempt(run, started, None)
            if signals.changed:
                self._restore_signals(_called(run))
        except BaseException as error:
            # The bell, or a timer of the task's, rang between its last instruction and our first.
            self._running = 0
            ended = self._stopped_by(run, error)
            if signals.changed:
                self._restore_signals(_called(run))
        self._begun = 0
        self._finish(run, started, ended)

    def _restore_signals(self, culprit: str) -> None:
        signals.stop_timer(culprit)
        self._listen_to_bell()
        signals.changed = False

    def _is_held(self) -> bool:
        """Whether anything that earlier tasks left still refers to the main greenlet.

        It may raise there, as a ``gevent.Timeout`` does that still runs.
        """
        self._give_way()  # until then, what the hub was doing may refer to it
        return leftovers.references(self._main) > self._unheld

    def _run_apart(self, run: Run) -> None:
        """Run a sync task in a greenlet of its own, which nothing left by another can reach."""
        self._begun = run.number  # it may be cancelled from now on
        self._away = True
        self._sync = PlainGreenlet(self._run_and_come_back, self._hub)
        self._loop.run_callback(self._sync.switch, run)
        while self._away:
            self._wait()
        self._sync = self._main

    def _run_and_come_back(self, run: Run) -> None:
        try:
            self._run_sync(run)
        except BaseException as error:
            boot.leave_fork(error)  # as in the main greenlet: this process can go on no more
        self._loop.run_callback(self._come_back)

    def _run_asyncs(self, run: Run) -> None:
        """Run an async task, and the next ones if greenlets are kept; the body of a greenlet."""
        greenlet = getcurrent()
        self._run_async(greenlet, run)
        while self._spare is not None:
            self._spare.append(greenlet)
            try:
                run = self._hub.switch()
            except BaseException:
                return  # thrown by what its last task left: it is of no more use
            self._run_async(greenlet, run)

    def _run_async(self, greenlet: TaskGreenlet, run: Run) -> None:
        started = time.monotonic()
        if not self._turn_due:
            self._turn_due = True
            self._loop.run_callback(self._on_turn)
        turns = self._turns
        if greenlet.skip:
            ended = outcome.stopped(_ENDED_BY[self._stops[run.number].why])
        else:
            ended = self._attempt(run, started, greenlet)
        del self._greenlets[run.number]
        if turns == self._turns and self._greenlets:
            self._note_held(run, started)
        self._finish(run, started, ended)
        if not self._telling:
            self._telling = True
            self._loop.run_callback(self._tell)

    def _on_turn(self) -> None:
        self._turns += 1
        self._turn_due = False

    def _note_held(self, run: Run, started: float) -> None:
        """The run ended without a switch, and others wait: report it if that took long.

        In a monkey-patched process such a run computes; in another it probably waits, and blocks.
        """
        held = time.monotonic() - max(started, self.targets.found_at)
        if held > _HELD and run.target not in self._held and not monkey.is_module_patched("socket"):
            self._held.add(run.target)
            self._send(messages.HELD, run.number, messages.pack(held))

    def _tell(self) -> None:
        """Write what async tasks have printed, and how they ended, once for all of this turn."""
        self._telling = False
        boot.flush_output()
        self._channel.flush()
        if signals.changed and not self._greenlets and not self._begun:
            self._restore_signals("an async task")

    def _attempt(self, run: Run, started: float, greenlet: TaskGreenlet | None) -> Outcome:
        """Run an order to its outcome; nothing that the task does gets past this."""
        try:
            run.name, target = self.targets.get(run.target)
            args, kwargs = _NO_ARGUMENTS if run.flags & EMPTY else self._decode(run, target)
        except Unresolved as error:
            return outcome.failed(Ended.UNRESOLVED, error.__cause__ or error, self.limit)
        except BaseException as error:
            return outcome.undecoded(error, self.limit)
        run.started, run.writer = started, self
        try:
            try:
                if greenlet is None:
                    self._running = run.number
                else:
                    greenlet.begun = True
                    greenlet.number = run.number
                if self._rung:
                    self._answer_bell(sys._getframe())
                if self._stops:
                    self._heed_stop(run.number)
                value = contextvars.Context().run(_call, target, run, args, kwargs)
                if value is DEFERRED:
                    _wait_for(run.pen)
            finally:
                # From here on no bell may raise: one store, which nothing can come between.
                if greenlet is None:
                    self._running = 0
                else:
                    greenlet.number = 0
        except BaseException as error:
            ended = self._stopped_by(run, error)
        else:
            if value is None and run.pen is None:
                return outcome.RETURNED  # what most tasks come to
            ended = self._returned(run, target, value)
        if run.pen is not None:
            run.pen.close()
        return ended

    def _decode(self, run: Run, target: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        try:
            return run.arguments(target)
        except Exception as error:
            # Its classes may live in the main module, which only tasks of its own bring in here.
            if not self.targets.decode_with_main(error):
                raise
            return run.arguments(target)

    def _returned(self, run: Run, target: Any, value: Any) -> Outcome:
        """What a task that returned has come to, whatever is thrown while its value is encoded."""
        try:
            return self._ended_by(run, target, value)
        except BaseException as error:
            return self._stopped_by(run, error)

    def _ended_by(self, run: Run, target: Any, value: Any) -> Outcome:
        """What a task that returned has come to: its value, or what it said with its pen."""
        pen = run.pen
        if pen is not None and pen.ended:
            if pen.error is not None:
                return outcome.failed(Ended.ERROR, pen.error, self.limit, pen.last_message)
            value = pen.result
        if run.flags & messages.SEALED and value is not None:
            return outcome.sealed(run.name, value, self._sealing(run, target), self.limit)
        return outcome.completed(run.name, value, self.limit)

    def _sealing(self, run: Run, target: Any) -> Callable[[Any], bytes]:
        most = self._max_result
        return lambda value: seal.result(value, run.codec, run.flags, target, most)

    def _stopped_by(self, run: Run, error: BaseException) -> Outcome:
        """What an exception that left the task means."""
        if self._forked is not None:
            self._leave_fork(error)
        stop = self._stops.get(run.number)
        if isinstance(error, SoftTimeout) and stop is not None:
            return outcome.failed(Ended.TIMEOUT, error, self.limit)
        if isinstance(error, GreenletExit):
            return outcome.stopped(_ENDED_BY[stop.why] if stop is not None else Ended.CANCELLED)
        return outcome.failed(Ended.ERROR, error, self.limit)

    # --- what the manager is told

    def _finish(self, run: Run, started: float, result: Outcome) -> None:
        """Put the end of a run on its way: together with others if they follow quickly."""
        if self._forked is not None:
            self._leave_fork(None)
            return
        if self._stops:
            self._stops.pop(run.number, None)
        now = time.monotonic()
        self._busy += 1
        if result is outcome.RETURNED:
            self._voids.append(_pack_void(run.number, started, now))
        else:
            kind, flags, payload = result
            frame = messages.reply_frame(
                kind, flags, run.number, started, now, payload.body, payload.buffers
            )
            self._channel.put_frame(frame, payload.buffers)
        if run.flags & messages.ONCE or now - self._flushed > _FLUSH_AFTER:
            self._channel.flush()
            self._flushed = now
        self._busy -= 1

    def _put_voids(self) -> None:
        """All that returned nothing since the last flush, in one message."""
        if self._voids:
            voids, self._voids = self._voids, []
            body = b"".join(voids)
            self._channel.put(head(messages.VOIDS, 0, 0, len(body)) + body)

    def _send(self, kind: int, number: int, body: bytes = b"") -> None:
        self._channel.put(head(kind, 0, number, len(body)) + body)
        self._channel.soon()

    def is_here(self) -> bool:
        """Whether this is the thread of the hub, which alone may write to the pipe."""
        return bool(_get_ident() == self._thread)

    def later(self, callback: Callable[[], None]) -> None:
        """Call back when the hub runs next; from another thread, between two instructions of the
        task that keeps the hub from running."""
        if self.is_here():
            self._loop.run_callback(callback)
            return
        self._posted.append(callback)
        self._loop.run_callback_threadsafe(self._run_posted)
        signal.pthread_kill(self._thread, signal.SIGURG)

    def _run_posted(self) -> None:
        while self._posted:
            self._posted.popleft()()

    def send_progress(self, number: int, values: tuple[float, float, str]) -> None:
        """Send an update of a run's progress now, whether or not the hub runs."""
        self._busy += 1
        try:
            self._send(messages.PROGRESS, number, messages.pack(values))
            if getcurrent() is self._sync:
                self._channel.drain()
            else:
                self._channel.flush()
        finally:
            self._at_ease()

    # --- in a fork that a task made

    def _on_fork(self) -> None:
        """This process is a task's fork: it has the task's greenlets, and no part in our work."""
        if self._forked is not None:
            return
        self._forked = getcurrent()
        self._channel.stop()
        self._slate, fd = Slate.create()  # the shared page stays the worker's
        os.close(fd)

    def _leave_fork(self, error: BaseException | None) -> None:
        """End the fork when the greenlet that made it is at its end, as a script ends: with the
        code of its SystemExit, with 1 after another exception, else with 0."""
        if getcurrent() is not self._forked and not isinstance(error, SystemExit):
            return  # the end of another task is the worker's to report
        boot.leave_fork(error)

    # --- for a run that says, and is told, more than tasks do

    def attend(self, attendant: Callable[[Frame], None]) -> None:
        """From now on ``attendant`` gets the messages that a task knows nothing of, as they come.

        Their bodies are valid until it returns; it may be called in the middle of anything.
        """
        self._attendant = attendant

    def say(self, kind: int, flags: int, number: int, payload: Payload, now: bool = False) -> None:
        """Say something to the parent when the hub runs next, or ``now``, even if it never does."""
        self._busy += 1
        try:
            body, buffers = payload.body, payload.buffers
            self._channel.put_frame(head(kind, flags, number, len(body), buffers) + body, buffers)
            if now:
                self._channel.flush()
            else:
                self._channel.soon()
        finally:
            self._at_ease()


class TaskGreenlet(PlainGreenlet):  # type: ignore[misc] # greenlet's types do not reach us
    """The greenlet of an async task.

    A plain one: gevent's own adds links, names and a result, which nobody here asks for, and costs
    half as much again. Whatever waits, times out or spawns works in it all the same.
    """

    number = 0  # the run that the doorbell may interrupt, or 0
    begun = False
    skip = False  # it was cancelled before it began


def _call(target: Any, run: Run, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    running.set(run)
    flags = run.flags
    if not flags & (messages.CLASS | messages.CHUNK):
        return target(*args, **kwargs)
    if flags & messages.CLASS:
        return target.perform(run, args, kwargs)
    *carried, items = args
    return [target(*carried, item) for item in items] if carried else list(map(target, items))


def _wait_for(pen: Pen | None) -> None:
    """A task that goes on after its ``run``: wait until it says that it has ended."""
    if pen is not None and not pen.ended:
        ended = Event()
        pen._on_end = ended.set
        ended.wait()


def _called(run: Run) -> str:
    """The task in words; a run has no name before its code was imported."""
    return f"task {run.name}" if hasattr(run, "name") else "a task whose code cannot be imported"
