"""One service, as its manager keeps it: its task, its options, its places, what it went through."""

from __future__ import annotations

import collections
import logging
import time
from collections.abc import Callable
from typing import Any, Protocol

from gtaskman.errors import (
    ConfigurationError,
    GTaskmanError,
    ServiceDown,
    ServiceFailed,
    ServiceMethodError,
)
from gtaskman.home import Home
from gtaskman.reference import refer
from gtaskman.report import DEFAULT_TARGET, Report, TaskStatus
from gtaskman.services.calls import Call, encode
from gtaskman.services.crew import Crew
from gtaskman.services.instance import Instance, Order
from gtaskman.services.options import ServiceOptions
from gtaskman.services.place import Place
from gtaskman.services.sockets import Listeners
from gtaskman.services.status import (
    Exit,
    Milestone,
    ServiceEvent,
    ServiceMessage,
    ServiceState,
    ServiceStatus,
)
from gtaskman.services.task import ServiceTask, remotes
from gtaskman.services.watch import Watch
from gtaskman.wire.messages import payload_limit
from gtaskman.wire.payload import Payload, encode_arguments

log = logging.getLogger(__name__)

_KEPT = 20  # ends that are remembered
_ATTEMPTS = 0xFFFF  # the highest number that an order can carry

_AS_TASK = {
    ServiceState.STARTING: TaskStatus.WAITING,
    ServiceState.BACKOFF: TaskStatus.WAITING,
    ServiceState.RUNNING: TaskStatus.PROCESSING,
    ServiceState.STOPPING: TaskStatus.PROCESSING,
    ServiceState.STOPPED: TaskStatus.COMPLETED,
    ServiceState.FAILED: TaskStatus.FAILED,
}


class RecordListener(Protocol):
    """The manager, as its services see it."""

    home: Home  # where services live

    def emit(self, event: str, payload: Any, service: str) -> None:
        """Tell those who listen to ``event``, and to the same followed by ``-<id>``."""

    def on_rest(self) -> None:
        """A service, or a process of one, has come to rest."""

    def run_hook(self, hook: Callable[[], None]) -> None:
        """Run a service's hook, in a greenlet."""


