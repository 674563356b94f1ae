"""``Link``: one connection to one node that all greenlets of a thread use at once.

::

    a caller, nobody at it:    send -> reply                                 no switch but the wait
    callers meanwhile:         queue up; one of them leads the next round:
                               send all in one write -> read all replies -> wake all

So whoever is alone pays for nobody else, and a thousand callers cost few writes and reads. A lost
connection is lost for all who had a part in it, each of whom decides on its own what to do; but
when only the one who leads is killed, the others' commands are sent again.
"""

from __future__ import annotations

import collections
from typing import Any

from gevent import getcurrent
from gevent.hub import get_hub
from hiredis import ReplyError

from gtaskman.errors import (
    ForkedManagerError,
    GTaskmanError,
    ServerError,
    ServerUnavailable,
    WouldBlockError,
)
from gtaskman.redis.address import Login, Node
from gtaskman.redis.connection import Connection, ConnectionLost

_ROUND = 128  # callers in one round
_WOKEN = 32  # of whom so many go on before others may: what they do then takes its time
_ROUND_BYTES = 1 << 20
_IN_HUB = (
    "the server was called in a callback of the hub, which cannot wait for the answer: call it in"
    " a greenlet of its own, gevent.spawn(...)"
)


class Link:
    """Connects when first used, and again after a loss. Of one thread; see ``Server``."""

    def __init__(self, node: Node, login: Login, timeout: float) -> None:
        self.node = node
        self._login = login
        self._timeout = timeout
        self._connection: Connection | None = None
        self._waiting: collections.deque[_Call] = collections.deque()
        self._led = False  # somebody is at the connection, or has been told to be
        self._end: tuple[type[GTaskmanError], str] | None = None  # nobody may use it any more

    def call(self, data: bytes, replies: int = 1) -> Any:
        """Send packed commands that have so many replies; gives the last, or the first error.

        An error of the server is returned, as ``hiredis.ReplyError``. Raises
        :class:`ConnectionLost`, or :class:`ServerError` when the server does not let us in.
        """
        if self._led:
            return self._queue_up(_Call(data, replies))
        self._led = True
        try:
            connection = self._connection or self._connect()
            return _verdict(connection.exchange(data, replies))
        except BaseException as error:
            self._fail(error)
            raise
        finally:
            if self._waiting:
                self._hand_over()
            else:
                self._led = False

    def close(self) -> None:
        """Let go of the connection; calls that are under way raise :class:`ServerUnavailable`."""
        self._end = (ServerUnavailable, f"the way to the Redis server {self.node} was closed")
        self._lose()

    def forget(self) -> None:
        """In a fork: leave the original's connection alone."""
        self._end = (ForkedManagerError, "a call to the server went on in a fork of its process")
        if self._connection is not None:
            self._connection.forget()
            self._connection = None

    # --- one at the connection

    def _connect(self) -> Connection:
        self._check_end()
        if getcurrent() is get_hub():
            raise WouldBlockError(_IN_HUB)
        self._connection = Connection(self.node, self._login, self._timeout)
        return self._connection

    def _lose(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _check_end(self) -> None:
        if self._end is not None:
            error, text = self._end
            raise error(text)

    # --- many

    def _queue_up(self, call: _Call) -> Any:
        self._waiting.append(call)
        try:
            call.wait()
        except BaseException:
            call.abandoned = True
            if call.leads:
                self._hand_over()
            raise
        if call.leads:
            self._lead()
        if call.error is not None:
            self._check_end()
            raise call.error
        return call.reply

    def _lead(self) -> None:
        batch = self._take()
        try:
            connection = self._connection or self._connect()
            replies = connection.exchange(
                b"".join([call.data for call in batch]), sum([call.replies for call in batch])
            )
        except BaseException as error:
            self._waiting.extendleft(reversed(batch[1:]))
            self._fail(error)
            raise
        else:
            at = 0
            for call in batch:
                call.reply = _verdict(replies[at : at + call.replies])
                at += call.replies
        finally:
            self._hand_over()
        self._wake(batch[1:])

    def _take(self) -> list[_Call]:
        """Those who go together now; the first of them, who waited longest, leads."""
        batch: list[_Call] = []
        size = 0
        waiting = self._waiting
        while waiting and len(batch) < _ROUND and size < _ROUND_BYTES:
            call = waiting.popleft()
            if not call.abandoned:
                batch.append(call)
                size += len(call.data)
        return batch

    def _hand_over(self) -> None:
        """Somebody who waits leads the next round, or nobody is at it."""
        waiting = self._waiting
        while waiting and waiting[0].abandoned:
            waiting.popleft()
        self._led = bool(waiting)
        if waiting:
            waiting[0].leads = True
            get_hub().loop.run_callback(waiting[0].wake)

    def _fail(self, error: BaseException) -> None:
        """What one met meets all; but who is killed while it leads is killed alone."""
        self._lose()
        if isinstance(error, (ConnectionLost, ServerError)):
            failed = list(self._waiting)
            self._waiting.clear()
            for call in failed:
                call.error = _copy(error)
            self._wake(failed)
        self._check_end()

    @staticmethod
    def _wake(calls: list[_Call]) -> None:
        loop = get_hub().loop
        for at in range(0, len(calls), _WOKEN):
            loop.run_callback(_wake_all, calls[at : at + _WOKEN])


def _verdict(replies: list[Any]) -> Any:
    """What commands that go together came to: the first error, or the reply to the last one."""
    for reply in replies[:-1]:
        if isinstance(reply, ReplyError):
            return reply
    return replies[-1]


class _Call:
    """A caller that waits."""

    __slots__ = ("abandoned", "data", "error", "greenlet", "leads", "replies", "reply")

    def __init__(self, data: bytes, replies: int) -> None:
        self.data = data
        self.replies = replies
        self.reply: Any = False
        self.error: Exception | None = None
        self.leads = False
        self.abandoned = False
        self.greenlet: Any = None

    def wait(self) -> None:
        """Until it leads, or knows how it ended."""
        hub = get_hub()
        self.greenlet = getcurrent()
        if self.greenlet is hub:
            raise WouldBlockError(_IN_HUB)
        try:
            while not self.leads and self.reply is False and self.error is None:
                hub.switch()
        finally:
            self.greenlet = None

    def wake(self) -> None:
        if self.greenlet is not None:
            self.greenlet.switch()


def _copy(error: ConnectionLost | ServerError) -> Exception:
    """The same to raise in another greenlet: an exception carries one traceback."""
    if isinstance(error, ConnectionLost):
        return ConnectionLost(
            error.reason, opened=error.opened, silent=error.silent, for_all=error.for_all
        )
    return ServerError(str(error), error.code)


def _wake_all(calls: list[_Call]) -> None:
    for call in calls:
        call.wake()
