"""Reports in Redis: those of managers with a queue of their own, and those of a queue in Redis."""

from __future__ import annotations

import functools
import logging
import os
import secrets
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import gevent
import msgspec

from gtaskman.envelope import RESULT_LIMIT, Keyring, read_result, seal_result, sign_result
from gtaskman.errors import PayloadError
from gtaskman.redis import scripts
from gtaskman.redis.address import Address
from gtaskman.redis.keys import storage_base
from gtaskman.redis.ledger import INDEXES, Ledger, find, find_among
from gtaskman.redis.record import (
    LETTERS,
    Decoder,
    Record,
    body_of,
    end_of,
    reading_of,
    record_of,
)
from gtaskman.redis.server import Server
from gtaskman.report import Report, TaskStatus
from gtaskman.storages.base import TaskStorage, statuses

log = logging.getLogger(__name__)

DAY = 86400.0
LEASE = 60.0  # seconds after which the open reports of a manager that died are given up
_LEASE_MS = int(LEASE * 1000)


class RedisTaskStorage(TaskStorage):
    """Reports that outlive their process, and that others can read.

    ``server`` is a URL, or a :class:`Server` of the thread that uses the storage; ``name`` tells
    several storages of one namespace apart. Finished tasks are kept for ``ttl`` seconds. Results
    travel in envelopes of ``codec``, signed with ``keyring`` if there is one; a result that these
    cannot carry, or of more than ``limit`` bytes, is left out, and logged.
    Raises :class:`ConfigurationError`.
    """

    waits = True

    def __init__(
        self,
        server: Server | str,
        name: str = "default",
        *,
        namespace: str | None = None,
        ttl: float = 7 * DAY,
        codec: str = "m",
        keyring: Keyring | None = None,
        limit: int = RESULT_LIMIT,
    ) -> None:
        self._servers = _Servers(server)
        self._base = storage_base(namespace or self._servers.address.namespace, name)
        self._keep = int(ttl * 1000)
        self._codec = codec
        self._keyring = keyring
        self._limit = limit
        self._attended = False
        self._name = (0, "")  # of the process that writes
        self._tending: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()

    @staticmethod
    def of(ledger: Ledger, decoder: Decoder | None = None) -> TaskStorage:
        """The records of a queue in Redis, read as a storage; the queue writes them itself.

        ``decoder`` makes a value of a record's result; unsigned JSON and MessagePack are read
        without one.
        """
        if decoder is None:
            decoder = functools.partial(_unsigned, ledger.base)
        read = functools.partial(_read_with, decoder)
        return _QueueView([ledger], read)

    @staticmethod
    def of_queues(ledgers: Sequence[Ledger], read: Callable[[Record, str], Report]) -> TaskStorage:
        """The records of several queues; ``read`` makes a report of one and its queue's name."""
        return _QueueView(ledgers, read)

    def __repr__(self) -> str:
        return f"<RedisTaskStorage {self._base}>"

    def insert(self, report: Report) -> None:
        self._store(report, True)

    def update(self, report: Report) -> bool:
        return self._store(report, False)

    def cancel(self, task_id: str, reason: str = "") -> Report | None:
        known = self.report(task_id)
        while known is not None and not known.finished:
            cancelled = msgspec.structs.replace(
                known,
                status=TaskStatus.CANCELLED,
                message=reason,
                finished_at=time.time(),
                revision=known.revision + 1,
            )
            if self.update(cancelled):
                return cancelled
            known = self.report(task_id)  # it has gone on meanwhile
        return None

    def delete(self, task_id: str) -> bool:
        return bool(self._script(scripts.DELETE, task_id, 1))

    def expire(self, task_id: str, seconds: float) -> None:
        self._script(scripts.KEEP, task_id, int(seconds * 1000))

    def report(self, task_id: str) -> Report | None:
        reply = self._script(scripts.SHOW, task_id)
        return self._read(record_of(*reply)) if reply else None

    def find(
        self,
        status: TaskStatus | None = None,
        finished: bool | None = None,
        offset: int = 0,
        limit: int = 50,
    ) -> list[Report]:
        indexes = [index for letter in _letters(status, finished) for index in INDEXES[letter]]
        if not indexes:
            return []
        self._script(scripts.TEND, "", _LEASE_MS)
        found = find(self._servers.here(), self._base, indexes, offset, limit)
        return [self._read(record) for record in found]

    def count(self, status: TaskStatus | None = None, finished: bool | None = None) -> int:
        self._script(scripts.TEND, "", _LEASE_MS)
        reply = self._script(scripts.COUNTS)
        by_status = dict(zip("WPCFX", (reply[0], *reply[4:8]), strict=True))
        return sum(by_status[letter] for letter in _letters(status, finished))

    def close(self) -> None:
        """Let go of the connections that it opened itself; it may be used again."""
        tending = self._tending.pop(gevent.get_hub(), None)
        if tending is not None:
            tending.kill(block=False)
        self._servers.close()

    def _store(self, report: Report, insert: bool) -> bool:
        request = secrets.token_hex(4)  # one that is sent again is known by it
        head = (report.id, LETTERS[report.status], report.name, report.kind, report.revision)
        body = body_of(end_of(report), self._sealed(report))
        owner = self._owner()
        created = max(0, int(report.created_at * 1000))
        args = (request, int(insert), *head, self._keep, body, created, owner, _LEASE_MS)
        kept = bool(self._script(scripts.STORE, *args))
        if owner and not report.finished:
            self._tend()
        return kept

    def attend(self) -> None:
        self._attended = True

    def _owner(self) -> str:
        """Our name as a writer, another one in each process; "" if no manager is behind us."""
        if not self._attended:
            return ""
        if self._name[0] != os.getpid():
            self._name = (os.getpid(), secrets.token_hex(9))
            self._tending = weakref.WeakKeyDictionary()
        return self._name[1]

    def _tend(self) -> None:
        """Have the lease renewed while we have open reports."""
        hub = gevent.get_hub()
        if not self._tending.get(hub):
            self._tending[hub] = gevent.spawn(_keep_tending, weakref.ref(self))

    def renew(self) -> bool:
        """Renew the lease; gives whether there are open reports left. For :meth:`attend`."""
        return bool(self._script(scripts.TEND, self._owner(), _LEASE_MS))

    def _sealed(self, report: Report) -> bytes:
        if report.status is not TaskStatus.COMPLETED:
            return b""
        try:
            return self._signed(report, report.result)
        except PayloadError as error:
            log.warning("the result of task %s is not kept: %s", report.id, error)
            return self._signed(report, None)

    def _signed(self, report: Report, result: Any) -> bytes:
        if result is None and self._keyring is None:
            return b""
        data = seal_result(result, codec=self._codec, limit=self._limit)
        return sign_result(
            data, self._keyring, queue=self._base, task_id=report.id, name=report.name
        )

    def _read(self, record: Record) -> Report:
        return reading_of(record, self._result).report

    def _result(self, record: Record) -> Any:
        return read_result(
            record.result,
            accept=self._codec,
            keyring=self._keyring,
            queue=self._base,
            task_id=record.id,
            name=record.name,
            limit=self._limit + 1024,  # a signature comes on top
        )

    def _script(self, script: scripts.Script, *args: Any) -> Any:
        return self._servers.here().script(script, self._base, *args)


