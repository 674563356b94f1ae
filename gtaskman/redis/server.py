"""``Server``: what one native thread has of a Redis server, a cluster, or a failover group.

::

    call -> link -> reply                                          nearly always
    call -> link -> lost | "moved" | "loading" | ... -> errand     until there is a reply

It promises that a command was done at least once when there is a reply to it: what was lost is
sent again, so only commands may pass here that can bear that. While nobody answers there is an
*outage*: one greenlet looks for the server, with growing pauses, and all others wait for it.
"""

from __future__ import annotations

import logging
import os
import random
import re
import time
import weakref
from collections.abc import Callable
from typing import Any

import gevent
from gevent.event import Event
from hiredis import ReplyError

from gtaskman.errors import ForkedManagerError, ServerError, ServerUnavailable
from gtaskman.redis.address import Address, Node
from gtaskman.redis.connection import Connection, ConnectionLost, pack
from gtaskman.redis.link import Link
from gtaskman.redis.scripts import Script
from gtaskman.redis.subscriber import Subscriber, Subscription
from gtaskman.redis.topology import Topology, topology_of

log = logging.getLogger(__name__)

_FIRST_PAUSE = 0.05  # seconds; doubled up to
_LONGEST_PAUSE = 1.0
_REDIRECTS = 5  # after so many the cluster is not at one with itself, and is given time
# Errors that pass by themselves: the server is there, and does not serve.
_AWAY = {
    "LOADING": "is loading its data",
    "READONLY": "is a replica, which takes no writes",
    "MASTERDOWN": "is a replica that has lost its primary",
    "CLUSTERDOWN": "is a cluster that is not whole",
    "MISCONF": "cannot write to its disk",
    "NOREPLICAS": "has too few replicas to take writes",
    "BUSY": "is busy with somebody's script",
}
# Redis 6 wraps the error of a command in a script into one of the script.
_IN_SCRIPT = re.compile(r"@?user_script: ?\d+: -?([A-Z]+) ")


