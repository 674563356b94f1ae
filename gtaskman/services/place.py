"""One place of a service: keeps a process in it, as the options say.

::

    STOPPED --start--> STARTING --ready--> RUNNING --asked--> STOPPING --gone--> STOPPED
       ^                  ^  '--its end--.    |                                (or STARTING again)
       |                  |              v    v its end
       '-- at rest        '--in time-- BACKOFF / decide() ------------------> FAILED

A reload starts an heir beside the process that is there. When the heir is ready it takes the
place, and the old one is asked to end: it drains, and is waited for, but belongs to no place.
"""

from __future__ import annotations

import collections
import logging
import random
import time
from typing import TYPE_CHECKING, Any

from gtaskman.errors import GTaskmanError, ServiceFailed
from gtaskman.home import HomeLatch
from gtaskman.pool.alarm import Alarm
from gtaskman.report import Failure, FailureKind
from gtaskman.services.instance import Instance, Verdict
from gtaskman.services.policy import Decision, Ending, Next, decide
from gtaskman.services.status import Exit, PlaceStatus, ServiceState
from gtaskman.services.watch import Watch

if TYPE_CHECKING:
    from gtaskman.services.record import Record

log = logging.getLogger(__name__)


class Handover(HomeLatch):
    """A reload of one place, on its way: it is over when the new process has taken over."""

    error: GTaskmanError | None = None

    def fail(self, error: GTaskmanError) -> None:
        """The new one will not come: the old one goes on."""
        self.error = error
        self.open()


