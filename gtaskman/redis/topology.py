"""Which node serves a queue: the only one, whoever the sentinels name, or the owner of its slot.

A topology keeps what it has learnt until it is told to ``forget`` it. It decides nothing about
waiting: when nobody can be found it raises :class:`ConnectionLost`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import hiredis

from gtaskman.errors import ServerError
from gtaskman.redis.address import Address, Kind, Node
from gtaskman.redis.connection import Connection, ConnectionLost, pack
from gtaskman.redis.embedded import Lodger

_SLOTS = 16384


class Topology(Protocol):
    """Finds nodes. A ``base`` is the common beginning of a queue's keys."""

    def locate(self, base: str, /) -> Node:
        """The node that serves these keys. Raises :class:`ConnectionLost`, :class:`ServerError`."""

    def forget(self) -> None:
        """What is known may be wrong: find out again when asked next."""

    def moved(self, base: str, node: Node, /) -> None:
        """A server said that this one has these keys now."""

    def share(self, base: str, /) -> str:
        """What is away together with these keys: the same for all that one node serves."""

    def close(self) -> None:
        """Nobody asks any more."""


def topology_of(address: Address) -> Topology:
    """The one for an address."""
    kinds: dict[Kind, Callable[[Address], Topology]] = {
        Kind.SINGLE: Single,
        Kind.SENTINEL: Sentinels,
        Kind.CLUSTER: Cluster,
        Kind.EMBEDDED: Embedded,
    }
    return kinds[address.kind](address)


class _Undivided:
    """One node has everything."""

    def forget(self) -> None:
        pass

    def moved(self, _base: str, node: Node, /) -> None:
        raise ServerError(
            f"the server is a node of a cluster, and sends us to {node}: the URL of a cluster is"
            " redis+cluster://host:port",
            "MOVED",
        )

    def share(self, _base: str, /) -> str:
        return ""

    def close(self) -> None:
        pass


class Single(_Undivided):
    """One server."""

    def __init__(self, address: Address) -> None:
        self._node = address.nodes[0]

    def locate(self, _base: str, /) -> Node:
        return self._node


class Embedded(_Undivided):
    """A server of this machine, which runs while anybody uses its directory."""

    def __init__(self, address: Address) -> None:
        self._lodger = Lodger(address.path, address.timeout)

    def locate(self, _base: str, /) -> Node:
        return Node(self._lodger.socket(), 0)

    def close(self) -> None:
        self._lodger.leave()


class Sentinels(_Undivided):
    """The primary that the sentinels name. They are asked in turn, the last helpful one first."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._sentinels = list(address.nodes)
        self._primary: Node | None = None

    def locate(self, _base: str, /) -> Node:
        if self._primary is None:
            self._primary = self._ask_all()
        return self._primary

    def forget(self) -> None:
        self._primary = None

    def _ask_all(self) -> Node:
        reasons = []
        for sentinel in list(self._sentinels):
            try:
                found = self._ask(sentinel)
            except ConnectionLost as lost:
                reasons.append(f"sentinel {sentinel} {lost.reason}")
                continue
            if found is not None:
                self._sentinels.remove(sentinel)
                self._sentinels.insert(0, sentinel)
                return found
            reasons.append(f"sentinel {sentinel} knows no {self._address.service!r}")
        raise ConnectionLost(f"cannot be found: {', '.join(reasons)}", opened=False)

    def _ask(self, sentinel: Node) -> Node | None:
        words = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._address.service)
        login = self._address.sentinel_login
        found = ask(Connection(sentinel, login, self._address.timeout), *words)
        return Node(found[0].decode(), int(found[1])) if found else None


class Cluster:
    """Whoever owns the slot of the keys, which all of a queue's share."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._known = list(address.nodes)  # whom to ask, the last helpful one first
        self._owners: list[Node | None] = []  # by slot

    def locate(self, base: str, /) -> Node:
        if not self._owners:
            self._owners = self._ask_all()
        owner = self._owners[slot_of(base)]
        if owner is None:
            self.forget()
            raise ConnectionLost("is a cluster in which nobody has this queue's slot", opened=False)
        return owner

    def _ask_all(self) -> list[Node | None]:
        reasons = []
        for node in list(self._known):
            try:
                connection = Connection(node, self._address.login, self._address.timeout)
                owners = _owners(ask(connection, "CLUSTER", "SLOTS"), node)
            except ConnectionLost as lost:
                reasons.append(f"{node} {lost.reason}")
                continue
            others = (each for each in (*owners, *self._known) if each is not None)
            self._known = list(dict.fromkeys([node, *others]))
            return owners
        raise ConnectionLost(f"cannot be found: {', '.join(reasons)}", opened=False)

    def forget(self) -> None:
        self._owners = []

    def moved(self, base: str, node: Node, /) -> None:
        if self._owners:
            self._owners[slot_of(base)] = node

    def share(self, base: str, /) -> str:
        return base

    def close(self) -> None:
        pass


def slot_of(key: str) -> int:
    """The slot of a key in a cluster."""
    from redis.crc import key_slot  # takes longer to import than all of us: for a cluster only

    return key_slot(key.encode())


def ask(connection: Connection, *words: str) -> Any:
    """One question on a connection that is closed afterwards.

    Raises :class:`ConnectionLost`, and :class:`ServerError` if the answer is an error.
    """
    try:
        (reply,) = connection.exchange(pack(words), 1)
    finally:
        connection.close()
    if isinstance(reply, hiredis.ReplyError):
        raise ServerError(f"{connection.node} answered {' '.join(words)}: {reply}")
    return reply


def _owners(slots: Iterable[Any], asked: Node) -> list[Node | None]:
    owners: list[Node | None] = [None] * _SLOTS
    for first, last, primary, *_replicas in slots:
        host = (primary[0] or b"").decode()
        # A node that does not know its own name means the one by which it was asked.
        node = Node(host if host not in ("", "?") else asked.host, primary[1])
        owners[first : last + 1] = [node] * (last + 1 - first)
    return owners