class Record:
    """One service of a manager."""

    def __init__(
        self, task: ServiceTask, options: ServiceOptions, listener: RecordListener, limit: int
    ) -> None:
        self.task = task
        self.options = options
        self.home = listener.home
        self.listeners = Listeners(task.id, options.sockets, options.backlog)
        self.history: collections.deque[Exit] = collections.deque(maxlen=_KEPT)
        self.places = [Place(self, number) for number in range(options.instances)]
        self.status = ServiceStatus(self)
        self.limit = limit
        self.removed = False  # nobody may start it any more
        self._listener = listener
        self._crew: Crew | None = None
        self.callable = remotes(type(task))
        self._for_service = remotes(type(task), parent=True)
        self._launched = 0
        self._revision = 0
        self._turn = 0  # of the places, to be called
        self._created_at = time.time()
        self._progress: tuple[float, float, str] = (0, DEFAULT_TARGET, "")
        self._reference = refer(task.definition)
        if options.health is not None and options.health not in self.callable:
            raise ConfigurationError(
                f"health={options.health!r}: {task.definition.name} has no such remote method;"
                f" it has: {', '.join(sorted(self.callable)) or 'none'}",
                "health",
            )
        self._order(0)  # whatever cannot travel is told here, where the mistake was made

    def _order(self, number: int) -> Order:
        args = (number, self.listeners.names)
        payload = encode_arguments(args, self.task.arguments()[1], payload_limit(self.limit))
        return Order(self.task.definition, self._reference, self.task.id, payload)

    @property
    def loop(self) -> Any:
        """The loop of its home, once there is one."""
        return self.home.loop

    def employ(self, crew: Crew) -> None:
        """From now on it can have processes: ``crew`` starts them."""
        self._crew = crew
        if self._reference.value is None:
            crew.learn(self._reference.module)

    # --- what is asked of it

    def start(self) -> None:
        """Have a process in each place."""
        for place in self.places:
            place.start()

    def stop(self) -> None:
        """Have none in any."""
        for place in self.places:
            place.stop()

    def restart(self) -> None:
        """Have others in all."""
        for place in self.places:
            place.restart()

    @property
    def gone(self) -> bool:
        """Whether it is at rest, and no process of it is left."""
        return all(place.at_rest and not place.processes() for place in self.places)

    # --- what its places ask

    def broken(self) -> str | None:
        """Why no process could ever run it, or None."""
        assert self._crew is not None
        return self._crew.broken(self.task.definition.module)

    def launch(self, place: Place) -> Instance:
        """A new process for a place. Raises :class:`ServiceFailed` where none is to be had."""
        assert self._crew is not None
        order = self._order_now(place.number)
        self.listeners.open()
        try:
            descriptors = self.listeners.descriptors()
            instance = self._crew.launch(place, self.options, self._find, descriptors)
        except OSError as error:
            raise ServiceFailed(
                f"no process of service {self.task.id!r} can be started: {error}", self.task.id
            ) from error
        self._launched += 1
        instance.order(order, min(self._launched, _ATTEMPTS))
        return instance

    def _order_now(self, number: int) -> Order:
        """The order as the task's options are by now, which the application may have changed."""
        try:
            return self._order(number)
        except GTaskmanError:
            raise
        except Exception as error:
            why = f"the options of service {self.task.id!r} cannot be had: {error!r:.200}"
            raise ServiceFailed(why, self.task.id) from error

    def watch(self, place: Place, instance: Instance) -> Watch:
        """Somebody who looks after a process that is ready."""
        return Watch(
            self.task.id,
            instance,
            self.options,
            self.home,
            self.limit,
            place.unwell,
            place.outgrown,
        )

    def describe(self, place: Place) -> str:
        """The service, and the place of it, for the log."""
        several = f" [{place.number}]" if len(self.places) > 1 else ""
        return f"{self.task.id!r}{several}"

    # --- what its places tell

    def on_state(self, place: Place) -> None:
        """A place has come to another state: what can be waited for follows."""
        status = self.status
        if place.state is ServiceState.STARTING and status.stopped.done():
            status.stopped = Milestone(self, "stopped")
        if place.state is not ServiceState.RUNNING and status.started.done():
            status.started = Milestone(self, "started")
        states = {each.state for each in self.places}
        at_rest = all(each.at_rest for each in self.places)
        if states == {ServiceState.RUNNING}:
            status.started.open()
        elif at_rest or ServiceState.FAILED in states:
            status.started.fail(self._why_not())
        if at_rest:
            self._note_gone()
            # Later: whoever brought it about has yet to note that a process is gone.
            self.loop.run_callback(self._listener.on_rest)

    def _why_not(self) -> ServiceFailed:
        """Why not all of its places will have a process."""
        failed = any(each.state is ServiceState.FAILED for each in self.places)
        message = f"service {self.task.id!r} {'has failed' if failed else 'is stopped'}"
        why = next((each.why for each in self.places if each.why), "")
        return ServiceFailed(
            f"{message}: {why}" if why else message, self.task.id, self.status.last_exit
        )

    def on_up(self, place: Place, instance: Instance) -> None:
        """A process has entered its run."""
        self._emit("service-started", place, instance.pid)

    def on_ready(self, place: Place, instance: Instance) -> None:
        """A process is ready."""
        self.status.started_times += 1
        self._emit("service-ready", place, instance.pid)

    def on_progress(self, progress: tuple[float, float, str]) -> None:
        """Its task has written with its pen."""
        self._progress = progress

    def on_message(self, place: Place, name: str, payload: Any) -> None:
        """Its task has emitted a message."""
        message = ServiceMessage(self.task.id, place.number, name, payload)
        self._listener.emit("service-message", message, self.task.id)

    def on_gone(self, place: Place, end: Exit) -> None:
        """A process is gone."""
        self.history.append(end)
        self._note_gone()
        self._emit("service-stopped", place, end.pid, exit=end)
        self._listener.run_hook(self._tell_task)
        # Once its place has come to rest as well.
        self.loop.run_callback(self._listener.on_rest)

    def _note_gone(self) -> None:
        if not any(each.processes() for each in self.places):
            self.status.stopped.open()

    def _tell_task(self) -> None:
        try:
            self.task.stopped()
        except Exception:
            log.exception("stopped() of service %r raised; nothing else is disturbed", self.task.id)

    def on_failed(self, place: Place) -> None:
        """A place has been given up."""
        self._emit("service-failed", place, None, exit=place.exit)

    def on_restarting(self, place: Place, delay: float) -> None:
        """A place waits to have a process again."""
        self._emit("service-restarting", place, None, exit=place.exit, delay=delay)

    def _emit(
        self,
        event: str,
        place: Place,
        pid: int | None,
        exit: Exit | None = None,
        delay: float | None = None,
    ) -> None:
        payload = ServiceEvent(event, self.task.id, place.number, pid, exit, delay)
        self._listener.emit(event, payload, self.task.id)

    # --- calls

    def check_method(self, method: str) -> None:
        """Raise :class:`ServiceMethodError` unless the method may be called in the service."""
        if method not in self.callable:
            known = ", ".join(sorted(self.callable)) or "none"
            raise ServiceMethodError(
                f"service {self.task.id!r} has no remote method {method!r} (it has: {known});"
                " mark it with @gtaskman.remote",
                self.task.id,
            )

    def encode(self, method: str, args: Any, kwargs: dict[str, Any]) -> Payload:
        """What a call sends. Raises :class:`PayloadError`."""
        return encode(self.task.id, method, args, kwargs, payload_limit(self.limit))

    def new_call(self, method: str) -> Call:
        """A call that is yet to be made. Raises :class:`ServiceDown` if nobody could take it."""
        if all(place.open is None for place in self.places):
            raise ServiceDown(self._down(method), self.task.id)
        return Call(self.task.id, method, self.home)

    def _down(self, method: str) -> str:
        return (
            f"{method}() of service {self.task.id!r} cannot be called: the service is"
            f" {self.status.state.value}"
        )

    def make_call(self, call: Call, payload: Payload) -> None:
        """Make a call in the next of the processes that take any."""
        count = len(self.places)
        for step in range(count):
            instance = self.places[(self._turn + step) % count].open
            if instance is not None:
                self._turn = (self._turn + step + 1) % count
                instance.line.make(call, payload)
                return
        call.give_up(self._down(call.method))

    def open_instances(self) -> list[Instance]:
        """All processes that take calls."""
        return [each for place in self.places if (each := place.open) is not None]

    def _find(self, method: str) -> Callable[..., Any]:
        """A method of the parent's that the service calls."""
        if method not in self._for_service:
            raise ServiceMethodError(
                f"service {self.task.id!r} has no method {method!r} in its parent", self.task.id
            )
        found: Callable[..., Any] = getattr(self.task, method)
        return found

    # --- how it stands

    def report(self) -> Report:
        """Its report as a task."""
        self._revision += 1
        state, last = self.status.state, self.status.last_exit
        uptime = self.status.uptime
        completed, target, message = self._progress
        ended = state in (ServiceState.STOPPED, ServiceState.FAILED) and last is not None
        never = state is ServiceState.STOPPED and last is None
        return Report(
            self.task.id,
            self.task.definition.name,
            "service",
            TaskStatus.WAITING if never else _AS_TASK[state],
            self._created_at,
            message,
            completed,
            target,
            error=last.failure if last is not None else None,
            started_at=time.time() - uptime if uptime is not None else None,
            finished_at=last.at if ended and last is not None else None,
            attempt=max(1, self._launched),
            worker=self.status.pid,
            revision=self._revision,
        )

    def close(self) -> None:
        """It is over: let go of its sockets, and of whoever waits for it."""
        self.status.started.fail(self._why_not())
        self.status.stopped.open()
        self.listeners.close()

    def forget(self) -> None:
        """In a fork of the application: close our copies; the original goes on undisturbed."""
        for place in self.places:
            place.forget()
        self.listeners.close()