class Place:
    """Where one process of a service is kept running; on the hub of its manager."""

    def __init__(self, record: Record, number: int) -> None:
        self.number = number
        self.state = ServiceState.STOPPED
        self.exit: Exit | None = None  # how the last process here ended
        self.why = ""  # it is at rest, if nobody asked for that
        self._record = record
        self._wanted = False  # it is to run, whatever happens
        self._current: Instance | None = None
        self._heir: Instance | None = None
        self._handover: Handover | None = None
        self._draining: list[Instance] = []
        self._watch: Watch | None = None
        self._streak = 0  # ends by itself in a row
        self._restarts: collections.deque[float] = collections.deque()
        self._alarm: Alarm | None = None
        self._restart_at = 0.0

    # --- what can be seen of it

    def processes(self) -> list[Instance]:
        """All that belong to it: the one that is there, its heir, and those that drain."""
        there = [each for each in (self._current, self._heir) if each is not None]
        return there + self._draining

    @property
    def at_rest(self) -> bool:
        """Whether nothing will happen here unless somebody asks for it."""
        return self.state in (ServiceState.STOPPED, ServiceState.FAILED)

    @property
    def open(self) -> Instance | None:
        """The process that takes calls, if there is one."""
        current = self._current
        return current if current is not None and current.takes_calls else None

    def snapshot(self) -> PlaceStatus:
        """How it stands."""
        current = self._current
        ready = current is not None and self.state is ServiceState.RUNNING
        waits = self.state is ServiceState.BACKOFF
        return PlaceStatus(
            self.number,
            self.state,
            current.pid if current is not None else None,
            current.ran if ready and current is not None else None,
            max(0.0, self._restart_at - time.monotonic()) if waits else None,
            tuple(each.pid for each in self._draining if each.pid is not None),
            self.exit,
        )

    # --- what is asked of it

    def start(self) -> None:
        """Have a process here, if there is none."""
        self._wanted = True
        if self.at_rest:
            self._forget_failures()
            self._launch()

    def stop(self) -> None:
        """Have none here."""
        self._wanted = False
        self._drop_heir("the service was stopped")
        if self._current is not None:
            self._become(ServiceState.STOPPING)
            self._current.ask()
        elif not self.at_rest:
            self._rest(ServiceState.STOPPED)

    def restart(self) -> None:
        """Have another process here: when the one that is there has ended, or now."""
        self._wanted = True
        self._forget_failures()
        self._drop_heir("the service was restarted")
        if self._current is not None:
            self._become(ServiceState.STOPPING)
            self._current.ask()
        else:
            self._launch()

    def reload(self) -> Handover:
        """Have another process here, which is ready before the one that is there is to end."""
        if self._handover is not None:
            return self._handover
        self._handover = handover = Handover(self._record.home)
        self._wanted = True
        if self.state is ServiceState.RUNNING:
            try:
                self._heir = self._record.launch(self)
            except GTaskmanError as error:
                self._fail_handover(str(error))
        elif self.state is not ServiceState.STARTING:
            self.restart()
        return handover

    def unwell(self, why: str) -> None:
        """The process that is there must be restarted."""
        current = self._current
        if current is not None and self.state is ServiceState.RUNNING:
            log.warning("service %s is restarted: %s", self._record.describe(self), why)
            self._become(ServiceState.STOPPING)
            current.ask(unwell=why)

    def outgrown(self, why: str) -> None:
        """The process that is there is to be replaced, unless that is being done."""
        if self._handover is None and self.state is ServiceState.RUNNING:
            log.info("service %s is replaced: %s", self._record.describe(self), why)
            self.reload()

    # --- starting

    def _launch(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self.why = ""
        self._become(ServiceState.STARTING)
        broken = self._record.broken()
        if broken is not None:
            self.give_up(broken, "every other start would fail in the same way")
            return
        try:
            self._current = self._record.launch(self)
        except GTaskmanError as error:
            self._not_launched(error)

    def on_up(self, instance: Instance) -> None:
        """Its run is entered."""
        self._record.on_up(self, instance)

    def on_ready(self, instance: Instance) -> None:
        """It is ready: it is the one from now on."""
        if instance is self._heir:
            self._succeed(instance)
        self._become(ServiceState.RUNNING)
        self._unwatch()
        self._watch = self._record.watch(self, instance)
        self._record.on_ready(self, instance)
        handover, self._handover = self._handover, None
        if handover is not None:
            handover.open()

    def _succeed(self, heir: Instance) -> None:
        old, self._current, self._heir = self._current, heir, None
        if old is not None:
            self._draining.append(old)
            old.ask()

    def on_progress(self, progress: tuple[float, float, str]) -> None:
        """Its task has written with its pen."""
        self._record.on_progress(progress)

    def on_message(self, name: str, payload: Any) -> None:
        """It has emitted a message."""
        self._record.on_message(self, name, payload)

    # --- ends

    def on_ended(self, instance: Instance) -> None:
        """A process of it is gone: the one that was there, the heir, or one that drained."""
        verdict = instance.verdict()
        self.exit = Exit(
            self.number,
            instance.pid,
            time.time(),
            instance.ran,
            verdict.ending is Ending.ASKED,
            verdict.message,
            verdict.failure,
        )
        instance.line.break_off(f"its process has ended before it answered: {verdict.message}")
        if instance is self._current:
            self._current = None
            self._unwatch()
            self._record.on_gone(self, self.exit)
            self._follow(instance, verdict)
            return
        if instance is self._heir:
            self._heir = None
            self._fail_handover(f"the new process has failed: {verdict.message}")
        else:
            self._draining.remove(instance)
        self._record.on_gone(self, self.exit)

    def _follow(self, instance: Instance, verdict: Verdict) -> None:
        """The process that was there is gone."""
        if not self._wanted:
            self._rest(ServiceState.STOPPED)
        elif self._heir is not None:
            # One is on its way already, and has the place from now on.
            self._current, self._heir = self._heir, None
            self._become(ServiceState.STARTING)
        elif verdict.ending is Ending.ASKED:
            self._launch()
        else:
            self._decide(verdict, instance.ran)

    def _not_launched(self, error: GTaskmanError) -> None:
        """No process could be had at all: a socket of its is not free, for one."""
        message = str(error)
        failure = Failure(FailureKind.CRASH, message)
        self.exit = Exit(self.number, None, time.time(), 0.0, False, message, failure)
        self._record.on_gone(self, self.exit)
        self._decide(Verdict(Ending.FAILED, message, failure), 0.0)

    def _decide(self, verdict: Verdict, ran: float) -> None:
        now = time.monotonic()
        decision = decide(
            self._record.options,
            verdict.ending,
            streak=self._streak,
            ran=ran,
            restarts=self._restarts,
            now=now,
            chance=random.random(),
        )
        if decision.next is Next.REST:
            self.why = verdict.message
            self._rest(ServiceState.STOPPED)
        elif decision.next is Next.GIVE_UP:
            self.give_up(verdict.message, decision.reason)
        else:
            self._restart_later(decision, now)

    def _restart_later(self, decision: Decision, now: float) -> None:
        self._streak = decision.streak
        self._restarts.append(now)
        while now - self._restarts[0] > self._record.options.window:
            self._restarts.popleft()
        self._restart_at = now + decision.delay
        self._become(ServiceState.BACKOFF)
        if self._alarm is None:
            self._alarm = Alarm(self._record.loop)
        self._alarm.set(decision.delay, self._launch)
        self._record.on_restarting(self, decision.delay)
        self._fail_handover("the new process has failed")

    def give_up(self, message: str, reason: str) -> None:
        """It has failed, and is not started again."""
        log.error(
            "service %s has failed: %s; it is given up: %s",
            self._record.describe(self),
            message,
            reason,
        )
        self.why = f"{message}; it is given up: {reason}"
        self._rest(ServiceState.FAILED)
        self._record.on_failed(self)

    def _rest(self, state: ServiceState) -> None:
        self._wanted = False
        if self._alarm is not None:
            self._alarm.cancel()
        self._become(state)
        self._fail_handover(f"the service is {state.value}")

    # --- small things

    def _become(self, state: ServiceState) -> None:
        self.state = state
        self._record.on_state(self)

    def _forget_failures(self) -> None:
        self._streak = 0
        self._restarts.clear()

    def _drop_heir(self, why: str) -> None:
        if self._heir is not None:
            heir, self._heir = self._heir, None
            self._draining.append(heir)
            heir.ask()
            self._fail_handover(why)

    def _fail_handover(self, why: str) -> None:
        handover, self._handover = self._handover, None
        if handover is not None:
            service = self._record.task.id
            message = f"service {service!r} could not be reloaded: {why}"
            if self._current is not None:
                message += "; the old process goes on"
            log.warning("%s", message)
            handover.fail(ServiceFailed(message, service, self.exit))

    def _unwatch(self) -> None:
        if self._watch is not None:
            self._watch.stop()
            self._watch = None

    def forget(self) -> None:
        """In a fork of the application: do nothing any more."""
        self._unwatch()
        if self._alarm is not None:
            self._alarm.cancel()