class Server:
    """Opens nothing until first used; may be used again after :meth:`close`.

    ``patience`` is how many seconds a call waits while the server is away, for ever if None.
    """

    def __init__(self, address: Address | str, patience: float | None = None) -> None:
        self.address = Address.parse(address) if isinstance(address, str) else address
        self.patience = patience
        self._timeout = min(self.address.timeout, patience or self.address.timeout)
        self._on_away: list[Callable[[str], object]] = []
        self._on_back: list[Callable[[float], object]] = []
        self._forked = False
        self._begin()
        _servers.add(self)

    def _begin(self) -> None:
        self._topology: Topology = topology_of(self.address)
        self._nodes: dict[Node, Link] = {}
        self._links: dict[str, Link] = {}  # by base, as far as we know
        self._outages: dict[str, _Outage] = {}  # by what is away together
        self._pauses: dict[str, _Pause] = {}
        self._subscribers: dict[str, Subscriber] = {}

    # --- asking

    def call(self, base: str, *words: str | bytes | float) -> Any:
        """One command on the node that has ``base``: its reply, in bytes, ints, lists and None.

        It may be sent twice. Raises :class:`ServerUnavailable`, and :class:`ServerError` if the
        reply is an error.
        """
        return self._ask(base, pack(words))

    def script(self, script: Script, base: str, *args: str | bytes | float) -> Any:
        """Run a script with ``base`` as its key; gives its reply, and raises as :meth:`call`.

        It may be run twice. There must be no key of just that name: a cluster then lets no script
        run on a queue whose keys are on their way from one node to another, until all are there.
        """
        return self._ask(base, pack(("EVALSHA", script.sha, 1, base, *args)), script)

    def _ask(self, base: str, request: bytes, script: Script | None = None) -> Any:
        link = self._links.get(base)
        if link is None or self._outages:
            return _Errand(self, base, request, script).run()
        try:
            outcome = link.call(request)
        except ConnectionLost as lost:
            outcome = lost
        if isinstance(outcome, Exception):
            return _Errand(self, base, request, script).run(outcome)
        return outcome

    # --- hearing

    def subscribe(
        self,
        base: str,
        channel: str,
        on_message: Callable[[bytes], object],
        on_again: Callable[[], object] | None = None,
    ) -> Subscription:
        """Hear what is published on a channel, on the node that has ``base``.

        Returns when the server has confirmed it. ``on_message`` is called with each message, in
        the greenlet that reads and so must not wait. Whenever messages may have been missed, since
        the connection had to be made again, ``on_again`` is called in a greenlet of its own.
        Raises :class:`ServerUnavailable` and :class:`ServerError`. To be closed by the caller.
        """
        self.call(base, "PING")
        share = self._topology.share(base)
        subscriber = self._subscribers.get(share)
        if subscriber is None:
            subscriber = self._subscribers[share] = Subscriber(_Way(self, base))
        return subscriber.add(channel, on_message, on_again, self.patience)

    # --- whether it is there

    @property
    def away(self) -> bool:
        """Whether it was away when last tried; somebody keeps trying."""
        return bool(self._outages)

    @property
    def silent(self) -> bool:
        """Whether it is away and refuses nothing, but does not answer: stopped, or cut off."""
        return any(outage.silent for outage in self._outages.values())

    def on_away(self, callback: Callable[[str], object]) -> None:
        """Call ``callback`` with the reason, in words, when the server goes away."""
        self._on_away.append(callback)

    def on_back(self, callback: Callable[[float], object]) -> None:
        """Call ``callback`` with the seconds that it was away when it is back."""
        self._on_back.append(callback)

    # --- life

    def close(self) -> None:
        """Let go of all connections; calls that are under way raise :class:`ServerUnavailable`."""
        links, outages, subscribers, topology = (
            list(self._nodes.values()),
            list(self._outages.values()),
            list(self._subscribers.values()),
            self._topology,
        )
        self._begin()
        for subscriber in subscribers:
            subscriber.close()
        for outage in outages:
            outage.close()
        for link in links:
            link.close()
        topology.close()

    def _forget(self) -> None:
        """In a fork: the connections are the original's, and so are the greenlets at them."""
        self._forked = True
        for subscriber in self._subscribers.values():
            subscriber.forget()
        for link in self._nodes.values():
            link.forget()
        for outage in self._outages.values():
            outage.forgotten = True
        self._topology.close()
        self._begin()

    def __repr__(self) -> str:
        return f"<Server {self.address}{' away' if self.away else ''}>"

    # --- for errands, outages and subscribers

    def link(self, base: str) -> Link:
        """The link to the node that has ``base``. Raises :class:`ConnectionLost`."""
        link = self._links.get(base)
        if link is None:
            if self._forked:  # by a bare os.fork, perhaps: the hub's resolver would hang
                self._forked = False
                gevent.reinit()
            link = self._links[base] = self.link_to(self._topology.locate(base))
        return link

    def link_to(self, node: Node) -> Link:
        """The link to a node."""
        link = self._nodes.get(node)
        if link is None:
            link = self._nodes[node] = Link(node, self.address.login, self._timeout)
        return link

    def connect(self, base: str) -> Connection:
        """A connection of one's own to the node that has ``base``."""
        return Connection(self._topology.locate(base), self.address.login, self._timeout)

    def locate(self, base: str) -> Node:
        """The node that has ``base``, as far as is known."""
        return self._topology.locate(base)

    def moved(self, base: str, node: Node) -> None:
        """Another node has ``base`` now."""
        self._topology.moved(base, node)
        self._links.pop(base, None)
        self._nudge(self._topology.share(base))

    def outage(self, base: str, lost: ConnectionLost) -> _Outage:
        """The outage that ``lost`` belongs to; begins it if need be."""
        share = self._topology.share(base)
        outage = self._outages.get(share)
        if outage is None:
            pause = self._pauses.setdefault(share, _Pause())
            outage = self._outages[share] = _Outage(self, base, lost, pause)
            log.warning("the Redis server %s is away: it %s", self.address, lost.reason)
            _tell(self._on_away, lost.reason)
        return outage

    def current_outage(self, base: str) -> _Outage | None:
        """The outage under way, if any."""
        return self._outages.get(self._topology.share(base)) if self._outages else None

    def look(self, base: str) -> None:
        """Find the node that has ``base`` anew, and see whether it takes writes.

        Raises :class:`ConnectionLost`; a :class:`ServerError` is for those who ask next.
        """
        self._topology.forget()
        self._links.pop(base, None)
        try:
            reply = self.link(base).call(pack(("DEL", f"{base}:nothing")))
        except ServerError:
            return
        if isinstance(reply, ReplyError) and (why := _why_away(reply)) is not None:
            raise ConnectionLost(why)

    def ended(self, base: str, outage: _Outage) -> None:
        """It is back."""
        share = self._topology.share(base)
        if self._outages.get(share) is not outage:
            return
        del self._outages[share]
        seconds = time.monotonic() - outage.since
        log.warning("the Redis server %s is back after %.1f s", self.address, seconds)
        _tell(self._on_back, seconds)
        self._nudge(share)

    def _nudge(self, share: str) -> None:
        subscriber = self._subscribers.get(share)
        if subscriber is not None:
            subscriber.check_node()


