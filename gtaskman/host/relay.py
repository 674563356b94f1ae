"""``Relay``: what the processes of a host may ask of a manager whose queue is on a server.

Their tasks go to that queue, in the envelopes in which they came, and may run on any host. What
the server says of them goes back as it came, too: neither arguments nor results are opened here.
"""

from __future__ import annotations

import collections
import functools
import itertools
import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import gevent
import msgspec

from gtaskman.client import Client
from gtaskman.distant import Reading, RemoteHandle, Ticket
from gtaskman.envelope import read_task
from gtaskman.errors import DuplicateTaskError, GTaskmanError
from gtaskman.host import messages
from gtaskman.host.desk import MOST_FOUND, ORPHANED, Counter, answered
from gtaskman.host.messages import AGAIN, Attach, Order, Question
from gtaskman.job import OVERHEAD
from gtaskman.latch import Latch
from gtaskman.loops import SupervisedLoop
from gtaskman.queues.redis import RedisTaskQueue
from gtaskman.queues.sending import entry_of
from gtaskman.redis.keys import queue_base
from gtaskman.redis.ledger import Entry
from gtaskman.redis.line import Line
from gtaskman.redis.record import STATUSES, Record, no_result, reading_of
from gtaskman.report import Report, TaskStatus
from gtaskman.shared import SharedManager
from gtaskman.task import Definition, registry
from gtaskman.terms import DEFAULT
from gtaskman.wire.messages import SEALED
from gtaskman.wire.payload import NOTHING, Payload

if TYPE_CHECKING:
    from gtaskman.host.guest import Guest

log = logging.getLogger(__name__)

_BATCH = 128  # tasks that one trip to the server takes along
_PATIENCE = 30.0  # seconds that a server may be away


class SealedClient(Client):
    """A client that leaves results in their envelopes."""

    def _read(self, record: Record, queue: str) -> Reading:
        if record.status not in STATUSES:
            return super()._read(record, queue)
        report = reading_of(record, no_result).report
        if report.status is TaskStatus.COMPLETED:
            result = Payload(SEALED, record.result, ()) if record.result else NOTHING
            report = msgspec.structs.replace(report, result=result)
        return Reading(report)


class RelayHandle(RemoteHandle):
    """A task of another process, which is told what the server says of it."""

    def __init__(
        self, ticket: Ticket, client: Client, guest: Guest, number: int, on_end: Callable[[], None]
    ) -> None:
        super().__init__(ticket, client, None)
        self._guest = guest
        self._number = number
        self._on_end = on_end

    def take(self) -> None:
        """The server has it."""
        self._guest.say(messages.TAKEN, self._number)
        self._guest.flush()

    def refuse(self, error: GTaskmanError) -> None:
        """The server does not take it."""
        self._on_end()
        self._guest.refuse(self._number, error)
        self._guest.flush()

    def end(self, reading: Callable[[], Reading]) -> None:
        """The task has ended."""
        super().end(reading)
        self._on_end()
        self._guest.tell_end(self._number, reading().report, None)
        self._guest.flush()

    def tell(self, report: Report) -> None:
        """The task has made progress."""
        super().tell(report)
        if not report.finished:
            self._guest.tell_progress(self._number, report)


class _Parcel:
    """A task on its way to the server; ``again``: it may have been sent there before.

    More than one handle if it has come more than once: they share what the server says.
    """

    def __init__(self, queue: str, entry: Entry, handle: RelayHandle, again: bool) -> None:
        self.queue = queue
        self.entry = entry
        self.handles = [handle]
        self.again = again
        self.taken = False  # acknowledged: an error of another parcel does not refuse it

    @property
    def key(self) -> tuple[str, str]:
        """What tells it apart."""
        return self.queue, self.entry.id

    @property
    def size(self) -> int:
        """Bytes that it takes here, roughly."""
        return len(self.entry.envelope) + OVERHEAD

    def take(self) -> None:
        """The server has it."""
        self.taken = True
        for handle in self.handles:
            handle.take()

    def refuse(self, error: GTaskmanError) -> None:
        """The server does not take it."""
        for handle in self.handles:
            handle.refuse(error)


