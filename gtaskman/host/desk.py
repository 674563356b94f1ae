"""``Desk``: what the processes of a host may ask of a manager whose queue is in its own memory.

Tasks come with their code as a reference, from processes of our own user, or in envelopes, by
their names, from those of others. Either way arguments and results pass through as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Protocol

import msgspec

from gtaskman.definitions import Elsewhere
from gtaskman.envelope import TASK_LIMIT, Hints, seal_result
from gtaskman.errors import EnvelopeError, GTaskmanError, PayloadError, TaskDefinitionError
from gtaskman.handle import TaskHandle
from gtaskman.host.messages import Attach, Code, Order, Question, Told, unpack_code
from gtaskman.job import Job
from gtaskman.queues.redis import Reader
from gtaskman.reference import Reference
from gtaskman.report import Report, TaskStatus
from gtaskman.task import Definition, registry
from gtaskman.taskmanager import TaskManager
from gtaskman.wire.messages import CHUNK, SEALED
from gtaskman.wire.payload import EMPTY, Payload, encode_value

if TYPE_CHECKING:
    from gtaskman.host.guest import Guest
    from gtaskman.latch import Latch

_KEPT = 4096  # definitions of other processes that are kept
ORPHANED = "the process that sent it has gone"
MOST_FOUND = 500  # reports in one answer


class GuestJob(Job, gc=False, eq=False):
    """A task of another process: its result is not ours to read."""

    opaque: ClassVar[bool] = True


class Reply(TaskHandle):
    """The handle of such a task: whatever becomes of it is told to the process that sent it."""

    def __init__(self, job: Job, manager: TaskManager, guest: Guest, number: int) -> None:
        super().__init__(job, manager)
        self.guest = guest
        self.number = number

    def settle(self, report: Report, exception: bytes | None = None) -> bool:
        """The task has ended."""
        super().settle(report, exception)
        self.guest.tell_end(self.number, report, exception)
        return True

    def wake(self, at_once: bool = False) -> None:
        """All of a batch have ended: they are sent together."""
        self.guest.flush()
        if self._waiters is not None:
            super().wake(at_once)

    def tell(self, report: Report) -> None:
        """The task has made progress."""
        super().tell(report)
        if not report.finished:
            self.guest.tell_progress(self.number, report)


class Counter(Protocol):
    """What a guest asks a desk, on the hub of the manager; questions in a greenlet of their own."""

    durable: bool
    namespace: str  # of its queue on a server, if it has one

    def native(self, trusted: bool) -> bool:
        """Whether a process, of our own user or not, sends code by reference."""

    def define(self, body: bytes) -> Definition:
        """The definition of code that a process has described."""

    def submit(self, guest: Guest, number: int, flags: int, order: Order) -> None:
        """Take a task in. Raises :class:`GTaskmanError` for one that is refused."""

    def attach(self, guest: Guest, number: int, wanted: Attach) -> None:
        """Tell the guest how a task ends that it did not send; waits until it does."""

    def follow(self, guest: Guest, number: int, task_id: str) -> None:
        """The guest wants to know how far a task of its is, from now on."""

    def leave(self, guest: Guest, ids: dict[int, str], cancel: bool) -> None:
        """The guest has gone; these tasks go on, or are cancelled. Returns at once."""

    def ebb(self) -> Latch | None:
        """While more waits than may, what opens when less does; else None."""

    def answer(self, question: Question, native: bool) -> Any:
        """The answer, or a list of :class:`Told`. Raises :class:`GTaskmanError`."""


class Desk(Counter):
    """The counter of a manager with a queue in memory."""

    durable = False
    namespace = ""

    def __init__(self, manager: TaskManager) -> None:
        self._manager = manager
        self._definitions: dict[bytes, Definition] = {}
        self._reader = Reader("jm", None, "", TASK_LIMIT)
        self._answers: dict[str, Callable[..., Any]] = {
            "cancel": manager.cancel,
            "report": self._report,
            "find": self._find,
            "count": self._count,
            "stats": manager.stats,
            "info": manager.queue.info,
            "pause": lambda _queue: manager.pause(),
            "resume": lambda _queue: manager.resume(),
            "dead": lambda offset, limit, _queue: manager.dead(offset, min(limit, MOST_FOUND)),
            "retry": lambda task_id: manager.retry(task_id) is not None,
            "delete": self._delete,
            "names": lambda _queue: {name: each.kind for name, each in registry.items()},
        }

    def native(self, trusted: bool) -> bool:
        return trusted

    # --- tasks

    def define(self, body: bytes) -> Definition:
        known = self._definitions.get(body)
        if known is None:
            if len(self._definitions) >= _KEPT:
                self._definitions.clear()
            known = self._definitions[body] = _definition(unpack_code(body))
        return known

    def submit(self, guest: Guest, number: int, flags: int, order: Order) -> None:
        sealed = order.payload.flags & SEALED
        job = self._unsealed(order) if sealed else self._native(guest, flags, order)
        if order.terms is not None:
            job.put_under(order.terms, order.unique)
        job.handle = Reply(job, self._manager, guest, number)
        self._manager.take_in(job)

    def _native(self, guest: Guest, flags: int, order: Order) -> GuestJob:
        job = GuestJob(order.id, guest.definition(order.target), order.payload)
        job.flags = flags & CHUNK
        return job

    def _unsealed(self, order: Order) -> GuestJob:
        read = self._reader.read(order.id, bytes(order.payload.body))
        if isinstance(read, str):
            raise EnvelopeError(read)
        sealed, definition = read
        job = GuestJob(order.id, definition, order.payload)
        if sealed.options.get("chunk"):
            job.flags = CHUNK
        return job

    def attach(self, guest: Guest, number: int, wanted: Attach) -> None:
        handle = self._manager.handle(wanted.id)
        if handle is None:
            report = self._manager.storage.report(wanted.id)
            if report is None or not report.finished:
                raise GTaskmanError(f"the manager knows no task {wanted.id!r} (any more)")
            guest.tell_end(number, report, None)
        elif isinstance(handle, Reply) and handle.guest.gone:
            handle.guest, handle.number = guest, number
            guest.tell_progress(number, handle.report)
        else:
            self._follow(guest, number, handle)

    def _follow(self, guest: Guest, number: int, handle: TaskHandle) -> None:
        self.follow(guest, number, handle.id)
        for report in handle.progress():
            if guest.gone:
                return
            if report.finished:
                guest.tell_end(number, report, handle.portable_exception)
            else:
                guest.tell_progress(number, report)
            guest.flush()

    def follow(self, guest: Guest, number: int, task_id: str) -> None:
        handle = self._manager.handle(task_id)
        if handle is not None and ((report := handle.report).message or report.completed):
            guest.tell_progress(number, report)  # where it is by now

    def ebb(self) -> Latch | None:
        return self._manager.ebb()

    def leave(self, guest: Guest, ids: dict[int, str], cancel: bool) -> None:  # noqa: ARG002
        for task_id in list(ids.values()) if cancel else ():
            self._manager.cancel(task_id, ORPHANED)

    # --- questions

    def answer(self, question: Question, native: bool) -> Any:
        return answered(self._answers, question, native)

    def _report(self, task_id: str) -> list[Report]:
        found = self._manager.report(task_id)
        return [] if found is None else [found]

    def _find(
        self,
        status: TaskStatus | None,
        finished: bool | None,
        offset: int,
        limit: int,
        _queue: str | None,
    ) -> list[Report]:
        return self._manager.storage.find(status, finished, offset, min(limit, MOST_FOUND))

    def _count(self, status: TaskStatus | None, finished: bool | None, _queue: str | None) -> int:
        return self._manager.storage.count(status, finished)

    def _delete(self, task_id: str) -> bool:
        # What waits or runs is asked to stop first: a report is not all that there is of it.
        if self._manager.handle(task_id) is not None:
            return False
        return self._manager.storage.delete(task_id)


# What the arguments of each question must be: they come from another process.
_Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
_ARGUMENTS: dict[str, Any] = {
    "cancel": tuple[str, str | None],
    "report": tuple[str],
    "find": tuple[TaskStatus | None, bool | None, _Count, _Count, str | None],
    "count": tuple[TaskStatus | None, bool | None, str | None],
    "stats": tuple[()],
    "info": tuple[()],
    "pause": tuple[str | None],
    "resume": tuple[str | None],
    "dead": tuple[_Count, _Count, str | None],
    "retry": tuple[str],
    "delete": tuple[str],
    "names": tuple[str | None],
}


def answered(known: dict[str, Callable[..., Any]], question: Question, native: bool) -> Any:
    """What the function of that name answers; reports as they are told.

    Raises :class:`GTaskmanError` for a question that there is not, or with the wrong arguments.
    """
    ask = known.get(question.name)
    if ask is None:
        raise GTaskmanError(f"this manager knows no question {question.name[:80]!r}: is it older?")
    try:
        args = msgspec.convert(question.args, _ARGUMENTS[question.name])
    except msgspec.ValidationError as error:
        raise GTaskmanError(f"the arguments of {question.name!r} are wrong: {error}") from None
    found = ask(*args)
    return [told(each, None, native) for each in found] if isinstance(found, list) else found


def told(report: Report, exception: bytes | None, native: bool) -> Told:
    """What a process is told of a report: its result as it came, if the process may read it."""
    if report.status is not TaskStatus.COMPLETED:
        return Told(report, None, exception if native else None)
    result = report.result
    if not isinstance(result, Payload):
        result = _encoded(report, native)
    elif not native and not result.flags & (SEALED | EMPTY):
        result = None  # a pickle: it is for processes of our own user alone
    return Told(msgspec.structs.replace(report, result=None), result)


def _encoded(report: Report, native: bool) -> Payload | None:
    """The result of a task of our own process."""
    try:
        if native or report.result is None:
            return encode_value(report.result, 1 << 62)
        definition = registry.get(report.name)
        hints = Hints.of(definition.target) if definition is not None else None
        return Payload(SEALED, seal_result(report.result, hints=hints), ())
    except PayloadError:
        return None


def _definition(code: Code) -> Definition:
    reference = Reference(code.module, code.path, code.value)
    definition = Definition(
        name=code.name,
        kind=code.kind,
        target=Elsewhere(reference),
        timeout=code.timeout,
        soft_timeout=code.soft_timeout,
        retries=code.retries,
        max_crashes=code.max_crashes,
        at_most_once=code.at_most_once,
        backoff=code.backoff,
    )
    if definition.kind == "service":
        raise TaskDefinitionError(f"{code.name} is a service, which runs for ever")
    definition.flags = code.flags
    return definition
