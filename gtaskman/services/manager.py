"""``ServiceManager``: starts services, keeps them alive, and ends them.

::

    add() -> record -> start() -> a process in each place
    services["web"].call() -> line -> pipe -> the service

All of it happens on one hub: that of the thread that starts the manager, or one of its own
(``Configuration(background=True)``). Other threads hand their calls over to it.
"""

from __future__ import annotations

import atexit
import copy
import enum
import functools
import logging
import os
import time
import weakref
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, TypeVar

import gevent

from gtaskman.config import Configuration
from gtaskman.errors import (
    DuplicateServiceError,
    ManagerStopped,
    ServiceDown,
    TaskDefinitionError,
    UnknownServiceError,
)
from gtaskman.events import Callback, Events
from gtaskman.home import Home
from gtaskman.latch import Latch
from gtaskman.process import refuse_at_import
from gtaskman.reference import know_main
from gtaskman.services.crew import Crew
from gtaskman.services.options import ServiceOptions
from gtaskman.services.proxy import Service
from gtaskman.services.record import Record
from gtaskman.services.status import ServiceStatus
from gtaskman.services.task import ServiceTask

log = logging.getLogger(__name__)
T = TypeVar("T")

_KILLED = 5.0  # seconds that killed processes may take to be seen dead
_HOOKS = 5.0  # seconds that services' hooks may take at the end
_FOR_EVER = 1e9  # seconds
_INSIDE = "gtaskman.services.inside"  # what every process of ours needs: the template has it


class State(enum.Enum):
    NEW = enum.auto()  # start() moves it on
    RUNNING = enum.auto()  # keeps its services; stop() moves it on
    STOPPING = enum.auto()  # ends them
    STOPPED = enum.auto()  # final: every process is gone


