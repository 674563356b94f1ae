"""``Errand``: one request until there is a reply to it, whatever happens on the way.

Lost replies, outages, failovers, queues that move to another node, scripts that a server does not
have: the plain way, on which nothing happens, is in ``Server``.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

import gevent

from gtaskman.errors import ServerError, ServerUnavailable
from gtaskman.redis.address import Node
from gtaskman.redis.connection import ConnectionLost, pack
from gtaskman.redis.outage import Outage, Pause
from gtaskman.redis.scripts import Script

if TYPE_CHECKING:
    from gtaskman.redis.server import Server

_ASKING = pack(("ASKING",))
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
# Of these, those that everybody meets who asks for the same keys, on whichever node.
_FOR_ALL = ("LOADING", "MISCONF", "BUSY")
# Redis 6 wraps the error of a command in a script into one of the script.
_IN_SCRIPT = re.compile(r"@?user_script: ?\d+: -?([A-Z]+) ")


class Errand:
    """One request, until there is a reply: through losses, outages, failovers and moves."""

    def __init__(
        self,
        server: Server,
        base: str,
        request: bytes,
        script: Script | None = None,
        replies: int = 1,
        replay: float | None = None,
    ) -> None:
        """``replay`` is for how many seconds a request that may have been done is sent again."""
        self._server = server
        self._base = base
        self._request = request
        self._replies = replies
        self._script = script
        self._asking: Node | None = None  # who has the keys for this once
        self._losses = 0
        self._uncertain = False  # a reply was lost: the request may have been done
        self._redirects = 0
        self._deadline: float | None = None
        self._pause = Pause(server.longest_pause)
        self._replay = replay
        self._began = time.monotonic()

    def run(self, outcome: Any = None) -> Any:
        """The reply; ``outcome`` is what came of the first try, if there was one."""
        if outcome is None:
            outcome = self._try()
        else:
            self._began -= self._server.timeout  # the first try may have taken so long
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
        self._check_replay()
        node, self._asking = self._asking, None
        try:
            if node is not None:
                link = self._server.link_to(node)
                return link.call(_ASKING + self._request, 1 + self._replies)
            return self._server.link(self._base).call(self._request, self._replies)
        except ConnectionLost as lost:
            return lost

    # --- away

    def _check_replay(self) -> None:
        """Raise where the server may have forgotten that it did this request."""
        if self._uncertain and self._replay is not None:
            seconds = time.monotonic() - self._began
            if seconds >= self._replay:
                raise ServerUnavailable(
                    f"the Redis server {self._server.address} was away for {seconds:.0f} s after a"
                    " command to which it gave no reply: the command may have been done, and is not"
                    " sent again"
                )

    def _endure(self, lost: ConnectionLost) -> None:
        self._losses += 1
        self._uncertain = self._uncertain or lost.opened
        if not lost.opened or lost.silent:
            self._wait(self._server.outage(self._base, lost))
        elif self._losses > 1:  # the server is there, and yet we never get a reply
            self._rest(lost.reason)

    def _wait(self, outage: Outage) -> None:
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
        elif (why := why_away(error)) is not None:
            lost = ConnectionLost(why, for_all=meets_all(error))
            self._wait(self._server.outage(self._base, lost))
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


def why_away(error: Exception) -> str | None:
    """Why a server does not serve that answers with this error, if it will pass by itself."""
    return _AWAY.get(_code(error))


def meets_all(error: Exception) -> bool:
    """Whether a server that answers with this error serves nobody else either."""
    return _code(error) in _FOR_ALL


def _code(error: Exception) -> str:
    text = str(error)
    code = text.split(" ", 1)[0]
    if code == "ERR" and (found := _IN_SCRIPT.search(text)):
        code = found[1]
    return code
