"""Every error that gtaskman raises, under one root.

Errors of other libraries are translated at the border: whoever catches
:class:`GTaskmanError` has caught them all, but for :class:`Cancelled`, which is thrown *into*
a task and, like every request to stop, is no ``Exception``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from greenlet import GreenletExit

if TYPE_CHECKING:
    from gtaskman.report import Report


class GTaskmanError(Exception):
    """The root of all errors of gtaskman."""


# --- what the caller got wrong: raised where the mistake was made --------------------------------


class ConfigurationError(GTaskmanError, ValueError):
    """Raised when a configuration value is unknown, of the wrong type or contradicts another.

    ``field`` names it.
    """

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class TaskOptionError(GTaskmanError, ValueError):
    """Raised when a task is built with a wrong, missing or unknown option.

    ``task`` is the task's name and ``field`` the option's.
    """

    def __init__(self, message: str, task: str | None = None, field: str | None = None) -> None:
        super().__init__(message)
        self.task = task
        self.field = field


class TaskDefinitionError(GTaskmanError, TypeError):
    """Raised when a function or class cannot be made a task, or two tasks claim one name."""


class TaskTravelError(GTaskmanError):
    """Raised by ``submit`` when a task's code cannot be found again in another process."""


class PayloadError(GTaskmanError):
    """Raised when an argument or a result cannot be encoded, decoded, or is over the limit."""


class EnvelopeError(PayloadError):
    """Raised when an envelope that came from a server is not to be opened; the text says why."""


class DuplicateTaskError(GTaskmanError):
    """Raised by ``submit`` when a task with this id, or this unique key, waits or runs already.

    ``id`` is the id of the one that does; ``key`` is the unique key that it holds, or None if it
    was the id that is not free.
    """

    def __init__(self, task_id: str, key: str | None = None) -> None:
        if key is None:
            what = (
                f"a task with the id {task_id!r} is waiting or running already;"
                " wait for it, cancel it, or leave the id out to get a fresh one"
            )
        else:
            what = (
                f"the unique key {key!r} belongs to task {task_id!r}, which is waiting or running"
                " already; wait for it, cancel it, or give another key"
            )
        super().__init__(what)
        self.id = task_id
        self.key = key

    def __reduce__(self) -> Any:
        return type(self), (self.id, self.key)  # not with the text, which would be the id then


class MainGuardError(GTaskmanError):
    """Raised when importing a module starts work in the process that only prepares workers."""


# --- what happened to the manager ----------------------------------------------------------------


class ManagerStopped(GTaskmanError):
    """Raised by ``submit`` when the manager is stopping or has stopped."""


class ForkedManagerError(GTaskmanError):
    """Raised when a manager or handle is used in a fork of the process that made it."""


class StartMethodError(GTaskmanError):
    """Raised when the chosen start method is not to be had on this system."""


class WouldBlockError(GTaskmanError):
    """Raised when something that waits is called where nothing can: in a callback of the hub."""


class MapInterrupted(GTaskmanError):
    """Raised by a ``map`` whose results are asked for after an interrupt has ended it."""


class WaitTimeout(GTaskmanError, TimeoutError):
    """Raised when *the wait* for a task is over. The task itself goes on."""


# --- services ------------------------------------------------------------------------------------


class ServiceError(GTaskmanError):
    """The root of what goes wrong with services; ``service`` is the id of the one it is about."""

    def __init__(self, message: str, service: str) -> None:
        super().__init__(message, service)  # all of it, so that it can travel
        self.service = service

    def __str__(self) -> str:
        return str(self.args[0])


class UnknownServiceError(ServiceError, KeyError):
    """Raised when no service has that id."""


class DuplicateServiceError(ServiceError, KeyError):
    """Raised when a service with this id was added already."""


class ServiceMethodError(ServiceError, AttributeError):
    """Raised when a service has no such method, or none that may be called from outside."""


class ServiceDown(ServiceError):
    """Raised when a service is called that does not run, or that has ended before it answered."""


class ServiceFailed(ServiceError):
    """Raised to whoever waits for a service that will not start; the text says why.

    ``exit`` is how it ended last (a :class:`gtaskman.services.Exit`), or None if nobody knows.
    """

    def __init__(self, message: str, service: str, exit: Any = None) -> None:
        super().__init__(message, service)
        self.exit = exit


