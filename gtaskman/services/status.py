"""How a service stands: its state, what it has been through, and waiting for what comes next."""

from __future__ import annotations

import copy
import enum
from typing import TYPE_CHECKING, Any

import msgspec

from gtaskman.errors import GTaskmanError, WaitTimeout
from gtaskman.home import HomeLatch
from gtaskman.report import Failure, Report

if TYPE_CHECKING:
    from gtaskman.services.record import Record


class ServiceState(enum.Enum):
    """Where a service is; with several instances, where the best of them is."""

    STARTING = "starting"  # a process is on its way, or not ready yet: RUNNING, or its end
    RUNNING = "running"  # ready: left when it is asked to end, or ends
    STOPPING = "stopping"  # asked to end: left when it has
    STOPPED = "stopped"  # at rest: start and restart move it on
    BACKOFF = "backoff"  # waits to be started again: STARTING when it is time
    FAILED = "failed"  # given up: start and restart move it on


class Exit(msgspec.Struct, frozen=True):
    """How a process of a service ended.

    ``instance`` is the number of its place, ``at`` seconds since the epoch, ``ran`` the seconds
    for which it was ready. ``asked`` says whether it was told to; ``failure`` is None if it ended
    well. ``message`` says it in words.
    """

    instance: int
    pid: int | None
    at: float
    ran: float
    asked: bool
    message: str
    failure: Failure | None = None


class PlaceStatus(msgspec.Struct, frozen=True):
    """How one instance of a service stands; ``uptime`` is None unless it is ready.

    ``draining`` are the pids of those that it has replaced, and that have yet to end.
    """

    instance: int
    state: ServiceState
    pid: int | None
    uptime: float | None
    restart_in: float | None
    draining: tuple[int, ...]
    last_exit: Exit | None


class ServiceEvent(msgspec.Struct, frozen=True):
    """What the events of services carry: which ``service``, which of its instances, which process.

    ``exit`` is the end that the event is about, ``delay`` the wait before a restart (seconds).
    """

    event: str
    service: str
    instance: int
    pid: int | None
    exit: Exit | None = None
    delay: float | None = None


class ServiceMessage(msgspec.Struct, frozen=True):
    """What a service has told with ``emit``: a ``name``, and whatever it sent with it."""

    service: str
    instance: int
    name: str
    payload: Any


class Milestone(HomeLatch):
    """Something that a service comes to: it can be waited for, from anywhere, like a handle."""

    _error: GTaskmanError | None = None

    def __init__(self, record: Record, what: str) -> None:
        super().__init__(record.home)
        self._record = record
        self._what = what

    def get(self, timeout: float | None = None) -> ServiceStatus:
        """The service's status once it has happened; waits for it at most ``timeout`` seconds.

        Raises :class:`ServiceFailed` if it will not happen (the text says why), and
        ``TimeoutError`` if the wait is over before it has.
        """
        if not self.wait(timeout):
            status = self._record.status
            raise WaitTimeout(
                f"service {status.id!r} has not {self._what} within {timeout} s: it is"
                f" {status.state.value}"
            )
        if self._error is not None:
            # A copy: each one who is told adds where he was to its traceback.
            raise copy.copy(self._error)
        return self._record.status

    def fail(self, error: GTaskmanError) -> None:
        """It will not happen: whoever waits is told why."""
        self._error = error
        self.open()

    def __repr__(self) -> str:
        return f"<Milestone service {self._record.task.id!r} {self._what}>"


class ServiceStatus:
    """How a service stands, right now whenever it is asked.

    ``started`` and ``stopped`` can be waited for: ``status.started.get(timeout=5)``. The first
    happens when all its instances are ready, the second when the last of its processes has ended,
    whether or not it comes back. Each start renews ``stopped``, each end renews ``started``.
    """

    def __init__(self, record: Record) -> None:
        self._record = record
        self.id: str = record.task.id
        self.name: str = record.task.definition.name
        self.started_times = 0
        self.started = Milestone(record, "started")
        self.stopped = Milestone(record, "stopped")

    @property
    def state(self) -> ServiceState:
        """Where it is."""
        states = {each.state for each in self._record.places}
        return next(state for state in _BEST_FIRST if state in states)

    @property
    def instances(self) -> tuple[PlaceStatus, ...]:
        """How each of its instances stands."""
        return tuple(place.snapshot() for place in self._record.places)

    @property
    def pids(self) -> list[int]:
        """The pids of all its processes, those included that start or drain."""
        found = [each.pid for place in self._record.places for each in place.processes()]
        return [pid for pid in found if pid is not None]

    @property
    def pid(self) -> int | None:
        """The pid of its first process, or None if it has none."""
        return next(iter(self.pids), None)

    @property
    def uptime(self) -> float | None:
        """Seconds since the first of those that are ready became so; None if none is."""
        ups = [each.uptime for each in self.instances if each.uptime is not None]
        return max(ups, default=None)

    @property
    def history(self) -> tuple[Exit, ...]:
        """How its last processes ended, the newest last."""
        return tuple(self._record.history)

    @property
    def last_exit(self) -> Exit | None:
        """How the last of them ended, or None if none has."""
        return self._record.history[-1] if self._record.history else None

    @property
    def sockets(self) -> dict[str, Any]:
        """Where it listens, by the names of its sockets; empty before its start."""
        return self._record.listeners.addresses()

    @property
    def report(self) -> Report:
        """Its report as a task: what it has written with its pen, and its last failure."""
        return self._record.report()

    def __repr__(self) -> str:
        return (
            f"<ServiceStatus {self.id} {self.state.value} pids={self.pids}"
            f" started={self.started_times}>"
        )


_BEST_FIRST = (
    ServiceState.RUNNING,
    ServiceState.STARTING,
    ServiceState.STOPPING,
    ServiceState.BACKOFF,
    ServiceState.FAILED,
    ServiceState.STOPPED,
)
