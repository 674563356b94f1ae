"""``HostHandle``: the future of a task that the manager of this host runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gtaskman.distant import Reading, RemoteHandle, Ticket
from gtaskman.errors import GTaskmanError, ManagerGone
from gtaskman.report import Failure, FailureKind, Report, TaskStatus

if TYPE_CHECKING:
    from gtaskman.host.client import HostClient
    from gtaskman.host.connection import Answer


class HostTicket(Ticket):
    """What a sender knows of its task; the report is made if somebody asks for it."""

    def __init__(
        self, task_id: str, name: str, kind: str, queue: str, ask: Callable[[str], Report | None]
    ) -> None:
        self.id = task_id
        self.name = name
        self.kind = kind
        self.queue = queue
        self.created_at = time.time()
        self._ask = ask

    @property
    def first(self) -> Report:  # type: ignore[override] # made when it is asked for
        """How it stood when this was made."""
        return Report(self.id, self.name, self.kind, TaskStatus.WAITING, self.created_at)


class HostHandle(RemoteHandle):
    """A :class:`RemoteHandle` of a task that was sent over a Unix socket."""

    number = 0  # of the task, on the connection that it went over
    cost = 0  # bytes that it has on their way over that connection
    sent = False  # whether this process has sent it
    returned_nothing = False
    word: Answer | None = None  # whether it was taken in, where that is to be said
    resend: Callable[[], None] | None = None  # while nobody has said that it was taken in
    _client: HostClient
    _refusal: GTaskmanError | None = None
    _gone = False

    @property
    def is_followed(self) -> bool:
        """Whether somebody wants to know its progress."""
        return self._followed

    @property
    def ticket(self) -> HostTicket:
        """What its sender knows of the task."""
        assert isinstance(self._ticket, HostTicket)
        return self._ticket

    def get(self, timeout: float | None = None) -> Any:
        """See :meth:`TaskHandle.get`. Raises :class:`ManagerGone` if the manager has died, and
        what :meth:`Client.submit` may raise, if the manager did not take the task in."""
        if not self._opened and not self.wait(timeout):
            raise self._overdue(timeout)
        if self.returned_nothing:
            return None  # what most tasks come to: no report is made for that
        if self._refusal is not None:
            raise self._refusal
        return super().get()

    @property
    def exception(self) -> BaseException | None:
        """What ``get`` would raise, or None."""
        return self._refusal or super().exception

    def _error(self, report: Report) -> BaseException:
        return ManagerGone(report) if self._gone else super()._error(report)

    # --- what the connection does

    def take(self, reading: Callable[[], Reading], exception: bytes | None = None) -> bool:
        """The task has ended; whether somebody waits, who is to be woken by :meth:`wake`."""
        self._exception = exception
        self._reading = reading
        self._opened = True
        if self._feeds is not None:
            self.tell(self._read())
        return self._waiters is not None

    def refuse(self, error: GTaskmanError) -> bool:
        """The manager has not taken it in; likewise."""
        self._refusal = error
        return self.take(lambda: Reading(self._failed(FailureKind.ERROR, error)))

    def lose(self, why: str) -> bool:
        """The manager has gone, and nobody knows what has become of it; likewise."""
        self._gone = True
        return self.take(lambda: Reading(self._failed(FailureKind.CRASH, GTaskmanError(why))))

    def _failed(self, kind: FailureKind, error: GTaskmanError) -> Report:
        ticket, text = self.ticket, str(error)
        exc_type = None
        if kind is FailureKind.ERROR:
            exc_type = f"{type(error).__module__}.{type(error).__qualname__}"
        return Report(
            ticket.id,
            ticket.name,
            ticket.kind,
            TaskStatus.FAILED,
            ticket.created_at,
            text,
            error=Failure(kind, text, exc_type),
            finished_at=time.time(),
        )

    def _home(self) -> Any:
        return self._client.attendant().hub

    def _stalled(self) -> None:
        self._client.attendant().warn_if_stalled(self.id)

    def __repr__(self) -> str:
        return super().__repr__().replace("RemoteHandle", "HostHandle", 1)
