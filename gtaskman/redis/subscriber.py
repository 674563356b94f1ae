"""``Subscriber``: one pub/sub connection, read by one greenlet for all subscriptions of a node.

::

    connect -> subscribe all -> confirmed, on_again -> read ... -> lost -> connect ...

What is published while there is no connection is lost: each subscription hears ``on_again``
afterwards, and asks. A peer that has vanished without a word is found by pinging it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Protocol

import gevent
from gevent.event import Event
from gevent.lock import Semaphore
from hiredis import ReplyError

from gtaskman.errors import GTaskmanError, ServerError, ServerUnavailable
from gtaskman.redis.address import Node
from gtaskman.redis.connection import Connection, ConnectionLost, pack

log = logging.getLogger(__name__)

_IDLE = 5.0  # seconds without a word after which the server is pinged
_ANSWER = 5.0  # seconds that it has to answer that
_BREATH = 0.05  # seconds between a loss and the next try, were it to be lost again and again
_BURST = 64  # messages in a row, before others may go on
_PING = pack(("PING",))


class Way(Protocol):
    """How a subscriber gets to its server."""

    def connect(self) -> Connection:
        """Raises :class:`ConnectionLost` or :class:`ServerError`."""

    def node(self) -> Node:
        """Where :meth:`connect` would lead, as far as is known."""

    def endure(self, lost: ConnectionLost) -> None:
        """Return when the server is back."""


class Subscription:
    """One channel, heard until :meth:`close`."""

    def __init__(
        self,
        subscriber: Subscriber,
        channel: str,
        on_message: Callable[[bytes], object],
        on_again: Callable[[], object] | None,
    ) -> None:
        self.channel = channel
        self._subscriber = subscriber
        self._on_message = on_message
        self._on_again = on_again
        self._settled = Event()
        self._confirmed = False
        self._error: GTaskmanError | None = None

    def close(self) -> None:
        """Hear no more; harmless when repeated."""
        self._subscriber.remove(self)

    def wait(self, seconds: float | None) -> bool:
        """Until the server has confirmed it; gives whether it has. Raises ServerError."""
        self._settled.wait(seconds)
        if self._error is not None:
            raise self._error
        return self._confirmed

    def hear(self, data: bytes) -> None:
        """A message has come."""
        try:
            self._on_message(data)
        except Exception:
            log.exception("a message on %s could not be dealt with", self.channel)

    def confirm(self) -> None:
        """The server will send us messages from now on."""
        again, self._confirmed = self._confirmed, True
        self._settled.set()
        if again and self._on_again is not None:
            gevent.spawn(self._tell_again, self._on_again)

    def refuse(self, error: GTaskmanError) -> None:
        """The server will not have it; who waits for :meth:`confirm` is told."""
        if not self._confirmed:
            self._error = error
            self._settled.set()

    def _tell_again(self, on_again: Callable[[], object]) -> None:
        try:
            on_again()
        except GTaskmanError as error:
            log.warning("what was missed on %s could not be asked for: %s", self.channel, error)

    def __repr__(self) -> str:
        return f"<Subscription {self.channel}{'' if self._confirmed else ' unconfirmed'}>"


class Subscriber:
    """Connects while anybody subscribes. Of one thread, as the ``Server`` that makes it."""

    def __init__(self, way: Way) -> None:
        self._way = way
        self._channels: dict[bytes, list[Subscription]] = {}
        self._connection: Connection | None = None
        self._writing = Semaphore()
        self._reader: Any = None
        self._forgotten = False

    def add(
        self,
        channel: str,
        on_message: Callable[[bytes], object],
        on_again: Callable[[], object] | None,
        patience: float | None,
    ) -> Subscription:
        """See :meth:`Server.subscribe`; waits ``patience`` seconds for the server's word."""
        subscription = Subscription(self, channel, on_message, on_again)
        name = channel.encode()
        self._channels.setdefault(name, []).append(subscription)
        try:
            if not self._reader:
                self._reader = gevent.spawn(self._run)
            else:
                self._send("SUBSCRIBE", name)
            if not subscription.wait(patience):
                raise ServerUnavailable(
                    f"the Redis server {self._way} has not confirmed a subscription within"
                    f" {patience:g} s"
                )
        except BaseException:
            self.remove(subscription)
            raise
        return subscription

    def remove(self, subscription: Subscription) -> None:
        """Forget one; without any, the connection is let go of."""
        name = subscription.channel.encode()
        others = self._channels.get(name, [])
        if subscription not in others:
            return
        others.remove(subscription)
        if not others:
            del self._channels[name]
            self._send("UNSUBSCRIBE", name)
        if not self._channels:
            self.close()

    def check_node(self) -> None:
        """Another node may serve now: if so, go there."""
        connection = self._connection
        try:
            if connection is not None and connection.node != self._way.node():
                connection.close()  # wakes the reader
        except (ConnectionLost, GTaskmanError):
            pass  # it is found out when it is asked for next

    def close(self) -> None:
        """Hear no more."""
        self._channels.clear()
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.kill(block=False)
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def forget(self) -> None:
        """In a fork: leave the original's connection alone."""
        self._forgotten = True
        if self._connection is not None:
            self._connection.forget()

    # --- the greenlet

    def _run(self) -> None:
        while True:
            try:
                self._listen()
            except ConnectionLost as lost:
                self._connection = None
                if self._forgotten:
                    return
                if lost.silent or not lost.opened:
                    self._way.endure(lost)
                else:
                    gevent.sleep(_BREATH)
            except GTaskmanError as error:
                self._refuse(error)
                gevent.sleep(_ANSWER)

    def _listen(self) -> None:
        connection = self._connection = self._way.connect()
        try:
            if self._channels:
                self._send("SUBSCRIBE", *self._channels)
            while True:
                for _ in range(_BURST):
                    self._hear(self._next(connection))
                gevent.sleep(0)
        finally:
            if not self._forgotten:
                connection.close()

    def _next(self, connection: Connection) -> Any:
        reply = connection.receive(_IDLE)
        if reply is False:
            with self._writing:
                connection.send(_PING)
            reply = connection.receive(_ANSWER)
        if reply is False:
            raise ConnectionLost(f"did not answer within {_ANSWER:g} s", silent=True)
        return reply

    def _hear(self, reply: Any) -> None:
        if isinstance(reply, ReplyError):
            self._refuse(ServerError(str(reply), str(reply).split(" ", 1)[0]))
        if not isinstance(reply, list):
            return
        for subscription in list(self._channels.get(reply[1], ())):
            if reply[0] == b"message":
                subscription.hear(reply[2])
            elif reply[0] == b"subscribe":
                subscription.confirm()

    def _refuse(self, error: GTaskmanError) -> None:
        for subscriptions in list(self._channels.values()):
            for subscription in subscriptions:
                subscription.refuse(error)

    def _send(self, command: str, *channels: bytes) -> None:
        connection = self._connection
        if connection is None:
            return  # who connects subscribes to all
        try:
            with self._writing:
                connection.send(pack((command, *channels)))
        except ConnectionLost:
            connection.close()  # wakes the reader