class ServiceCallFailed(ServiceError):
    """Raised when a called method raised something that cannot be raised here as what it is.

    ``exc_type``, ``message`` and ``traceback`` (text) are those of the method's own exception.
    """

    def __init__(
        self, service: str, method: str, exc_type: str | None, message: str, traceback: str | None
    ) -> None:
        super().__init__(message, service)
        self.args = (service, method, exc_type, message, traceback)
        self.method = method
        self.exc_type = exc_type
        self.message = message
        self.traceback = traceback

    def __str__(self) -> str:
        return f"{self.method}() of service {self.service!r}: {self.exc_type}: {self.message}"


# --- the Redis server ----------------------------------------------------------------------------


class ServerUnavailable(GTaskmanError):
    """Raised when the server stayed away for longer than the caller's patience.

    What was asked may have been done or not.
    """


class ServerError(GTaskmanError):
    """Raised when the server answered with an error; ``code`` is its first word, as in ``OOM``."""

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


# --- a manager shared by the processes of a host -------------------------------------------------


class BindError(GTaskmanError):
    """Raised when a manager cannot listen at a path: another does, or others could meddle there."""


class AccessRefused(GTaskmanError):
    """Raised when a manager serves other users than the one that this process runs as."""


# --- the wire ------------------------------------------------------------------------------------


class FrameError(GTaskmanError):
    """Raised when the bytes on a pipe are no frames of ours."""


class FrameTooLarge(FrameError):
    """Raised when a frame is larger than the limit (``Configuration.max_frame``, bytes)."""


# --- how a task ended ----------------------------------------------------------------------------


class TaskFailed(GTaskmanError):
    """Raised by ``TaskHandle.get`` when the task failed.

    ``report`` is its last report; ``exc_type``, ``message`` and ``traceback`` (text, with the
    frames of the worker) are those of the task's own exception, which is the ``__cause__`` where
    it could travel.
    """

    def __init__(self, report: Report) -> None:
        super().__init__(report)
        self.report = report
        self.exc_type: str | None = report.error.exc_type if report.error else None
        self.message: str = report.error.message if report.error else report.message
        self.traceback: str | None = report.error.traceback if report.error else None

    def __str__(self) -> str:
        what = f"{self.exc_type}: {self.message}" if self.exc_type else self.message
        return f"task {self.report.name} ({self.report.id}) failed: {what}"


class WorkerCrashed(TaskFailed):
    """Raised by ``TaskHandle.get`` when the task's worker process died under it.

    ``exitcode`` (or None), ``signal`` (a name such as ``"SIGKILL"``, or None) and ``reason``,
    a sentence, say how.
    """

    def __init__(self, report: Report) -> None:
        super().__init__(report)
        self.exitcode: int | None = report.error.exitcode if report.error else None
        self.signal: str | None = report.error.signal if report.error else None
        self.reason: str = report.error.message if report.error else ""

    def __str__(self) -> str:
        return f"task {self.report.name} ({self.report.id}) lost its worker: {self.reason}"


class TaskTimedOut(TaskFailed):
    """Raised by ``TaskHandle.get`` when the task ran longer than its own time limit."""


class TaskExpired(TaskFailed):
    """Raised by ``TaskHandle.get`` when the task had not started within its ``ttl``."""


class ManagerGone(TaskFailed):
    """Raised by ``TaskHandle.get`` when the shared manager that had the task has gone.

    It was lost with the manager's memory, or, with a queue on a server, waits on there.
    """

    def __str__(self) -> str:
        return f"task {self.report.name} ({self.report.id}): {self.message}"


class TaskCancelled(GTaskmanError):
    """Raised by ``TaskHandle.get`` when the task was cancelled; ``reason`` is the canceller's."""

    def __init__(self, report: Report) -> None:
        super().__init__(report)
        self.report = report
        self.reason: str = report.message

    def __str__(self) -> str:
        why = f": {self.reason}" if self.reason else ""
        return f"task {self.report.name} ({self.report.id}) was cancelled{why}"


class RemoteTraceback(Exception):
    """Stands as the cause of a task's exception and prints the frames it had in the worker."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    @property
    def tb(self) -> str:
        """The text again, under the name that :mod:`concurrent.futures` has for it."""
        return self.text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


# --- what is thrown into a task ------------------------------------------------------------------


class SoftTimeout(GTaskmanError):
    """Raised *inside* a task at its soft time limit; it may clean up and still return a value."""


class Cancelled(GreenletExit):  # type: ignore[misc] # greenlet's types do not reach us
    """Thrown *into* a task that must stop. Clean up and let it pass; who swallows it is killed."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
