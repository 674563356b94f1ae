"""Switches inside the processes of a run: replies that get lost, and mutants of the scripts."""

from __future__ import annotations

import hashlib
import random
from typing import Any

from chaos.settings import Settings
from gtaskman.redis import scripts
from gtaskman.redis.connection import Connection, ConnectionLost

# Of each mutant: the script, what stands in it, and what stands there instead.
MUTANTS: dict[str, list[tuple[str, str, str]]] = {
    # An enqueue that is sent again takes its own tasks for somebody else's.
    "no enqueue dedup": [("enqueue", "if known[2] == made_by then return 1 end", "")],
    # A claim that is sent again gets another batch; the first one is nobody's.
    "no claim replay": [
        ("turn", "if made_by ~= request then return false end", "do return false end")
    ],
    # Nobody hears that a lease was lost, and no token is compared.
    "no fence": [
        ("turn", "if held[id] == token then", "if call('EXISTS', T(id)) == 1 then"),
        ("turn", "if not deadline or tonumber(deadline) < 0 then", "if false then"),
        (
            "beat",
            "if (not deadline and not first) or (deadline and tonumber(deadline) < 0) then",
            "if false then",
        ),
    ],
    # An owner that cannot note that a task runs only once is refused where memory is short.
    "a refused vow": [("vow", "relieve()\n", "")],
    # The owner that beats first gives its own lease to all others.
    "one lease for all": [
        (
            "beat",
            "  if gap > last_lease / 2 or gap < 0 then\n",
            "  if gap > lease / 2 then\n"
            "    for _, each in ipairs(call('ZRANGEBYSCORE', OWNERS, 0, '+inf')) do\n"
            "      call('ZADD', OWNERS, NOW + lease, each)\n"
            "    end\n"
            "  elseif false then\n",
        ),
        ("beat", "  elseif gap > shortest / 2 then\n", "  elseif false then\n"),
    ],
    # A task is handed over before the server could refuse to write that down.
    "handed over unwritten": [
        ("enqueue", "  call('HSET', STATE, 'tok', token)\n", ""),
        (
            "enqueue",
            "  return owner, token\n",
            "  call('HSET', STATE, 'tok', token)\n  return owner, token\n",
        ),
    ],
    # What dead owners held stays theirs.
    "no reaper": [("beat", "local reaped = reap(256)", "local reaped = 0")],
    # When the server comes back, those who could not reach it have lost their leases.
    "no fresh leases": [
        (
            "beat",
            "mind_leases(tonumber(state[1] or NOW), tonumber(state[3] or lease), shortest)",
            "",
        )
    ],
}


def arm(settings: Settings) -> None:
    """Throw the switches in this process, before anything is opened."""
    dice = random.Random(settings.seed)
    if settings.lost:
        _lose_replies(settings.lost, dice)
    if settings.unheard:
        _lose_messages(settings.unheard, dice)
    if settings.mutant in MUTANTS:
        _mutate(settings.mutant)


def _lose_replies(share: float, dice: random.Random) -> None:
    """The server does as it was told, and then the connection breaks."""
    exchange = Connection.exchange

    def lossy(self: Connection, data: bytes, count: int) -> list[Any]:
        replies = exchange(self, data, count)
        if dice.random() < share:
            raise ConnectionLost("has taken a command, and its reply was lost on the way")
        return replies

    Connection.exchange = lossy  # type: ignore[method-assign]


def _lose_messages(share: float, dice: random.Random) -> None:
    """The server has published, and then the connection breaks."""
    receive = Connection.receive

    def lossy(self: Connection, seconds: float) -> Any:
        reply = receive(self, seconds)
        if isinstance(reply, list) and reply[0] == b"message" and dice.random() < share:
            raise ConnectionLost("has sent a message, which was lost on the way")
        return reply

    Connection.receive = lossy  # type: ignore[method-assign]


def _mutate(mutant: str) -> None:
    for name, there, instead in MUTANTS[mutant]:
        script: scripts.Script = getattr(scripts, name.upper())
        assert script.source.count(there) == 1, f"{there!r} is not (once) in {name}.lua any more"
        source = script.source.replace(there, instead)
        sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
        setattr(scripts, name.upper(), scripts.Script(f"{name}-mutant", source, sha))
