"""``RemoteHandle``: the future of a task that other processes run.

Its end is pushed to the line of the thread that waits (see ``redis/line.py``) as raw bytes; the
report is made of them when somebody looks, in the greenlet that does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from gtaskman.errors import PayloadError, WaitTimeout
from gtaskman.handle import TaskHandle
from gtaskman.report import Report

if TYPE_CHECKING:
    from gtaskman.client import Client


class Ticket:
    """What a sender knows of a task that has not ended: it asks the server for more."""

    def __init__(self, first: Report, queue: str, ask: Callable[[str], Report | None]) -> None:
        self.id = first.id
        self.first = first  # how it stood when this was made
        self.queue = queue
        self._ask = ask

    def report(self) -> Report:
        """How it stands, from the server; as it stood first, if the server knows nothing."""
        return self._ask(self.id) or self.first


class Reading(NamedTuple):
    """A report as it could be read here, and why its result could not, if it could not."""

    report: Report
    error: PayloadError | None = None


class Attendant(Protocol):
    """Who pushes what becomes of tasks: one for each thread that waits."""

    def attend(self, handle: RemoteHandle, progress: bool = False) -> None:
        """Have the handle told how its task ends, and how far it is, from now on."""


class RemoteHandle(TaskHandle):
    """A :class:`TaskHandle` whose task runs elsewhere; the same calls, with the same meaning."""

    _reading: Callable[[], Reading] | None = None

    def __init__(self, ticket: Ticket, client: Client, attendant: Attendant | None) -> None:
        self.id = ticket.id
        self._ticket = ticket
        self._client = client
        self._attendants = {attendant} if attendant is not None else set()
        self._followed = False

    @property
    def name(self) -> str:
        """The task's name."""
        return self._ticket.first.name

    @property
    def first(self) -> Report:
        """How it stood when this handle was made."""
        return self._ticket.first

    @property
    def queue(self) -> str:
        """The name of its queue."""
        return self._ticket.queue

    @property
    def report(self) -> Report:
        """How the task stands right now: its last report, or what the server says."""
        return self._read() if self._opened else self._ticket.report()

    @property
    def _report(self) -> Report | None:  # type: ignore[override] # made when it is asked for
        return self._read() if self._opened else None

    def _read(self) -> Report:
        return self._whole().report

    def _whole(self) -> Reading:
        known = self.__dict__.get("_last")
        if known is None:
            assert self._reading is not None
            known = self.__dict__["_last"] = self._reading()
        return known

    def get(self, timeout: float | None = None) -> Any:
        """See :meth:`TaskHandle.get`; raises :class:`PayloadError` for a result that is not to be
        read here, since nobody trusted has signed it for one."""
        value = super().get(timeout)
        unread = self._whole().error
        if unread is not None:
            raise type(unread)(str(unread))
        return value

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the task has ended, at most ``timeout`` seconds; gives whether it has."""
        if not self._opened:
            self._be_attended()
        return super().wait(timeout)

    def _overdue(self, timeout: float | None) -> WaitTimeout:
        # The server may be away: it is not asked how the task stands.
        return WaitTimeout(
            f"task {self.name} ({self.id}) has not ended within {timeout} s, and goes on"
        )

    def rawlink(self, callback: Callable[[Any], object]) -> None:
        """Call ``callback(self)`` in this thread's hub once the task has ended."""
        if not self._opened:
            self._be_attended()
        super().rawlink(callback)

    def progress(self) -> Iterator[Report]:
        """The task's reports from now on as they come; the last one ends it."""
        feed = super().progress()
        if not self._opened:
            self._be_attended(progress=True)
        return feed

    def cancel(self, reason: str | None = None) -> bool:
        """Ask the task to stop, wherever it waits or runs; False if it has ended already."""
        return not self._opened and self._client.cancel_in(self.queue, self.id, reason)

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for it right now."""
        return not self._opened and (self._waiters is not None or bool(self._feeds))

    def attended_anew(self, attendant: Attendant) -> None:
        """Whoever attended it has gone; somebody still waits."""
        self._attendants = {attendant}
        attendant.attend(self, self._followed)

    def end(self, reading: Callable[[], Reading]) -> None:
        """The task has ended: ``reading()`` gives its last report."""
        if self._opened:
            return
        self._reading = reading
        self._opened = True
        try:
            if self._feeds is not None:
                self.tell(self._read())
        finally:
            if self._waiters is not None:
                self.wake()

    def _be_attended(self, progress: bool = False) -> None:
        """By the line of this thread: one of another thread may not run while we wait."""
        here = self._client.attendant()
        if here not in self._attendants or (progress and not self._followed):
            self._attendants.add(here)
            self._followed = self._followed or progress
            here.attend(self, progress)

    def _home(self) -> Any:
        return None

    def _stalled(self) -> None:
        pass

    def __repr__(self) -> str:
        state = self._read().status.value if self._opened else "on its way"
        return f"<RemoteHandle {self.name} {self.id} {state}>"
