"""The scripts of gtaskman alone: a loop that settles a batch and claims the next in one trip.

No manager, no workers, no task: an envelope is its result. What the manager and its workers add
is seen beside it.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any

import gevent

from benchmarks.redis.peers.base import Peer, server_url
from gtaskman.redis.address import Address
from gtaskman.redis.ledger import BATCH, Claim, Entry, Ledger, Settlement
from gtaskman.redis.server import Server
from gtaskman.task import fresh_id

LEASE = 30.0
RESULT_TTL = 3600.0
NAPPING = 0.001
WHO = b"who"  # the envelope that is answered with the worker's pid


def connect() -> Ledger:
    """The queue, on a connection of its own."""
    address = Address.parse(server_url())
    return Ledger(Server(address), address.namespace, "default")


def entry(envelope: bytes) -> Entry:
    """A task that carries nothing but this."""
    return Entry(
        id=fresh_id(),
        name="bare",
        kind="s",
        priority=0,
        delay=0.0,
        eta=0.0,
        ttl=0.0,
        result_ttl=RESULT_TTL,
        max_losses=3,
        once=False,
        unique="",
        reply="",
        envelope=envelope,
    )


class Owner:
    """Whoever settles and claims, a batch with each trip."""

    def __init__(self, ledger: Ledger, name: str) -> None:
        self._ledger = ledger
        self._name = name
        self._requests = itertools.count(1)
        ledger.beat(name, LEASE, first=True)

    def turn(self, done: Sequence[Claim], limit: int = BATCH) -> list[Claim]:
        """Settle what is done, claim up to `limit` more."""
        settlements = [settlement(claim) for claim in done]
        request = f"{next(self._requests):x}"
        return self._ledger.turn(self._name, request, settlements, limit, 0, LEASE).claims


def settlement(claim: Claim) -> Settlement:
    """The end of a task whose result is its envelope."""
    result = b"%d" % os.getpid() if claim.envelope == WHO else claim.envelope
    return Settlement(claim.id, claim.token, "C", result=result)


class Contestant(Peer):
    workers = 1

    def open(self) -> None:
        self.ledger = connect()

    def close(self) -> None:
        self.ledger.server.close()

    def commands(self, style: str) -> list[list[str]]:  # noqa: ARG002 - the same for all
        return [[sys.executable, "-m", __name__]]

    def enqueue(self, task: str, arguments: Sequence[Any]) -> list[Any]:
        return self.enqueue_many(task, arguments)

    def enqueue_many(self, task: str, arguments: Sequence[Any]) -> list[Any]:
        return self.send([WHO if task == "where" else b"%d" % each for each in arguments])

    def send(self, envelopes: Sequence[bytes]) -> list[str]:
        """Enqueue a task for each envelope, in as few trips as there may be; the ids."""
        entries = [entry(envelope) for envelope in envelopes]
        for start in range(0, len(entries), BATCH):
            self.ledger.enqueue(entries[start : start + BATCH], f"{entries[start].id}")
        return [each.id for each in entries]

    def results(self, handles: Sequence[Any]) -> list[Any]:
        return [self._result(handle) for handle in handles]

    def _result(self, task_id: str) -> int:
        while True:
            record = self.ledger.record(task_id)
            if record is not None and record.status == "C":
                return int(record.result)
            gevent.sleep(NAPPING)

    def waiting(self) -> int:
        return self.ledger.counts().waiting

    def progress(self) -> int:
        return self.ledger.counts().completed

    def pause(self, seconds: float) -> None:
        gevent.sleep(seconds)


def serve() -> None:
    """The worker: until it is told to end."""
    signal.signal(signal.SIGTERM, _end)
    owner = Owner(connect(), f"bare{os.getpid()}")
    claims: list[Claim] = []
    while True:
        claims = owner.turn(claims)
        if not claims:
            gevent.sleep(NAPPING)


def _end(_: int, __: FrameType | None) -> None:
    raise SystemExit


if __name__ == "__main__":
    serve()
