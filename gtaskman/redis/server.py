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
import time
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import gevent
from gevent import monkey
from gevent.hub import get_hub
from hiredis import ReplyError

from gtaskman.errors import GTaskmanError, ServerError
from gtaskman.redis.address import Address, Node
from gtaskman.redis.confirming import Confirming
from gtaskman.redis.connection import Connection, ConnectionLost, pack
from gtaskman.redis.errand import Errand, meets_all, why_away
from gtaskman.redis.link import Link
from gtaskman.redis.outage import LONGEST_PAUSE, Outage, Pause
from gtaskman.redis.scripts import Script
from gtaskman.redis.subscriber import Subscriber, Subscription
from gtaskman.redis.topology import Topology, topology_of

log = logging.getLogger(__name__)


class Server:
    """Opens nothing until first used; may be used again after :meth:`close`.

    It is of the thread that uses it first, and goes with that.

    ``patience`` is how many seconds a call waits while the server is away, for ever if None.
    ``longest_pause`` is how many seconds it waits at most before it sends a command again to a
    server that is there, and whose replies get lost: less than a lease for those that hold one.
    """

    def __init__(
        self,
        address: Address | str,
        patience: float | None = None,
        longest_pause: float = LONGEST_PAUSE,
    ) -> None:
        self.address = Address.of(address)
        self.patience = patience
        self.longest_pause = longest_pause
        self.timeout = min(  # seconds that a reply may take
            self.address.timeout, patience or self.address.timeout
        )
        self._on_away: list[Callable[[str], object]] = []
        self._on_back: list[Callable[[float], object]] = []
        self._forked = False
        self._hub: Any = None  # of the thread that uses it
        self._begin()
        _servers.add(self)

    def _begin(self) -> None:
        self._topology: Topology = topology_of(self.address)
        self._nodes: dict[Node, Link] = {}
        self._links: dict[str, Link] = {}  # by base, as far as we know
        self._outages: dict[str, Outage] = {}  # by what is away together
        self._pauses: dict[str, Pause] = {}
        self._subscribers: dict[str, Subscriber] = {}
        self._confirming: dict[str, Confirming] = {}  # by base
        self._aside: Server | None = None  # for what keeps a connection busy

    # --- asking

    def call(self, base: str, *words: str | bytes | float) -> Any:
        """One command on the node that has ``base``: its reply, in bytes, ints, lists and None.

        It may be sent twice. Raises :class:`ServerUnavailable`, and :class:`ServerError` if the
        reply is an error.
        """
        return self._ask(base, pack(words))

    def script(
        self,
        script: Script,
        base: str,
        *args: str | bytes | float,
        replay: float | None = None,
    ) -> Any:
        """Run a script with ``base`` as its key; gives its reply, and raises as :meth:`call`.

        It may be run twice. What may have been run is sent again for ``replay`` seconds at most
        (None: as long as patience lasts), then :class:`ServerUnavailable` is raised. There must be
        no key of just the name ``base``: a cluster then lets no script run on a queue whose keys
        are on their way from one node to another, until all are there.
        """
        return self._ask(base, pack(("EVALSHA", script.sha, 1, base, *args)), script, replay)

    def replicated(
        self,
        script: Script,
        base: str,
        args: Iterable[str | bytes | float],
        replicas: int,
        seconds: float,
    ) -> int:
        """How many replicas have what a script wrote that has been run before, after at most so
        many seconds, or as soon as it is ``replicas``.

        The script is sent once more together with the question, so that it cannot be put to a
        server that has taken the other's place since and lacks it. It goes over a connection of
        its own, so that other calls do not wait.
        """
        confirming = self._confirming.get(base)
        if confirming is None:
            aside = self._make_aside()

            def ask(request: bytes, count: int) -> int:
                return int(Errand(aside, base, request, replies=count).run())

            confirming = self._confirming[base] = Confirming(ask)
        again = pack(("EVAL", script.source, 1, base, *args))
        return confirming.found(again, replicas, seconds)

    def _make_aside(self) -> Server:
        if self._aside is None:
            self._aside = Server(self.address, self.patience, self.longest_pause)
            self._aside._adopt()
        return self._aside

    def _ask(
        self,
        base: str,
        request: bytes,
        script: Script | None = None,
        replay: float | None = None,
    ) -> Any:
        if get_hub() is not self._hub:
            self._adopt()
        link = self._links.get(base)
        if link is None or self._outages:
            return Errand(self, base, request, script, replay=replay).run()
        try:
            outcome = link.call(request)
        except ConnectionLost as lost:
            outcome = lost
        if isinstance(outcome, Exception):
            return Errand(self, base, request, script, replay=replay).run(outcome)
        return outcome

    def _adopt(self) -> None:
        """The thread that uses it first keeps it, until it closes it or ends."""
        if self._hub is not None and self._hub.loop is not None:
            raise GTaskmanError(
                f"{self!r} is in use by another thread: connections cannot be shared between"
                " threads, each makes a Server of its own"
            )
        if self._hub is not None:  # it has been destroyed
            self._forget()
        self._hub = get_hub()
        farewell = getattr(_of_thread, "farewell", None)
        if farewell is None:
            farewell = _of_thread.farewell = _Farewell()
        farewell.servers.add(self)

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

    @property
    def cut_off(self) -> bool | None:
        """Whether it may be serving others while it does not serve us; None while it does.

        False if whoever asks it meets the same: it refuses connections, or is loading its data.
        """
        if not self._outages:
            return None
        return not all(outage.for_all for outage in self._outages.values())

    def on_away(self, callback: Callable[[str], object]) -> None:
        """Call ``callback`` with the reason, in words, when the server goes away."""
        self._on_away.append(callback)

    def on_back(self, callback: Callable[[float], object]) -> None:
        """Call ``callback`` with the seconds that it was away when it is back."""
        self._on_back.append(callback)

    # --- life

    def close(self) -> None:
        """Let go of all connections; calls that are under way raise :class:`ServerUnavailable`."""
        links, outages, subscribers, topology, aside = (
            list(self._nodes.values()),
            list(self._outages.values()),
            list(self._subscribers.values()),
            self._topology,
            self._aside,
        )
        self._hub = None
        self._begin()
        if aside is not None:
            aside.close()
        for subscriber in subscribers:
            subscriber.close()
        for outage in outages:
            outage.close()
        for link in links:
            link.close()
        topology.close()

    def _forked_off(self) -> None:
        """In a fork: the connections are the original's, and so are the greenlets at them."""
        self._forked = True
        self._forget()

    def _forget(self) -> None:
        """Close our descriptors, and say nothing to anybody: no greenlet of ours runs any more."""
        self._hub = None
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
            link = self._nodes[node] = Link(node, self.address.login, self.timeout)
        return link

    def connect(self, base: str) -> Connection:
        """A connection of one's own to the node that has ``base``."""
        return Connection(self._topology.locate(base), self.address.login, self.timeout)

    def locate(self, base: str) -> Node:
        """The node that has ``base``, as far as is known."""
        return self._topology.locate(base)

    def moved(self, base: str, node: Node) -> None:
        """Another node has ``base`` now."""
        self._topology.moved(base, node)
        self._links.pop(base, None)
        self._nudge(self._topology.share(base))

    def outage(self, base: str, lost: ConnectionLost) -> Outage:
        """The outage that ``lost`` belongs to; begins it if need be."""
        share = self._topology.share(base)
        outage = self._outages.get(share)
        if outage is None:
            pause = self._pauses.setdefault(share, Pause(self.longest_pause))
            outage = self._outages[share] = Outage(self, base, lost, pause)
            log.warning("the Redis server %s is away: it %s", self.address, lost.reason)
            _tell(self._on_away, lost.reason)
        return outage

    def current_outage(self, base: str) -> Outage | None:
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
        if isinstance(reply, ReplyError) and (why := why_away(reply)) is not None:
            raise ConnectionLost(why, for_all=meets_all(reply))

    def ended(self, base: str, outage: Outage) -> None:
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


def _tell(callbacks: list[Any], what: Any) -> None:
    for callback in list(callbacks):
        try:
            callback(what)
        except Exception:
            log.exception("a callback of the server failed")


# --- the ends of threads, and forks -------------------------------------------------------------


class _Farewell:
    """Goes with a native thread, and takes its connections along: no greenlet of it can."""

    def __init__(self) -> None:
        self.servers: weakref.WeakSet[Server] = weakref.WeakSet()

    def __del__(self) -> None:
        for server in list(self.servers):
            server._forget()


_of_thread = monkey.get_original("_thread", "_local")()

_servers: weakref.WeakSet[Server] = weakref.WeakSet()


def _after_fork() -> None:
    for server in list(_servers):
        server._forked_off()


os.register_at_fork(after_in_child=_after_fork)
