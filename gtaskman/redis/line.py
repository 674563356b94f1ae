"""``Line``: what one native thread has of a server: its connections and its reply channel.

Handles of this thread are told here how their tasks ended: the script that settles a task
publishes its end on the channel, and one greenlet reads that for all of them. What was published
while nobody could listen is asked for afterwards.
"""

from __future__ import annotations

import functools
import logging
import os
import weakref
from collections.abc import Callable
from typing import Any

import gevent
from gevent.lock import Semaphore

from gtaskman.distant import Reading, RemoteHandle
from gtaskman.errors import GTaskmanError, ServerUnavailable
from gtaskman.redis.address import Address
from gtaskman.redis.keys import client_channel, queues_key
from gtaskman.redis.ledger import Ledger
from gtaskman.redis.outage import Pause
from gtaskman.redis.record import KINDS, Record, parts
from gtaskman.redis.server import Server

log = logging.getLogger(__name__)

_ENDED = "CFX"
_LETTERS = {kind: letter for letter, kind in KINDS.items()}
_LOOK_AGAIN = 30.0  # seconds after which what is waited for is asked for, lest a reply was lost


_Key = tuple[str, str]  # the queue and the id of a task


class Line:
    """One thread's way to the queues of one server."""

    def __init__(
        self,
        address: Address,
        namespace: str,
        patience: float | None,
        read: Callable[[Record, str], Reading],
    ) -> None:
        self._name = os.urandom(9).hex()
        self._server = Server(address, patience=patience)
        self._namespace = namespace
        self._index = queues_key(namespace)
        self._read = read
        self._ledgers: dict[str, Ledger] = {}
        # By queue and id: another queue may have a task of the same id.
        self._awaited: dict[_Key, list[_Awaited]] = {}
        self._entering: set[_Key] = set()  # the server may not have them yet
        self._followed: weakref.WeakSet[RemoteHandle] = weakref.WeakSet()
        self._subscriptions: dict[str, Any] = {}
        self._opening = Semaphore()
        self._closed = False
        self._keeper: Any = None

    def ledger(self, queue: str) -> Ledger:
        """The records of one queue."""
        found = self._ledgers.get(queue)
        if found is None:
            made = Ledger(self._server, self._namespace, queue)
            made.enter_index()
            found = self._ledgers.setdefault(queue, made)
        return found

    def _enter_index(self) -> None:
        """Once more: the server may have lost it."""
        for ledger in list(self._ledgers.values()):
            ledger.enter_index()

    def queues(self) -> list[str]:
        """The names of all queues of the namespace that anybody has used."""
        found = self._server.call(self._index, "SMEMBERS", self._index)
        return sorted(name.decode() for name in found)

    # --- hearing of ends

    def channel(self, queue: str) -> str:
        """Where this line is told how tasks of a queue end."""
        return client_channel(self.ledger(queue).base, self._name)

    def expect(self, handle: RemoteHandle) -> None:
        """A task is about to be sent with our channel as the place for its reply."""
        self._entering.add(_key(handle))
        self._await(handle)

    def entered(self, handle: RemoteHandle, refused: bool = False) -> None:
        """The server has it, or did not take it: then nobody waits for it."""
        self._entering.discard(_key(handle))
        if refused:
            self._forget(handle)

    def _forget(self, handle: RemoteHandle) -> None:
        """It need not be told any more; others of the same id may have to be."""
        for awaited in self._awaited.get(_key(handle), ()):
            if awaited() is handle:
                self._gone(awaited)
                return

    def _await(self, handle: RemoteHandle) -> None:
        awaited = _Awaited(handle, self._gone)
        awaited.key = _key(handle)
        self._awaited.setdefault(awaited.key, []).append(awaited)

    def _gone(self, awaited: _Awaited) -> None:
        """Nobody holds this handle any more."""
        left = [each for each in self._awaited.get(awaited.key, ()) if each is not awaited]
        if left:
            self._awaited[awaited.key] = left
        else:
            self._awaited.pop(awaited.key, None)

    def _handles(self, key: _Key) -> list[RemoteHandle]:
        found = (awaited() for awaited in self._awaited.get(key, ()))
        return [handle for handle in found if handle is not None]

    def attend(self, handle: RemoteHandle, progress: bool = False) -> None:
        """Have a handle told how its task ends, and how far it is; returns at once."""
        if handle not in self._handles(_key(handle)):
            self._await(handle)
        if progress:
            self._followed.add(handle)
        gevent.spawn(self._attend, weakref.ref(handle), progress)

    def _attend(self, wanted: weakref.ref[RemoteHandle], progress: bool) -> None:
        """Until the server has been asked, or nobody wants to know any more."""
        pause = Pause()
        while (handle := wanted()) is not None and not handle.done() and not self._closed:
            try:
                self.listen(handle.queue)
                self._ask([handle], progress)
                return
            except ServerUnavailable:
                del handle  # its waiter may have given up meanwhile
                gevent.sleep(pause.next())
            except GTaskmanError as error:
                log.warning("task %s cannot be asked for: %s", handle.id, error)
                gevent.sleep(1.0)

    def listen(self, queue: str) -> None:
        """Hear of a queue's tasks, if we do not yet."""
        if queue in self._subscriptions:
            return
        with self._opening:  # of a crowd that comes first, one opens it
            if queue not in self._subscriptions:
                ledger, channel = self.ledger(queue), self.channel(queue)
                self._subscriptions[queue] = self._server.subscribe(
                    ledger.base, channel, functools.partial(self._on_reply, queue), self._ask_all
                )
            if self._keeper is None:
                self._keeper = gevent.spawn(_keep_asking, weakref.ref(self))

    def _on_reply(self, queue: str, data: bytes) -> None:
        """``<status><id>\\n<end and result>``, ``<status><id>\\n!`` or ``p<id>\\n<progress>``."""
        head, _, body = data.partition(b"\n")
        letter, task_id = chr(head[0]), head[1:].decode()
        handles = self._handles((queue, task_id))
        if letter == "p":
            for handle in handles:
                handle.tell(self._read(_record(handle, "P", progress=body), handle.queue).report)
        elif not handles:
            return  # nobody holds one any more
        elif body == b"!":
            gevent.spawn(self._ask, handles, False, letter)  # too large, or with more to tell
        else:
            end, result = parts(body)
            for handle in handles:
                self._end(handle, _record(handle, letter, end=end, result=result))

    def _end(self, handle: RemoteHandle, record: Record) -> None:
        self._forget(handle)
        handle.end(functools.partial(self._read, record, handle.queue))

    def _ask_all(self) -> None:
        """The connection was away: whatever was published meanwhile has been missed."""
        waiting = [each for key in list(self._awaited) for each in self._handles(key)]
        self._ask([each for each in waiting if each in self._followed], progress=True)
        self._ask([each for each in waiting if each not in self._followed], progress=False)

    def _ask(self, handles: list[RemoteHandle], progress: bool, ended: str = "?") -> None:
        """Ask how tasks stand; ``ended`` is how one that the server does not know has ended."""
        by_queue: dict[str, list[RemoteHandle]] = {}
        for handle in handles:
            by_queue.setdefault(handle.queue, []).append(handle)
        for queue, group in by_queue.items():
            ids = [each.id for each in group]
            records = self.ledger(queue).watch(self.channel(queue), ids, progress)
            for handle, record in zip(group, records, strict=True):
                if record is None:
                    if _key(handle) not in self._entering:
                        self._end(handle, _record(handle, ended))
                elif record.status in _ENDED:
                    self._end(handle, record)
                elif progress and record.progress:
                    handle.tell(self._read(record, handle.queue).report)  # where it is by now

    def close(self) -> list[RemoteHandle]:
        """Let go of the connections; gives the handles that are still waited for."""
        self._closed = True
        if self._keeper is not None:
            self._keeper.kill(block=False)
        for subscription in self._subscriptions.values():
            subscription.close()
        self._server.close()
        left = [each for key in list(self._awaited) for each in self._handles(key)]
        self._awaited.clear()
        return [handle for handle in left if handle.is_awaited]


class _Awaited(weakref.ref[RemoteHandle]):
    """A handle that is told how its task ends, for as long as anybody holds it."""

    __slots__ = ("key",)

    key: _Key


def _key(handle: RemoteHandle) -> _Key:
    return handle.queue, handle.id


def _record(handle: RemoteHandle, status: str, **told: bytes) -> Record:
    """What a message says of a task, as the record that it stands for."""
    first = handle.first
    return Record(
        id=handle.id,
        status=status,
        name=first.name,
        kind=_LETTERS[first.kind],
        sequence=0,
        priority=0,
        created=first.created_at,
        started=None,
        finished=None,
        attempt=0,
        losses=0,
        token=0,
        owner="",
        once=False,
        unique="",
        ttl=0.0,
        why="",
        stopping=None,
        **{"progress": b"", "end": b"", "result": b"", **told},
    )


def _keep_asking(ref: weakref.ref[Line]) -> None:
    while True:
        gevent.sleep(_LOOK_AGAIN)
        line = ref()
        if line is None:
            return
        try:
            line._ask_all()
            line._enter_index()
        except Exception as error:
            log.warning("what has become of tasks could not be asked for: %s", error)
        del line