class _Way:
    """A subscriber's way to its node."""

    def __init__(self, server: Server, base: str) -> None:
        self._server = server
        self._base = base

    def __str__(self) -> str:
        return str(self._server.address)

    def connect(self) -> Connection:
        return self._server.connect(self._base)

    def node(self) -> Node:
        return self._server.locate(self._base)

    def endure(self, lost: ConnectionLost) -> None:
        """Return when the server is back."""
        self._server.outage(self._base, lost).wait(None)


class _Errand:
    """One request, until there is a reply: through losses, outages, failovers and moves."""

    def __init__(self, server: Server, base: str, request: bytes, script: Script | None) -> None:
        self._server = server
        self._base = base
        self._request = request
        self._replies = 1
        self._script = script
        self._asking: Node | None = None  # who has the keys for this once
        self._losses = 0
        self._redirects = 0
        self._deadline: float | None = None
        self._pause = _Pause()

    def run(self, outcome: Any = None) -> Any:
        """The reply; ``outcome`` is what came of the first try, if there was one."""
        if outcome is None:
            outcome = self._try()
        while isinstance(outcome, Exception):
            if isinstance(outcome, ConnectionLost):
                self._endure(outcome)
            else:
                self._heed(outcome)
            outcome = self._try()
        return outcome

    def _try(self) -> Any:
        outage = self._server.current_outage(self._base)
        if outage is not None:
            self._wait(outage)
        node, self._asking = self._asking, None
        try:
            if node is not None:
                link = self._server.link_to(node)
                return link.call(_ASKING + self._request, 1 + self._replies)
            return self._server.link(self._base).call(self._request, self._replies)
        except ConnectionLost as lost:
            return lost

    # --- away

    def _endure(self, lost: ConnectionLost) -> None:
        self._losses += 1
        if not lost.opened or lost.silent:
            self._wait(self._server.outage(self._base, lost))
        elif self._losses > 1:  # the server is there, and yet we never get a reply
            self._rest(lost.reason)

    def _wait(self, outage: _Outage) -> None:
        if not outage.wait(self._left(outage.reason)):
            raise self._unavailable(outage.reason)

    def _rest(self, reason: str) -> None:
        left = self._left(reason)
        pause = self._pause.next()
        gevent.sleep(pause if left is None else min(left, pause))

    def _left(self, reason: str) -> float | None:
        """Seconds of patience that are left, None for any number."""
        patience = self._server.patience
        if patience is None:
            return None
        now = time.monotonic()
        if self._deadline is None:
            self._deadline = now + patience
        if now >= self._deadline:
            raise self._unavailable(reason)
        return self._deadline - now

    def _unavailable(self, reason: str) -> ServerUnavailable:
        return ServerUnavailable(
            f"the Redis server {self._server.address} {reason}; it was waited for"
            f" {self._server.patience:g} s"
        )

    # --- there, but

    def _heed(self, error: Exception) -> None:
        """Do what an error asks for, or raise it."""
        text = str(error)
        code = text.split(" ", 1)[0]
        if code == "NOSCRIPT" and self._script is not None:
            load = pack(("SCRIPT", "LOAD", self._script.source))
            if self._replies == 1:
                self._request, self._replies = load + self._request, 2
        elif code == "TRYAGAIN" or (code == "ASK" and self._script is not None):
            # A script names one key and uses many: where some have moved already, it must not run.
            self._rest("is moving this queue to another node")
        elif code in ("MOVED", "ASK"):
            self._follow(code, text)
        elif (why := _why_away(error)) is not None:
            self._wait(self._server.outage(self._base, ConnectionLost(why)))
        else:
            raise ServerError(text, code)

    def _follow(self, code: str, text: str) -> None:
        self._redirects += 1
        if self._redirects > _REDIRECTS:
            self._rest("is a cluster whose nodes send us to one another")
        host, _, port = text.split(" ")[2].rpartition(":")
        node = Node(host or self._server.locate(self._base).host, int(port))
        if code == "ASK":
            self._asking = node
        else:
            self._server.moved(self._base, node)


