"""``HostClient``: what ``Client("unix:///path.sock")`` is: it uses the manager of this host.

::

    submit -> encode -> link == socket ==> manager -> worker
    handle <- decode <- connection <=======

To a manager of our own user, tasks go as they go to a worker: any function, with arguments as
pickle. To one of another user, and to one with a queue on a server, they go in envelopes, by their
names, as they would to that server.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable
from typing import Any

from gtaskman.client import Client
from gtaskman.definitions import Definitions
from gtaskman.distant import RemoteHandle
from gtaskman.envelope import Hints, Keyring, read_result
from gtaskman.errors import (
    ConfigurationError,
    DuplicateTaskError,
    PayloadError,
    ServerUnavailable,
    TaskDefinitionError,
)
from gtaskman.host import messages
from gtaskman.host.address import SocketAddress
from gtaskman.host.connection import Answer, Connection
from gtaskman.host.handle import HostHandle, HostTicket
from gtaskman.host.link import Link
from gtaskman.host.messages import SAY, Code, Told
from gtaskman.queues.sending import Call, Sealer
from gtaskman.reference import refer_abroad
from gtaskman.report import Report, TaskStatus
from gtaskman.task import Definition, Task, TaskFunction, fresh_id, registry
from gtaskman.terms import DEFAULT, Terms
from gtaskman.wire.messages import CHUNK, SEALED, payload_limit
from gtaskman.wire.payload import NOTHING, Payload, encode_arguments

_STEP = 200  # reports that are asked for at once


class HostClient(Client):
    """Uses the manager that listens at a path of this host; see :class:`Client`.

    ``url`` is ``unix:///path``. One connection is enough for all threads of the process. Calls
    wait ``patience`` seconds for a manager that is away. ``queue``, ``codec`` and ``keyring`` are
    for a manager with a queue on a server, or of another user: for tasks that go in envelopes.
    """

    def __init__(
        self,
        url: str | SocketAddress,
        *,
        queue: str = "default",
        namespace: str | None = None,
        patience: float | None = 30.0,
        codec: str = "json",
        keyring: Keyring | None = None,
        replies: bool = True,
        wait_replicas: int = 0,
        credentials: Any = None,
    ) -> None:
        if namespace is not None or not replies or wait_replicas or credentials is not None:
            raise ConfigurationError(
                "namespace, replies, wait_replicas and credentials are for servers: leave them out"
                " with the URL of a socket",
                "url",
            )
        self.socket = url if isinstance(url, SocketAddress) else SocketAddress.parse(url)
        self.queue = queue
        self._patience = patience
        self._sealer = Sealer(codec, keyring)
        self._keyring = keyring
        self._definitions = Definitions()
        self._options = {}
        self._link: Link | None = None
        self._made: dict[str, Link] = {}

    # --- sending

    def submit(self, task: Any, /, *args: Any, **kwargs: Any) -> RemoteHandle:
        """Send a task: a task function or any callable with its arguments, or a task object.

        Returns at once: should the manager refuse the task, that ends its handle. With an id of
        the caller's own, or a ``unique`` key, it returns when the manager has taken it in, and
        raises :class:`DuplicateTaskError` here. It waits cooperatively for a manager that is away
        (:class:`ServerUnavailable`), and while this process has as much on its way as it may.
        """
        return self._await_taken(self._hand_over(task, args, kwargs))

    def submit_many(self, tasks: Iterable[Task]) -> list[RemoteHandle]:
        """Send many task objects; returns when all are sent. Raises as :meth:`submit`, for the
        first one that is refused; the others stay sent."""
        handles = [self._hand_over(task, (), {}) for task in tasks]
        return [self._await_taken(handle) for handle in handles]

    def _hand_over(self, task: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> HostHandle:
        """Send a task, and do not wait."""
        connection = self._connection()
        if not connection.native:
            return self._send(self._of(task, args, kwargs))
        if type(task) is TaskFunction:
            task.check(args, kwargs)
            return self._submit(connection, fresh_id(), task.definition, args, kwargs, task.terms)
        call = self._definitions.call(task, args, kwargs)
        return self._submit(connection, *call, named=isinstance(task, Task) and _is_named(task.id))

    def submit_chunk(self, function: Any, items: list[Any]) -> RemoteHandle:
        """Send one chunk of a :meth:`map`."""
        connection = self._connection()
        if not connection.native:
            return super().submit_chunk(function, items)
        definition, carried = self._definitions.of(function)
        terms = function.terms if isinstance(function, TaskFunction) else DEFAULT
        args = (*carried, items)
        return self._await_taken(
            self._submit(connection, fresh_id(), definition, args, {}, terms, CHUNK)
        )

    @property
    def parallel(self) -> int:
        """How many workers the manager may have."""
        return self._connection(closing=True).welcome.parallel

    def _submit(
        self,
        connection: Connection,
        task_id: str,
        definition: Definition,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        terms: Terms,
        flags: int = 0,
        named: bool = False,
    ) -> HostHandle:
        """Send a task with its code; ``named`` is whether others may have its id."""
        if definition.number not in connection.codes:
            self._describe(connection, definition)
        payload, under, unique = NOTHING, None, ""
        if args or kwargs:
            payload = self._encode(connection, definition, args, kwargs)
        if terms is not DEFAULT:
            under, unique = terms, definition.unique_key(terms.unique, args, kwargs)
        ticket = HostTicket(task_id, definition.name, definition.kind, self.queue, self.report)
        target = connection.codes[definition.number]
        body = messages.submit_body(target, task_id, under, unique)
        return self._post(connection, ticket, flags, body, payload, bool(unique) or named)

    def _encode(
        self,
        connection: Connection,
        definition: Definition,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Payload:
        try:
            return encode_arguments(args, kwargs, payload_limit(connection.welcome.max_frame))
        except PayloadError as error:
            raise PayloadError(
                f"the arguments of {definition.name} cannot travel: {error}"
            ) from error.__cause__

    def _describe(self, connection: Connection, definition: Definition) -> None:
        """Say what the code of a definition is."""
        if definition.kind == "service":
            raise TaskDefinitionError(
                f"{definition.name} is a service, which runs for ever: give it to a ServiceManager"
            )
        module, path, value = refer_abroad(definition)
        code = Code(
            definition.name,
            definition.kind,
            definition.flags,
            module,
            path,
            value,
            definition.timeout,
            definition.soft_timeout,
            definition.retries,
            definition.max_crashes,
            definition.at_most_once,
            definition.backoff,
        )
        self._here().ask_home(lambda: connection.know(definition.number, messages.pack(code)))

    def _post(
        self,
        connection: Connection,
        ticket: HostTicket,
        flags: int,
        body: bytes,
        payload: Payload,
        say: bool,
    ) -> HostHandle:
        """Send what is ready to be sent; with ``say``, have it said whether it was taken in."""
        link = self._here()
        while (ebb := connection.room()) is not None:
            ebb.wait()
        if ticket.id in connection.ids:
            raise DuplicateTaskError(ticket.id)
        handle = HostHandle(ticket, self, link)
        handle.number = number = link.number()
        handle.sent = True
        if payload is not NOTHING:
            handle.cost = payload.size
        if say:
            flags |= SAY
            handle.word = connection.answers[number] = Answer()
            if connection.welcome.durable:
                handle.resend = functools.partial(link.resend, handle, flags, body, payload)
        connection.claim(handle)
        link.submit(connection, handle, flags, body, payload)
        return handle

    def _await_taken(self, handle: HostHandle) -> HostHandle:
        """Wait until it was said that a task was taken in, if that is to be said."""
        word = handle.word
        if word is None:
            return handle
        if not word.wait(self._patience) or word.lost:
            raise ServerUnavailable(
                f"the manager at {self.socket} has not said within {self._patience} s whether it"
                f" takes task {handle.id}: it may run, or not"
            )
        if word.error is not None:
            raise word.error
        handle.word = None
        return handle

    # --- sending by names, in envelopes

    def _send(self, call: Call) -> HostHandle:
        """Send a task by its name, and do not wait."""
        connection = self._connection()
        queue = self._queue_of(call.terms) if connection.welcome.durable else ""
        scope = messages.scope(connection.welcome, queue)
        envelope = self._sealer.entry(call, scope, "").envelope
        ticket = HostTicket(call.id, call.name, call.kind, queue, self.report)
        terms = call.terms.replace(queue=queue or DEFAULT.queue)
        body = messages.submit_body(0, call.id, terms, call.unique)
        payload = Payload(SEALED, envelope, ())
        return self._post(connection, ticket, 0, body, payload, True)

    def _names(self, queue: str) -> dict[str, str]:
        found: dict[str, str] = self._ask("names", queue)
        return found

    def _unknown_name(self, terms: Terms, name: str, kinds: dict[str, str]) -> str:  # noqa: ARG002
        known = ", ".join(sorted(kinds)) or "none"
        return f"the manager at {self.socket} has no task named {name!r} (it has: {known})"

    def _send_call(self, call: Call) -> RemoteHandle:
        return self._await_taken(self._send(call))

    # --- asking

    def _ask(self, question: str, *args: Any, task_id: str | None = None) -> Any:
        return self._here().ask(question, *args, task_id=task_id)

    def _ask_for_reports(self, question: str, *args: Any, task_id: str | None = None) -> Any:
        link = self._here()
        found: list[Told] = link.ask(question, *args, task_id=task_id)
        read = self._connection(closing=True).read_told
        return [read(told, self.queue).report for told in found]

    def cancel(self, task_id: str, reason: str | None = None) -> bool:
        """Ask a task to stop, whether it waits or runs; False if there is none that does."""
        return bool(self._ask("cancel", task_id, reason, task_id=task_id))

    def cancel_in(self, queue: str, task_id: str, reason: str | None = None) -> bool:  # noqa: ARG002
        """:meth:`cancel`: the manager knows its tasks by their ids."""
        return self.cancel(task_id, reason)

    def report_in(self, queue: str, task_id: str) -> Report | None:  # noqa: ARG002 - likewise
        """:meth:`report`: the manager knows its tasks by their ids."""
        return self.report(task_id)

    def report(self, task_id: str) -> Report | None:
        """How a task stands, or None if the manager does not know it (any more)."""
        found = self._ask_for_reports("report", task_id, task_id=task_id)
        return found[0] if found else None

    def handle(self, task_id: str) -> RemoteHandle | None:
        """A handle of a task that somebody sent, or None if the manager does not know it."""
        found = self.report(task_id)
        if found is None:
            return None
        ticket = HostTicket(task_id, found.name, found.kind, self.queue, self.report)
        ticket.created_at = found.created_at
        handle = HostHandle(ticket, self, self._here())
        self._here().attend(handle)
        return handle

    def find(
        self,
        status: TaskStatus | None = None,
        finished: bool | None = None,
        offset: int = 0,
        limit: int = 50,
        *,
        queue: str | None = None,
    ) -> list[Report]:
        """Reports with this status, or ended (True) or not (False), in order of submission."""
        value = None if status is None else status.value
        return self._step(offset, limit, "find", (value, finished), queue)

    def _step(
        self, offset: int, limit: int, question: str, first: tuple[Any, ...], queue: str | None
    ) -> list[Report]:
        """Ask for many reports, some at a time."""
        found: list[Report] = []
        while len(found) < limit:
            count = min(_STEP, limit - len(found))
            more = self._ask_for_reports(question, *first, offset + len(found), count, queue)
            found += more
            if len(more) < count:
                break
        return found

    def count(
        self,
        status: TaskStatus | None = None,
        finished: bool | None = None,
        *,
        queue: str | None = None,
    ) -> int:
        """How many tasks :meth:`find` would find without a limit."""
        value = None if status is None else status.value
        return int(self._ask("count", value, finished, queue))

    def stats(self) -> dict[str, dict[str, int]]:
        """The manager's numbers; see :meth:`TaskManager.stats`."""
        found: dict[str, dict[str, int]] = self._ask("stats")
        return found

    def info(self) -> dict[str, Any]:
        """What there is to know of the manager's queue; see :meth:`TaskQueue.info`."""
        found: dict[str, Any] = self._ask("info")
        return found

    # --- steering

    def pause(self, queue: str | None = None) -> None:
        """Let no task begin until :meth:`resume`; those that run go on."""
        self._ask("pause", queue)

    def resume(self, queue: str | None = None) -> None:
        """Take a :meth:`pause` back."""
        self._ask("resume", queue)

    def dead(self, offset: int = 0, limit: int = 50, *, queue: str | None = None) -> list[Report]:
        """The last reports of tasks that failed for good, while they are kept."""
        return self._step(offset, limit, "dead", (), queue)

    def retry(self, task_id: str) -> RemoteHandle | None:
        """Send a dead task back: it waits again, as if it were new.

        Gives its new handle, or None if no such task is dead. Raises
        :class:`DuplicateTaskError` if another task holds its unique key.
        """
        return self._known(task_id) if self._ask("retry", task_id) else None

    def delete(self, task_id: str) -> bool:
        """Forget a task that does not run; gives whether there was one."""
        return bool(self._ask("delete", task_id))

    # --- life

    def close(self) -> None:
        """Let go of the manager, when it has taken what was sent; who calls next, or still waits,
        connects again."""
        link, self._link, self._made = self._link, None, {}
        if link is not None:
            for handle in link.close():
                handle.attended_anew(self._here())

    def attendant(self) -> Link:  # type: ignore[override] # this process has one for all threads
        """Who tells handles of this process how their tasks end."""
        return self._here()

    def open_sealed(self, report: Report, data: bytes, queue: str) -> Any:
        """The value of a result in an envelope. Raises :class:`PayloadError`."""
        definition = registry.get(report.name)
        return read_result(
            data,
            Hints.of(definition.target) if definition is not None else None,
            accept="jmp" if self._keyring is not None else "jm",
            keyring=self._keyring,
            queue=queue,
            task_id=report.id,
            name=report.name,
            limit=sys.maxsize,
        )

    def _here(self) -> Link:
        """The link of this process."""
        link = self._link
        return link if link is not None and not link.forked else self._make_link()

    def _make_link(self) -> Link:
        """Make one; of several threads that come first, one does."""
        made = Link(self.socket, self._patience, self)
        found = self._made.setdefault("link", made)
        if found.pid != made.pid:  # this is a fork, in which there is one thread
            found = self._made["link"] = made
        if found is made:
            made.settle()
        else:
            found.settled.wait()
        self._link = found
        return found

    def _connection(self, closing: bool = False) -> Connection:
        link = self._here()
        found = link.connection
        if found is not None and not found.closing and not found.closed:
            return found
        return link.connect(self._patience, closing)

    def __repr__(self) -> str:
        return f"<Client {self.socket}>"


def _is_named(task_id: str) -> bool:
    """Whether an id was chosen by the caller, so that others may have chosen it too."""
    return task_id.partition("-")[0] != fresh_id().partition("-")[0]
