"""``Client``: for processes that only send tasks and ask how they stand.

::

    submit -> seal -> enqueue            handle <- reply channel <- whoever settled the task

It works in patched and unpatched processes, from any native thread (each has a line of its own)
and after a fork. It runs nothing, and never imports the manager.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import os
import sys
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, NamedTuple

import gevent
import msgspec
from gevent.hub import get_hub

from gtaskman import mapping
from gtaskman.backoff import Backoff
from gtaskman.distant import Reading, RemoteHandle, Ticket
from gtaskman.envelope import Hints, Keyring, read_result
from gtaskman.errors import (
    TaskDefinitionError,
    TaskOptionError,
    TaskTravelError,
    WaitTimeout,
)
from gtaskman.places import is_socket
from gtaskman.queues.sending import Call, Sealer, check_entered, send_back
from gtaskman.redis.address import Address
from gtaskman.redis.keys import queue_base
from gtaskman.redis.ledger import Entry, Ledger, find_among
from gtaskman.redis.line import Line
from gtaskman.redis.record import KINDS, LETTERS, STATUSES, Record, reading_of
from gtaskman.report import Failure, FailureKind, Report, TaskStatus
from gtaskman.storages.base import statuses
from gtaskman.task import LIMITS, Definition, Task, TaskFunction, fresh_id, registry
from gtaskman.terms import DEFAULT, Terms

_MAP_WORKERS = 16
_KEPT = 1024  # definitions whose limits are remembered
_BATCH = 128  # tasks that one command sends


class Client:
    """Sends tasks to a queue on a server, and asks how they stand.

    ``url`` is that of the server, or a ``redis.Redis`` whose settings are taken over (a connection
    of our own is made with them). ``credentials`` is asked at each new connection for a password,
    or a user and a password: a callable, or a credential provider of redis-py. ``queue`` is the
    queue for tasks that name none. Calls wait
    ``patience`` seconds for a server that is away (for ever if None), then raise
    :class:`ServerUnavailable`. ``codec`` is ``"json"``, ``"msgpack"`` or, with a ``keyring``,
    ``"pickle"``; a keyring signs whatever is sent. With ``replies=False`` nobody is told of a
    task's end until somebody waits for it: for processes that send and never ask. A task counts
    as sent when ``wait_replicas`` replicas of the server have it too, which costs another trip and
    makes it survive a failover.

    With the URL of a Unix socket, ``unix:///path``, it uses the manager of this host that listens
    there; see :mod:`gtaskman.host`.

    Raises :class:`ConfigurationError` for a URL that leads nowhere. Nothing is opened before the
    first call.
    """

    def __new__(cls, url: Any = None, *_args: Any, **_more: Any) -> Client:
        _import_what_hubs_need()
        # By name: that room can be taken away, and stands above us.
        if cls is Client and is_socket(url):
            room = importlib.import_module("gtaskman.host.client")
            made: Client = object.__new__(room.HostClient)
            return made
        return object.__new__(cls)

    def __init__(
        self,
        url: Any,
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
        self.address = Address.of(url, credentials)
        self.namespace = namespace or self.address.namespace
        self.queue = queue
        self._patience = patience
        self._sealer = Sealer(codec, keyring)
        self._keyring = keyring
        self._replies = replies
        self._replicas = wait_replicas
        self._lines: weakref.WeakKeyDictionary[Any, Line] = weakref.WeakKeyDictionary()
        self._pid = os.getpid()
        self._requests = itertools.count(1)
        self._nonce = os.urandom(8).hex()
        self._options: dict[int, dict[str, Any]] = {}

    # --- sending

    def submit(self, task: Any, /, *args: Any, **kwargs: Any) -> RemoteHandle:
        """Send a task: a task function with its arguments, or a task object.

        Returns when the server has it. Raises :class:`TaskOptionError`, :class:`TaskTravelError`,
        :class:`PayloadError`, :class:`DuplicateTaskError` or :class:`ServerUnavailable`.
        """
        return self._send(self._of(task, args, kwargs))

    def submit_many(self, tasks: Iterable[Task]) -> list[RemoteHandle]:
        """Send many task objects, some hundred with each command; returns when all are sent.

        Raises as :meth:`submit`, for the first one that is refused; those before it, and those
        that went with the same command, stay sent.
        """
        line = self._line()
        handles: list[RemoteHandle] = []
        calls = (self._of(task, (), {}) for task in tasks)
        sending: gevent.Greenlet | None = None
        try:
            while batch := list(itertools.islice(calls, _BATCH)):
                parcels = self._pack(line, batch)
                if sending is not None:
                    handles.extend(sending.get())
                # The next ones are packed while the server works on these.
                sending = gevent.Greenlet(self._deliver, line, parcels)
                sending.start()
                gevent.sleep(0)
        finally:
            if sending is not None:
                handles.extend(sending.get())
        return handles

    def send(self, name: str, /, *args: Any, **kwargs: Any) -> RemoteHandle:
        """Send a task by its name alone, for senders that do not have its code.

        Raises :class:`TaskDefinitionError` if no manager has ever served a task of that name in
        this queue: they tell the server which ones they know. :meth:`send_as` does not ask.
        """
        return self.send_under(DEFAULT, name, *args, **kwargs)

    def send_under(self, terms: Terms, name: str, /, *args: Any, **kwargs: Any) -> RemoteHandle:
        """:meth:`send` under other terms, such as a delay."""
        kinds = self._names(self._queue_of(terms))
        if name not in kinds:
            raise TaskDefinitionError(self._unknown_name(terms, name, kinds))
        return self.send_as(kinds[name], terms, name, *args, **kwargs)

    def send_as(
        self, kind: str, terms: Terms, name: str, /, *args: Any, **kwargs: Any
    ) -> RemoteHandle:
        """Send a task by its name, unchecked: no manager need have served it yet.

        ``kind`` is ``"sync"`` or ``"async"``, as in its code. A manager that does not know the
        name fails the task.
        """
        if kind not in ("sync", "async"):
            raise TaskOptionError(f"kind is 'sync' or 'async', not {kind!r:.40}", name)
        unique = terms.unique if isinstance(terms.unique, str) else ""
        return self._send_call(Call(fresh_id(), name, kind, args, kwargs, {}, terms, unique, None))

    def _names(self, queue: str) -> dict[str, str]:
        """The names of tasks that can be run there, with their kinds."""
        return self.ledger(queue).names()

    def _unknown_name(self, terms: Terms, name: str, kinds: dict[str, str]) -> str:
        queue = self._queue_of(terms)
        if not kinds:
            return (
                f"no manager has served the queue {queue!r} (namespace {self.namespace!r}) yet,"
                f" so that it is not known whether {name!r} is sync or async: start one first"
                " (gtaskman run MODULE), or say the kind: Client.send_as('sync', ...), or"
                " gtaskman submit --kind sync"
            )
        known = ", ".join(sorted(kinds))
        return f"no manager of the queue {queue!r} has a task named {name!r} (they have: {known})"

    def _send_call(self, call: Call) -> RemoteHandle:
        return self._send(call)

    def map(
        self,
        function: Callable[[Any], Any],
        iterable: Iterable[Any],
        *,
        chunksize: int | None = None,
        ordered: bool = True,
    ) -> Iterator[Any]:
        """Call ``function`` with each item, in the workers; see :meth:`TaskManager.map`."""
        return mapping.run(self, function, iterable, chunksize, ordered)

    @property
    def parallel(self) -> int:
        """How many workers a :meth:`map` reckons with: nobody knows how many there are."""
        return _MAP_WORKERS

    def submit_chunk(self, function: Any, items: list[Any]) -> RemoteHandle:
        """Send one chunk of a :meth:`map`."""
        call = self._of(function, (items,), {}, check=False)
        return self._send(call._replace(options={**call.options, "chunk": True}))

    def _of(
        self, task: Any, args: tuple[Any, ...], kwargs: dict[str, Any], check: bool = True
    ) -> Call:
        if isinstance(task, TaskFunction):
            if check:
                task.check(args, kwargs)
            task_id = fresh_id()
        elif isinstance(task, Task):
            if args or kwargs:
                raise TaskOptionError(
                    f"{task.definition.name} is a task that was built with its options: submit it"
                    " without further arguments",
                    task.definition.name,
                )
            task_id = task.id
            args, kwargs = task.arguments()
        else:
            raise TaskTravelError(
                f"{task!r:.80} is no task: what goes to other hosts travels by its name alone, so"
                " make it one with @gtaskman.task, or derive it from gtaskman.Task"
            )
        definition, terms = task.definition, task.terms
        options = self._options_of(definition)
        unique = definition.unique_key(terms.unique, args, kwargs)
        return Call(
            task_id,
            definition.name,
            definition.kind,
            args,
            kwargs,
            options,
            terms,
            unique or "",
            definition,
        )

    def _options_of(self, definition: Definition) -> dict[str, Any]:
        """The limits that differ from those under which everybody knows the task."""
        known = self._options.get(definition.number)
        if known is None:
            registered = registry.get(definition.name)
            if registered is None or registered.target is not definition.target:
                raise TaskTravelError(
                    f"{definition.name} is not registered under its name, by which workers on other"
                    " hosts would find it: define it with @gtaskman.task at the top of a module"
                )
            if definition.kind == "service":
                raise TaskDefinitionError(
                    f"{definition.name} is a service, which runs for ever: give it to a"
                    " ServiceManager"
                )
            if len(self._options) >= _KEPT:  # limits that differ with each call
                self._options.clear()
            known = self._options[definition.number] = {
                limit: msgspec.structs.asdict(value) if isinstance(value, Backoff) else value
                for limit in LIMITS
                if (value := getattr(definition, limit)) != getattr(registered, limit)
            }
        return known

    def _send(self, call: Call) -> RemoteHandle:
        line = self._line()
        return self._deliver(line, self._pack(line, [call]))[0]

    def _pack(self, line: Line, calls: list[Call]) -> list[_Parcel]:
        """What is to be enqueued, and the handle of each."""
        parcels = []
        for call in calls:
            queue = self._queue_of(call.terms)
            reply = self._listen(line, queue)
            entry = self._sealer.entry(call, line.ledger(queue).base, reply)
            parcels.append(_Parcel(queue, entry, self._handle(call, queue, line)))
        return parcels

    def _deliver(self, line: Line, parcels: list[_Parcel]) -> list[RemoteHandle]:
        """Enqueue; raises for the first one that is refused."""
        by_queue: dict[str, list[_Parcel]] = {}
        for parcel in parcels:
            by_queue.setdefault(parcel.queue, []).append(parcel)
            if self._replies:
                line.expect(parcel.handle)
        try:
            for queue, batch in by_queue.items():
                request = f"{self._nonce}{next(self._requests):x}"
                entries = [parcel.entry for parcel in batch]
                answers = line.ledger(queue).enqueue(entries, request, self._replicas)
                for parcel, holder in zip(batch, answers, strict=True):
                    line.entered(parcel.handle, holder is not None)
                check_entered(entries, answers)
        finally:
            for parcel in parcels:
                line.entered(parcel.handle)
        return [parcel.handle for parcel in parcels]

    def _listen(self, line: Line, queue: str) -> str:
        """Hear of a queue's tasks; gives the channel for the server to tell of them, or ""."""
        if not self._replies:
            return ""
        line.listen(queue)
        return line.channel(queue)

    # --- asking

    def cancel(self, task_id: str, reason: str | None = None) -> bool:
        """Ask a task to stop, wherever it waits or runs; False if there is none that does."""
        answers = (ledger.cancel(task_id, reason or "") for ledger in self._ledgers())
        return any(answer in ("X", "P") for answer in answers)

    def cancel_in(self, queue: str, task_id: str, reason: str | None = None) -> bool:
        """:meth:`cancel` for a task of which the queue is known, as handles know it."""
        return self.ledger(queue).cancel(task_id, reason or "") in ("X", "P")

    def report(self, task_id: str) -> Report | None:
        """How a task stands, or None if the server does not know it (any more).

        Ids are unique within a queue: the client's own is asked first, then all others.
        """
        found = self._find_one(task_id)
        return None if found is None else self.read(found[1], found[0])

    def report_in(self, queue: str, task_id: str) -> Report | None:
        """:meth:`report` for a task of which the queue is known, as handles know it."""
        record = self.ledger(queue).record(task_id)
        return None if record is None else self.read(record, queue)

    def handle(self, task_id: str) -> RemoteHandle | None:
        """A handle of a task that somebody sent, or None if the server does not know it."""
        found = self._find_one(task_id)
        return None if found is None else self._attach(self.read(found[1], found[0]), found[0])

    def _find_one(self, task_id: str) -> tuple[str, Record] | None:
        """The queue that has a task of this id, and its record."""
        for ledger in self._ledgers():
            record = ledger.record(task_id)
            if record is not None:
                return ledger.queue, record
        return None

    def wait(self, task: Any, timeout: float | None = None) -> Any:
        """Wait until a task (its id, or a handle) has ended; gives its last report.

        Of an iterable of them, a list of reports. Raises ``TimeoutError`` if ``timeout`` seconds
        were too few, and ``KeyError`` for an id that the server does not know.
        """
        if isinstance(task, (str, RemoteHandle)):
            return self._wait([task], timeout)[0]
        return self._wait(list(task), timeout)

    def _wait(self, tasks: list[str | RemoteHandle], timeout: float | None) -> list[Report]:
        handles = [each if isinstance(each, RemoteHandle) else self._known(each) for each in tasks]
        end = None if timeout is None else time.monotonic() + timeout
        for handle in handles:
            left = None if end is None else max(0.0, end - time.monotonic())
            if not handle.wait(left):
                raise WaitTimeout(f"task {handle.id} has not ended within {timeout} s, and goes on")
        return [handle.report for handle in handles]

    def _known(self, task_id: str) -> RemoteHandle:
        found = self.handle(task_id)
        if found is None:
            raise KeyError(f"the server knows no task with the id {task_id!r} (any more)")
        return found

    def find(
        self,
        status: TaskStatus | None = None,
        finished: bool | None = None,
        offset: int = 0,
        limit: int = 50,
        *,
        queue: str | None = None,
    ) -> list[Report]:
        """Reports with this status, or ended (True) or not (False), in order of submission.

        That is by the server's clock, for one ``queue`` or all of them. What cannot be read here
        is a report whose ``message`` says why.
        """
        found = find_among(self._ledgers(queue), _letters(status, finished), offset, limit)
        return [self.read(record, ledger.queue) for ledger, record in found]

    def count(
        self,
        status: TaskStatus | None = None,
        finished: bool | None = None,
        *,
        queue: str | None = None,
    ) -> int:
        """How many tasks :meth:`find` would find without a limit."""
        letters = _letters(status, finished)
        return sum(
            counts.of(letter)
            for counts in (ledger.counts() for ledger in self._ledgers(queue))
            for letter in letters
        )

    def stats(self) -> dict[str, dict[str, int]]:
        """Numbers in the groups ``pool`` (what runs, anywhere) and ``queue`` (what waits)."""
        every = [ledger.counts() for ledger in self._ledgers()]
        owners = sum(ledger.owners() for ledger in self._ledgers())
        shared = {
            "current_processes": owners,
            "max_processes": owners,
            "completed_tasks": sum(each.total_completed for each in every),
            "failed_tasks": sum(each.total_failed for each in every),
            "cancelled_tasks": sum(each.total_cancelled for each in every),
            "total_tasks": sum(each.total_queued for each in every),
        }
        return {
            "pool": {**shared, "current_tasks": sum(each.processing for each in every)},
            "queue": {**shared, "current_tasks": sum(each.waiting for each in every)},
        }

    # --- steering

    def pause(self, queue: str | None = None) -> None:
        """Let no task of the queue begin until :meth:`resume`; those that run go on."""
        self.ledger(queue or self.queue).pause()

    def resume(self, queue: str | None = None) -> None:
        """Take a :meth:`pause` back."""
        self.ledger(queue or self.queue).resume()

    def dead(self, offset: int = 0, limit: int = 50, *, queue: str | None = None) -> list[Report]:
        """The dead-letter list: tasks that have failed for good, while their reports are kept."""
        return self.find(TaskStatus.FAILED, offset=offset, limit=limit, queue=queue)

    def retry(self, task_id: str) -> RemoteHandle | None:
        """Send a task of the dead-letter list back: it waits again, as if it were new.

        Gives its new handle (an old one has ended), or None if no such task is dead. Raises
        :class:`DuplicateTaskError` if another task holds its unique key.
        """
        for ledger in self._ledgers():
            if send_back(ledger, task_id):
                report = self.report_in(ledger.queue, task_id)
                return self._attach(report, ledger.queue) if report is not None else None
        return None

    def delete(self, task_id: str) -> bool:
        """Forget a task that does not run; gives whether there was one."""
        return any(ledger.delete(task_id) for ledger in self._ledgers())

    # --- life

    def stop(self, timeout: float | None = None) -> None:  # noqa: ARG002 - a manager's has one
        """Let go of this thread's connections: what a default manager is asked at its end."""
        self.close()

    def close(self) -> None:
        """Let go of this thread's connections; who calls next, or still waits, opens new ones."""
        line = self._lines.pop(get_hub(), None)
        if line is not None and (waiting := line.close()):
            # Whoever waits for a task goes on waiting: on a new line.
            for handle in waiting:
                handle.attended_anew(self._line())

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def attendant(self) -> Line:
        """Whoever tells handles of this thread how their tasks end."""
        return self._line()

    def ledger(self, queue: str) -> Ledger:
        """The records of a queue, for this thread."""
        return self._line().ledger(queue)

    def _line(self) -> Line:
        if os.getpid() != self._pid:
            # A fork: the connections are the original's.
            self._pid, self._nonce = os.getpid(), os.urandom(8).hex()
            self._lines = weakref.WeakKeyDictionary()
        hub = get_hub()
        line = self._lines.get(hub)
        if line is None:
            line = Line(self.address, self.namespace, self._patience, self._read)
            self._lines[hub] = line
        return line

    def _queue_of(self, terms: Terms) -> str:
        return self.queue if terms.queue == DEFAULT.queue else terms.queue

    def _ledgers(self, queue: str | None = None) -> list[Ledger]:
        line = self._line()
        if queue is not None:
            return [line.ledger(queue)]
        names = [self.queue, *(name for name in line.queues() if name != self.queue)]
        return [line.ledger(name) for name in names]

    def _handle(self, call: Call, queue: str, line: Line) -> RemoteHandle:
        first = Report(call.id, call.name, call.kind, TaskStatus.WAITING, time.time())
        return self._attach(first, queue, line)

    def _attach(self, first: Report, queue: str, line: Line | None = None) -> RemoteHandle:
        attendant = line if self._replies else None
        ask = functools.partial(self.report_in, queue)
        return RemoteHandle(Ticket(first, queue, ask), self, attendant)

    def read(self, record: Record, queue: str) -> Report:
        """The report that a record of a queue stands for, with its result if it can be read."""
        return self._read(record, queue).report

    def _read(self, record: Record, queue: str) -> Reading:
        if record.status not in STATUSES:
            return Reading(_unknown(record))
        return reading_of(record, functools.partial(self._value, queue))

    def _value(self, queue: str, record: Record) -> Any:
        definition = registry.get(record.name)
        return read_result(
            record.result,
            Hints.of(definition.target) if definition is not None else None,
            accept="jmp" if self._keyring is not None else "jm",
            keyring=self._keyring,
            queue=queue_base(self.namespace, queue),
            task_id=record.id,
            name=record.name,
            limit=sys.maxsize,
        )

    def __repr__(self) -> str:
        return f"<Client {self.address} queue={self.queue!r}>"


class _Parcel(NamedTuple):
    """One task on its way to the server."""

    queue: str
    entry: Entry
    handle: RemoteHandle


def _import_what_hubs_need() -> None:
    """The first hubs of several threads would import it all at once, and in a patched process
    wait for each other's import locks for ever."""
    for setting in ("loop", "format_context"):
        getattr(gevent.config, setting)


def _letters(status: TaskStatus | None, finished: bool | None) -> str:
    return "".join(LETTERS[each] for each in statuses(status, finished))


def _unknown(record: Record) -> Report:
    """The last report of a task that the server does not know, or has forgotten."""
    why = "the server knows no such task (any more): its report was kept for as long as was agreed"
    return Report(
        record.id,
        record.name,
        KINDS.get(record.kind, record.kind),
        TaskStatus.FAILED,
        record.created,
        why,
        error=Failure(FailureKind.CRASH, why),
        finished_at=time.time(),
    )