class _Outage:
    """A time in which nobody serves some keys, and one greenlet looks for somebody who does."""

    def __init__(self, server: Server, base: str, lost: ConnectionLost, pause: _Pause) -> None:
        self.reason = lost.reason
        self.silent = lost.silent
        self.since = time.monotonic()
        self.forgotten = False
        self._server = server
        self._base = base
        self._pause = pause
        self._over = Event()
        self._closed = False
        pause.resume()
        self._greenlet = gevent.spawn(self._look)

    def wait(self, seconds: float | None) -> bool:
        """Until it is over, or so many seconds; gives whether it is."""
        over = self._over.wait(seconds)
        if self._closed:
            raise ServerUnavailable(f"the way to the Redis server {self._server.address} is closed")
        return bool(over)

    def _look(self) -> None:
        try:
            while not self._found():
                pass
        finally:
            if not self.forgotten:
                self._pause.ended()
                self._server.ended(self._base, self)
                self._over.set()

    def _found(self) -> bool:
        gevent.sleep(self._pause.next())
        if self.forgotten:
            return True
        try:
            self._server.look(self._base)
        except ConnectionLost as lost:
            self.reason, self.silent = lost.reason, lost.silent
            return False
        except ForkedManagerError:
            pass
        return True

    def close(self) -> None:
        """Nobody is interested any more."""
        self._closed = True
        self._greenlet.kill(block=False)
        self._over.set()


class _Pause:
    """How long to wait before the next try: longer and longer, and never as long as others do."""

    def __init__(self) -> None:
        self._seconds = _FIRST_PAUSE
        self._ended = 0.0

    def next(self) -> float:
        """Seconds."""
        seconds = self._seconds
        self._seconds = min(2 * seconds, _LONGEST_PAUSE)
        return seconds * random.uniform(0.5, 1.0)

    def ended(self) -> None:
        """What was tried has worked."""
        self._ended = time.monotonic()

    def resume(self) -> None:
        """Begin again, unless the last time has hardly ended: then it goes on."""
        if time.monotonic() - self._ended > 5 * _LONGEST_PAUSE:
            self._seconds = _FIRST_PAUSE


_ASKING = pack(("ASKING",))


def _why_away(error: Exception) -> str | None:
    text = str(error)
    code = text.split(" ", 1)[0]
    if code == "ERR" and (found := _IN_SCRIPT.search(text)):
        code = found[1]
    return _AWAY.get(code)


def _tell(callbacks: list[Any], what: Any) -> None:
    for callback in list(callbacks):
        try:
            callback(what)
        except Exception:
            log.exception("a callback of the server failed")


# --- forks ---------------------------------------------------------------------------------------

_servers: weakref.WeakSet[Server] = weakref.WeakSet()


def _after_fork() -> None:
    for server in list(_servers):
        server._forget()


os.register_at_fork(after_in_child=_after_fork)