class ServiceManager:
    """Keeps services alive, each in processes of its own.

    ``config`` says how processes start (``start_method``, ``preload``, ``start_timeout`` of the
    template, ``nice``), how large a message may be (``max_frame``), and whether the manager has a
    thread of its own (``background``); the rest of a Configuration is for pools of tasks. As a
    context manager it starts on the way in and stops on the way out.
    """

    def __init__(self, config: Configuration | None = None) -> None:
        self.config = config if config is not None else Configuration()
        self.events = Events()
        self._state = State.NEW
        self.home = Home("this service manager, and every service of its,")
        self._records: dict[str, Record] = {}
        self._crew: Crew | None = None
        self._news = Latch()  # opens when something has come to rest, and is renewed then
        self._hooks: set[gevent.Greenlet] = set()  # of services, that run
        self._stop_at = float("inf")

    # --- life

    def start(self) -> ServiceManager:
        """Start all services; returns at once. A second start does nothing.

        Raises :class:`StartMethodError` where processes cannot be started at all, and
        :class:`ManagerStopped` after a stop.
        """
        if self._state is State.RUNNING:
            self.home.check()
            return self
        refuse_at_import()
        self._check_usable()
        if self.config.background:
            self.home.settle_apart(self._set_up)
        else:
            self.home.settle()
            self._set_up()
        return self

    def _set_up(self) -> None:
        self._crew = Crew(self.config, self.home.loop)
        self._crew.learn(_INSIDE)
        know_main()
        self._state = State.RUNNING
        _running.add(self)
        for record in list(self._records.values()):
            record.employ(self._crew)
        for record in list(self._records.values()):
            self._act(record, record.start)

    def stop(self, timeout: float | None = None) -> None:
        """End all services, each as its options say; after ``timeout`` seconds kill what is left.

        Returns when every process is gone, and every :meth:`ServiceTask.stopped` has returned or
        had five seconds to. ``None`` stands for as long as the options allow. A manager that was
        never started, or stopped before, is no error.
        """
        if self._state is State.NEW:
            self._state = State.STOPPED
            for record in list(self._records.values()):
                record.close()
            self.home.left.open()
        if self.home.forked or self.home.hub is None:
            return
        if not self.home.left.done():
            seconds = float("inf") if timeout is None else timeout
            self._hooks.discard(gevent.getcurrent())  # it would wait for itself
            self.home.post(self._begin_stop, seconds)
        self.home.await_left()

    def _begin_stop(self, seconds: float) -> None:
        """Stop in a greenlet that nobody else can kill; a second call may shorten its time."""
        self._stop_at = min(self._stop_at, time.monotonic() + seconds)
        if self._state is State.RUNNING:
            self._state = State.STOPPING
            gevent.spawn(self._stop_in_order)
        else:
            self.on_rest()

    def _stop_in_order(self) -> None:
        crew = self._crew
        assert crew is not None
        for record in self._records.values():
            record.stop()
        if not self._await_gone(lambda: self._stop_at):
            crew.end_all("the manager was stopped")
            end = time.monotonic() + _KILLED
            self._await_gone(lambda: end)
        crew.close()
        gevent.joinall(list(self._hooks), timeout=_HOOKS)
        for record in self._records.values():
            record.close()
        self._state = State.STOPPED
        _running.discard(self)
        self.on_rest()
        self.home.leave()

    def _await_gone(self, until: Callable[[], float]) -> bool:
        return self._await(lambda: all(each.gone for each in self._records.values()), until)

    def _await(self, predicate: Callable[[], bool], until: Callable[[], float]) -> bool:
        """Wait until something has come true, or it is too late; whether it has."""
        while True:
            news = self._news
            if predicate():
                return True
            left = until() - time.monotonic()
            if left <= 0:
                return False
            news.wait(min(left, _FOR_EVER))

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the manager has been stopped, by whomever; gives whether it has."""
        return self.home.left.wait(timeout)

    def __enter__(self) -> ServiceManager:
        return self.start()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _check_usable(self) -> None:
        self.home.check()
        if self._state in (State.STOPPING, State.STOPPED):
            raise ManagerStopped("this service manager was stopped: make a new one")

    def forget(self) -> None:
        """In a fork of the process: be a mere copy, and disturb the original in nothing."""
        self.home.forget()
        if self._crew is not None:
            self._crew.forget()
        for record in self._records.values():
            record.forget()

    # --- services

    def add(self, task: ServiceTask, options: ServiceOptions | None = None) -> ServiceStatus:
        """Keep one more service; it starts now if the manager has been started, else with it.

        Raises :class:`DuplicateServiceError`, :class:`TaskTravelError` (its code cannot reach a
        process of its own), :class:`PayloadError` (its options cannot), and
        :class:`ConfigurationError` here, where the mistake was made.
        """
        self._check_usable()
        if not isinstance(task, ServiceTask):
            raise TaskDefinitionError(
                f"a ServiceManager takes a service, an object of a class derived from"
                f" gtaskman.ServiceTask, not {task!r:.80}"
            )
        chosen = options if options is not None else ServiceOptions()
        record = Record(task, chosen, self, self.config.max_frame)
        self.home.ask(lambda: self._admit(record))
        return record.status

    def _admit(self, record: Record) -> None:
        self._check_usable()
        service = record.task.id
        if self._records.setdefault(service, record) is not record:
            raise DuplicateServiceError(
                f"a service with the id {service!r} was added already: remove it, or give this one"
                " another id",
                service,
            )
        if self._state is State.RUNNING:
            assert self._crew is not None
            record.employ(self._crew)
            self._act(record, record.start)

    def remove(self, service: str) -> None:
        """Stop a service, wait until its last process is gone, and forget it.

        From now on nobody can start it.
        """
        record = self._record(service)
        self.home.ask(lambda: self._dismiss(record))
        over = State.NEW, State.STOPPED
        self._await(lambda: record.gone or self._state in over, lambda: float("inf"))
        self.home.ask(lambda: self._drop(record))

    def _dismiss(self, record: Record) -> None:
        record.removed = True
        if self._state is State.RUNNING:
            record.stop()

    def _drop(self, record: Record) -> None:
        if self._records.get(record.task.id) is record:
            del self._records[record.task.id]
        record.close()

    def start_service(self, service: str) -> ServiceStatus:
        """Start a service that is at rest; returns at once. One that runs goes on."""
        record = self._record(service)
        self.home.ask(lambda: self._act(record, record.start))
        return record.status

    def stop_service(self, service: str) -> ServiceStatus:
        """Ask a service to end, and keep it: returns at once, ``status.stopped`` can be waited
        for."""
        record = self._record(service)
        self.home.ask(lambda: self._act(record, record.stop, wakes=False))
        return record.status

    def restart(self, service: str) -> ServiceStatus:
        """End a service and start it again, all its instances at once; returns at once.

        One that had failed starts with a clean slate. ``status.started`` can be waited for.
        """
        record = self._record(service)
        self.home.ask(lambda: self._act(record, record.restart))
        return record.status

    def reload(self, service: str) -> ServiceStatus:
        """Replace the processes of a service, one after the other: the new one is ready before
        the old one is asked to end.

        Returns when all new ones are ready; the old ones may still drain. Raises
        :class:`ServiceFailed` if a new one is not ready within ``start_timeout``, or fails: the
        old one goes on then. See :meth:`renew` for new code.
        """
        record = self._record(service)
        for place in record.places:
            handover = self.home.ask(functools.partial(self._act, record, place.reload))
            handover.wait()
            if handover.error is not None:
                raise copy.copy(handover.error)
        return record.status

    def _act(self, record: Record, act: Callable[[], T], wakes: bool = True) -> T:
        """Do something with a service, on our hub: the manager may have been stopped while another
        thread's call was on its way. ``wakes``: it may have a process then."""
        service = record.task.id
        self._check_usable()
        if self._state is State.NEW:
            raise ServiceDown(
                f"service {service!r} starts with its manager, which has not been started", service
            )
        if record.removed:
            raise UnknownServiceError(f"the service {service!r} has been removed", service)
        if wakes:
            self.home.keep_alive()
        return act()

    def renew(self) -> None:
        """Let processes that start from now on have the code as it is on disk now.

        Those that run go on with what they have: :meth:`reload` replaces them. The application
        keeps what it has imported, and with ``start_method="fork"`` so does everybody.
        """
        self._check_usable()
        if self._crew is not None:
            self.home.ask(self._crew.renew)

    def stacks(self, timeout: float = 1.0) -> dict[int, str]:
        """What each process is doing right now: its stacks as text, by pid.

        Those that do not answer within ``timeout`` seconds are left out.
        """
        self._check_usable()
        crew = self._crew
        asked = self.home.ask(crew.ping) if crew is not None else {}
        end = time.monotonic() + timeout
        for pong in asked.values():
            pong.wait(max(0.0, end - time.monotonic()))
        return {pid: pong.text for pid, pong in asked.items() if pong.done()}

    def status(self, service: str) -> ServiceStatus:
        """How a service stands. Raises :class:`UnknownServiceError`."""
        return self._record(service).status

    def statuses(self) -> list[ServiceStatus]:
        """How all services stand, in the order in which they were added."""
        return [record.status for record in list(self._records.values())]

    def task(self, service: str) -> ServiceTask:
        """The task of a service, as it was added."""
        return self._record(service).task

    def tasks(self) -> list[ServiceTask]:
        """The tasks of all services, in the order in which they were added."""
        return [record.task for record in list(self._records.values())]

    def options(self, service: str) -> ServiceOptions:
        """The options of a service."""
        return self._record(service).options

    def __getitem__(self, service: str) -> Service:
        """The service, to call its methods: ``services["web"].set_greeting("hi").get()``."""
        return Service(self._record(service))

    def __contains__(self, service: object) -> bool:
        return service in self._records

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._records))

    def __len__(self) -> int:
        return len(self._records)

    def _record(self, service: str) -> Record:
        self.home.check()
        try:
            return self._records[service]
        except (KeyError, TypeError):
            known = ", ".join(map(repr, self)) or "none"
            raise UnknownServiceError(
                f"no service has the id {service!r} (there are: {known})", str(service)
            ) from None

    # --- events

    def on(self, event: str, callback: Callback) -> None:
        """Call ``callback`` at every ``event``.

        ``service-started`` (a process has entered the service's ``run``), ``service-ready``,
        ``service-stopped`` (a process has ended), ``service-restarting`` and ``service-failed``
        come with a :class:`ServiceEvent`, ``service-message`` with a :class:`ServiceMessage`; each
        is also followed by ``-<id>``. Callbacks run one after the other in a greenlet; one that
        raises is logged and disturbs nothing.
        """
        self.events.on(event, callback)

    def once(self, event: str, callback: Callback) -> None:
        """:meth:`on`, for the next time only."""
        self.events.once(event, callback)

    def off(self, event: str, callback: Callback | None = None) -> None:
        """Take an :meth:`on` back; without a callback, all of that event."""
        self.events.off(event, callback)

    # --- what services ask and tell

    def emit(self, event: str, payload: Any, service: str) -> None:
        """Tell those who listen to ``event``, and to the same followed by ``-<id>``."""
        if self.events.callbacks:
            self.events.emit(event, payload)
            self.events.emit(f"{event}-{service}", payload)

    def on_rest(self) -> None:
        """Something has come to rest, or may have."""
        news, self._news = self._news, Latch()
        news.open()
        if self._state is State.RUNNING and all(each.gone for each in self._records.values()):
            self.home.let_go()

    def run_hook(self, hook: Callable[[], None]) -> None:
        """Run a service's hook, in a greenlet: what it does is not cut off by a stop."""
        greenlet = gevent.spawn(hook)
        self._hooks.add(greenlet)
        greenlet.link(self._hooks.discard)

    def __repr__(self) -> str:
        return f"<ServiceManager {self._state.name.lower()} services={len(self._records)}>"


_running: weakref.WeakSet[ServiceManager] = weakref.WeakSet()


def _after_fork() -> None:
    """A fork of the process has copies of our descriptors: were they to stay open, neither the
    template nor services would see the original go, and a port would stay taken."""
    for manager in list(_running):
        manager.forget()
    _running.clear()


def _at_exit() -> None:
    for manager in list(_running):
        # (nobody can stop one whose thread has ended: its processes see us go)
        if not manager.home.deserted:
            manager.stop()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