class Relay(Counter):
    """The counter of a manager with a queue on a server."""

    durable = True

    def __init__(self, manager: SharedManager) -> None:
        queue = manager.queue
        self.namespace = queue.namespace
        self._manager = manager
        self._queue: RedisTaskQueue = queue
        self._client = SealedClient(
            queue.address, queue=queue.name, namespace=queue.namespace, patience=_PATIENCE
        )
        self._handles: dict[tuple[Guest, int], RelayHandle] = {}
        self._parcels: collections.deque[_Parcel] = collections.deque()
        self._under_way: dict[tuple[str, str], _Parcel] = {}  # until the server has answered
        self._pending = 0  # bytes of these
        self._ebb: Latch | None = None  # opens when enough of them have gone
        self._sending = SupervisedLoop("the relay of tasks to the server", self._send)
        self._requests = itertools.count(1)
        self._nonce = os.urandom(8).hex()
        self._answers: dict[str, Callable[..., Any]] = {
            "cancel": manager.cancel,
            "report": self._report,
            "find": self._find,
            "count": self._count,
            "stats": manager.stats,
            "info": manager.queue.info,
            "pause": self._client.pause,
            "resume": self._client.resume,
            "dead": lambda offset, limit, queue: self._client.dead(
                offset, min(limit, MOST_FOUND), queue=queue
            ),
            "retry": lambda task_id: self._client.retry(task_id) is not None,
            "delete": self._client.delete,
            "names": lambda queue: self._client.ledger(queue).names(),
        }

    def native(self, trusted: bool) -> bool:  # noqa: ARG002 - others ask who it is
        return False

    def define(self, body: bytes) -> Definition:  # noqa: ARG002 - likewise
        raise GTaskmanError("tasks of a queue on a server travel by their names")

    # --- tasks

    def submit(self, guest: Guest, number: int, flags: int, order: Order) -> None:
        terms = order.terms or DEFAULT
        envelope = bytes(order.payload.body)
        sealed = read_task(
            envelope,
            accept="jm" if self._queue.keyring is None else "jmp",
            keyring=self._queue.keyring,
            queue=queue_base(self._queue.namespace, terms.queue),
            task_id=order.id,
        )
        definition = registry.get(sealed.name)
        entry = entry_of(
            order.id, sealed.name, sealed.kind, terms, definition, order.unique, "", envelope
        )
        first = Report(order.id, sealed.name, sealed.kind, TaskStatus.WAITING, sealed.created)
        handle = self._handle(guest, number, first, terms.queue)
        parcel = _Parcel(terms.queue, entry, handle, bool(flags & AGAIN))
        before = self._under_way.setdefault(parcel.key, parcel)
        if before is not parcel and parcel.again:
            # It came over another connection before, and is here still: what the server says of
            # that one holds for both.
            before.handles.append(handle)
            return
        self._parcels.append(parcel)
        self._pending += parcel.size
        self._sending.start()

    def ebb(self) -> Latch | None:
        if self._pending <= self._manager.config.max_pending_bytes:
            return None
        if self._ebb is None or self._ebb.done():
            self._ebb = Latch()
        return self._ebb

    def _handle(self, guest: Guest, number: int, first: Report, queue: str) -> RelayHandle:
        key = (guest, number)
        handle = self._handles[key] = RelayHandle(
            Ticket(first, queue, functools.partial(self._client.report_in, queue)),
            self._client,
            guest,
            number,
            lambda: self._forget(key),
        )
        return handle

    def _forget(self, key: tuple[Guest, int]) -> None:
        self._handles.pop(key, None)

    def _send(self) -> None:
        """Send what has come, and what comes meanwhile."""
        while self._parcels:
            batch = [self._parcels.popleft() for _ in range(min(_BATCH, len(self._parcels)))]
            by_queue: dict[str, list[_Parcel]] = {}
            for parcel in batch:
                by_queue.setdefault(parcel.queue, []).append(parcel)
            for queue, group in by_queue.items():
                self._send_to(queue, group)

    def _send_to(self, queue: str, parcels: list[_Parcel]) -> None:
        try:
            line = self._client.attendant()
            line.listen(queue)
            fresh = [parcel for parcel in parcels if not self._has_come(line, parcel)]
            self._enqueue(line, queue, fresh)
        except GTaskmanError as error:
            self._refuse(parcels, error)
        except Exception as error:
            log.exception("tasks of other processes cannot be sent to queue %s", queue)
            self._refuse(parcels, GTaskmanError(f"{type(error).__name__}: {error}"))
        except BaseException as error:
            self._refuse(parcels, GTaskmanError(f"the manager was interrupted: {error!r}"))
            raise
        finally:
            self._lessen(parcels)

    def _refuse(self, parcels: list[_Parcel], error: GTaskmanError) -> None:
        for parcel in parcels:
            if not parcel.taken:
                parcel.refuse(error)

    def _lessen(self, parcels: list[_Parcel]) -> None:
        """The server has answered for these: more may be read if few enough are left."""
        for parcel in parcels:
            self._pending -= parcel.size
            self._forget_parcel(parcel)
        if self._ebb is not None and self._pending <= self._manager.config.max_pending_bytes:
            ebb, self._ebb = self._ebb, None
            ebb.open()

    def _has_come(self, line: Line, parcel: _Parcel) -> bool:
        """Whether the server has a task that may have been sent before."""
        if not parcel.again or line.ledger(parcel.queue).record(parcel.entry.id) is None:
            return False
        self._forget_parcel(parcel)
        parcel.take()
        for handle in parcel.handles:
            line.attend(handle)
        return True

    def _forget_parcel(self, parcel: _Parcel) -> None:
        """What comes from now on under the same id finds it on the server."""
        if self._under_way.get(parcel.key) is parcel:
            del self._under_way[parcel.key]

    def _enqueue(self, line: Line, queue: str, parcels: list[_Parcel]) -> None:
        if not parcels:
            return
        reply = line.channel(queue)
        entries = [parcel.entry._replace(reply=reply) for parcel in parcels]
        for parcel in parcels:
            for handle in parcel.handles:
                line.expect(handle)
        request = f"{self._nonce}{next(self._requests):x}"
        answers: list[str | None] = []
        try:
            answers = line.ledger(queue).enqueue(entries, request)
        finally:
            for parcel, holder in itertools.zip_longest(parcels, answers):
                for handle in parcel.handles:
                    line.entered(handle, holder is not None)
        for parcel, holder in zip(parcels, answers, strict=True):
            self._on_answer(line, parcel, holder)

    def _on_answer(self, line: Line, parcel: _Parcel, holder: str | None) -> None:
        """The server has said who holds the id, or the unique key, of a parcel: None is itself."""
        if holder is not None:
            key = None if holder == parcel.entry.id else parcel.entry.unique
            parcel.refuse(DuplicateTaskError(holder, key))
            return
        parcel.take()
        for handle in parcel.handles[1:]:
            line.attend(handle)  # it may have come after the task was sent

    def follow(self, guest: Guest, number: int, task_id: str) -> None:  # noqa: ARG002
        handle = self._handles.get((guest, number))
        if handle is not None:
            self._client.attendant().attend(handle, progress=True)

    def attach(self, guest: Guest, number: int, wanted: Attach) -> None:
        found = self._client.handle(wanted.id)
        if found is None:
            raise GTaskmanError(f"the server knows no task {wanted.id!r} (any more)")
        handle = self._handle(guest, number, found.first, found.queue)
        self._client.attendant().attend(handle, wanted.follow)

    def leave(self, guest: Guest, ids: dict[int, str], cancel: bool) -> None:
        for number, task_id in list(ids.items()):
            self._handles.pop((guest, number), None)
            if cancel:
                gevent.spawn(self._manager.cancel, task_id, ORPHANED)

    # --- questions

    def answer(self, question: Question, native: bool) -> Any:
        return answered(self._answers, question, native)

    def _report(self, task_id: str) -> list[Report]:
        found = self._client.report(task_id)
        return [] if found is None else [found]

    def _find(
        self,
        status: TaskStatus | None,
        finished: bool | None,
        offset: int,
        limit: int,
        queue: str | None,
    ) -> list[Report]:
        limit = min(limit, MOST_FOUND)
        return self._client.find(status, finished, offset, limit, queue=queue)

    def _count(self, status: TaskStatus | None, finished: bool | None, queue: str | None) -> int:
        return self._client.count(status, finished, queue=queue)
