"""All processes of a manager's services: how they come to life, and how their end is noticed.

A process has ended when its pipe has, or its pidfd says so; how it ended may follow a moment
later, and is waited for, but not for long.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import posix
import signal
from collections.abc import Callable, Sequence
from typing import Any

from gtaskman.config import Configuration
from gtaskman.errors import FrameError, GTaskmanError
from gtaskman.latch import Latch
from gtaskman.pool.alarm import Alarm
from gtaskman.pool.launch import close_all
from gtaskman.pool.starters import Starter, make_starter
from gtaskman.reference import MAIN, MAIN_IN_WORKER
from gtaskman.services.instance import Instance, InstanceListener, Pong
from gtaskman.services.options import ServiceOptions

log = logging.getLogger(__name__)

_CLOSING = 0.1  # seconds after which a process whose pipe has ended must have ended itself
_LAST_WORDS = 1.0  # seconds that its exit status may take to be known
_TEMPLATE_GONE = 2.0  # seconds that the template may take to go at the end


class Crew:
    """The processes, by their numbers; on one hub."""

    def __init__(self, config: Configuration, loop: Any) -> None:
        self._loop = loop
        self._limit = config.max_frame
        self._starter: Starter = make_starter(loop, config, self)
        self._numbers = itertools.count(1)
        self._instances: dict[int, Instance] = {}
        self._by_pid: dict[int, Instance] = {}
        self._patience: dict[int, Alarm] = {}  # how long the status of a dead one is waited for
        self._broken: dict[str, str] = {}  # modules that no process can import, and why

    def learn(self, module: str) -> None:
        """A service of this module was added: its processes had better have it from the start."""
        self._starter.learn(module)

    def renew(self) -> None:
        """Processes that start from now on are to have the code as it is on disk."""
        self._broken.clear()
        self._starter.renew()

    def ping(self) -> dict[int, Pong]:
        """Ask each process what it is doing; the answers come, by pid."""
        asked = {}
        for instance in self._instances.values():
            if instance.pid is not None:
                asked[instance.pid] = instance.ping()
        return asked

    def broken(self, module: str) -> str | None:
        """Why no process can import this module, or None."""
        return self._broken.get(module)

    def launch(
        self,
        listener: InstanceListener,
        options: ServiceOptions,
        find: Callable[[str], Callable[..., Any]],
        descriptors: Sequence[int],
    ) -> Instance:
        """Begin to start one more; ``descriptors`` are its own now. Raises OSError."""
        try:
            instance = Instance(
                next(self._numbers), self._loop, self._limit, listener, options, find, self._on_gone
            )
        except OSError:
            close_all(descriptors)
            raise
        instance.on_forbidden = self._starter.signal
        self._instances[instance.number] = instance
        try:
            pipe, page = instance.take_descriptors()
            instance.greet(self._starter.start(instance.number, pipe, page, descriptors))
        except (GTaskmanError, OSError) as error:
            # Told later, as all else is: whoever launches it does not have it yet.
            self._loop.run_callback(self.on_refused, instance.number, str(error))
        return instance

    # --- what the starter tells

    def on_up(self, number: int, pid: int, pidfd: int) -> None:
        """A process lives."""
        instance = self._instances.get(number)
        if instance is None:
            # Nobody waits for it any more; it may even have ended already.
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            posix.close(pidfd)
            return
        self._by_pid[pid] = instance
        instance.is_up(pid, pidfd, self._on_ended)

    def on_refused(self, number: int, why: str) -> None:
        """A process could not be started."""
        instance = self._instances.get(number)
        if instance is not None:
            instance.refused = why
            self._bury(instance)

    def on_exit(self, pid: int, status: int | None, maxrss: int) -> None:
        """A process has ended, and this is how."""
        instance = self._by_pid.get(pid)
        if instance is not None:
            instance.exit = (status, maxrss)
            instance.channel.read_all()
            self._bury(instance)

    def on_condemned(self, pids: list[int], why: str) -> None:
        """These processes die together."""
        for pid in pids:
            instance = self._by_pid.get(pid)
            if instance is not None:
                instance.end(why)

    def on_exits(self, pids: list[int], why: str) -> None:
        """These processes have died together."""
        self.on_condemned(pids, why)
        for pid in pids:
            self.on_exit(pid, None, 0)

    def on_broken(self, module: str, why: str) -> None:
        """No process can import this module: a service of it would never come up."""
        self._broken[MAIN if module == MAIN_IN_WORKER else module] = why

    # --- death

    def _on_gone(self, instance: Instance, error: FrameError | None) -> None:
        """Its pipe has ended."""
        if error is not None:
            log.error("service process %s: %s; it is killed", instance.pid, error)
            instance.end(f"its pipe carried nonsense: {error}")
        self._await_exit(instance)

    def _on_ended(self, instance: Instance) -> None:
        """It has ended; its status may still be on the way."""
        instance.channel.read_all()
        self._await_exit(instance)

    def _await_exit(self, instance: Instance) -> None:
        if instance.number in self._instances and instance.number not in self._patience:
            alarm = self._patience[instance.number] = Alarm(self._loop)
            alarm.set(_CLOSING, self._insist, instance)

    def _insist(self, instance: Instance) -> None:
        if not instance.ended:
            instance.end("it closed its pipe and lived on")
        self._patience[instance.number].set(_LAST_WORDS, self._bury, instance)

    def _bury(self, instance: Instance) -> None:
        if self._instances.pop(instance.number, None) is None:
            return
        if instance.pid is not None:
            self._by_pid.pop(instance.pid, None)
        alarm = self._patience.pop(instance.number, None)
        if alarm is not None:
            alarm.cancel()
        instance.close()
        instance.listener.on_ended(instance)

    # --- the end

    def end_all(self, reason: str) -> None:
        """End all processes at once; those that are yet to live will not."""
        for instance in list(self._instances.values()):
            instance.end(reason)
            if instance.pid is None:
                self.on_refused(instance.number, reason)

    def close(self) -> None:
        """End the template; all processes have ended before. Not from the hub."""
        ended: list[Latch] = self._starter.stop()
        for latch in ended:
            latch.wait(_TEMPLATE_GONE)

    def forget(self) -> None:
        """In a fork of the application: close our copies; the original goes on undisturbed."""
        for alarm in self._patience.values():
            alarm.cancel()
        for instance in self._instances.values():
            instance.close()
        self._starter.forget()