def _keep_tending(ref: weakref.ref[RedisTaskStorage]) -> None:
    while True:
        gevent.sleep(LEASE / 4)
        storage = ref()
        if storage is None:
            return
        try:
            if not storage.renew():
                return
        except Exception as error:
            log.warning("the lease of open reports could not be renewed: %s", error)
        del storage


class _Servers:
    """The server that was given, or one for each native thread that comes by."""

    def __init__(self, server: Server | str) -> None:
        self._given = server if isinstance(server, Server) else None
        self.address = server.address if isinstance(server, Server) else Address.of(server)
        self._made: weakref.WeakKeyDictionary[Any, Server] = weakref.WeakKeyDictionary()

    def here(self) -> Server:
        if self._given is not None:
            return self._given
        hub = gevent.get_hub()
        server = self._made.get(hub)
        if server is None:
            server = self._made[hub] = Server(self.address)
        return server

    def close(self) -> None:
        server = self._made.pop(gevent.get_hub(), None)
        if server is not None:
            server.close()


class _QueueView(TaskStorage):
    """What queues keep of their tasks. What it is told it knows already, from the queues."""

    def __init__(self, ledgers: Sequence[Ledger], read: Callable[[Record, str], Report]) -> None:
        self._ledgers = ledgers
        self._report_of = read

    def __repr__(self) -> str:
        return f"<RedisTaskStorage of {', '.join(map(repr, self._ledgers))}>"

    def insert(self, report: Report) -> None:
        pass

    def update(self, report: Report) -> bool:  # noqa: ARG002 - see above
        return False

    def cancel(self, task_id: str, reason: str = "") -> Report | None:
        for ledger in self._ledgers:
            record = ledger.record(task_id)
            if record is not None and record.status in ("W", "P"):
                asked = ledger.cancel(task_id, reason) in ("X", "P")
                return self._read(ledger, task_id) if asked else None
        return None

    def delete(self, task_id: str) -> bool:
        return any(ledger.delete(task_id) for ledger in self._ledgers)

    def report(self, task_id: str) -> Report | None:
        for ledger in self._ledgers:
            report = self._read(ledger, task_id)
            if report is not None:
                return report
        return None

    def _read(self, ledger: Ledger, task_id: str) -> Report | None:
        record = ledger.record(task_id)
        return None if record is None else self._report_of(record, ledger.queue)

    def find(
        self,
        status: TaskStatus | None = None,
        finished: bool | None = None,
        offset: int = 0,
        limit: int = 50,
    ) -> list[Report]:
        found = find_among(self._ledgers, _letters(status, finished), offset, limit)
        return [self._report_of(record, ledger.queue) for ledger, record in found]

    def count(self, status: TaskStatus | None = None, finished: bool | None = None) -> int:
        letters = _letters(status, finished)
        every = [ledger.counts() for ledger in self._ledgers]
        return sum(counts.of(letter) for counts in every for letter in letters)


def _read_with(decoder: Decoder, record: Record, _queue: str) -> Report:
    return reading_of(record, decoder).report


def _unsigned(scope: str, record: Record) -> Any:
    return read_result(record.result, queue=scope, task_id=record.id)


def _letters(status: TaskStatus | None, finished: bool | None) -> str:
    return "".join(LETTERS[each] for each in statuses(status, finished))
