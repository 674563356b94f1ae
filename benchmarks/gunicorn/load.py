"""The load, in a process of its own; what it finds out is one line of JSON.

    python -m benchmarks.gunicorn.load http://127.0.0.1:8000 '{"rate": 150, "seconds": 8, ...}'

Connections are kept, as a proxy before the server does.
"""

# ruff: noqa: E402 - patching comes first
from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import collections
import hashlib
import http.client
import itertools
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median, quantiles
from urllib.parse import urlencode, urlsplit

import gevent

from benchmarks.check import same
from benchmarks.gunicorn.site import SCRYPT

PATIENCE = 60.0  # seconds
WARM_UP = 0.5  # seconds
CONNECTIONS = 8  # for the trivial route: they spread over gunicorn's workers
PASSWORDS = ("secret", "correct horse battery staple", "swordfish")


class Clients:
    """So many kept connections to one server, used in turn; more while none of them is idle."""

    def __init__(self, url: str, count: int) -> None:
        self._host = urlsplit(url).netloc
        self._idle = collections.deque(self._opened() for _ in range(count))

    def ask(self, path: str) -> str:
        """The text of the answer. Raises if it is not a good one."""
        with self._connection() as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            text = answer.read().decode()
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status} {text[:500]}")
        return text

    @contextmanager
    def _connection(self) -> Iterator[http.client.HTTPConnection]:
        connection = self._idle.popleft() if self._idle else self._opened()
        yield connection
        self._idle.append(connection)

    def _opened(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self._host, timeout=PATIENCE)


def trivial(clients: Clients, rate: float, seconds: float) -> list[float]:
    """Ask for the trivial route at a fixed rate: the latencies, from when each was due."""
    begin = time.monotonic()

    def ask(due: float) -> float:
        same("/", [clients.ask("/")], ["hello"])
        return time.monotonic() - due

    asking = []
    for number in range(round(rate * seconds)):
        due = begin + number / rate
        gevent.sleep(max(0.0, due - time.monotonic()))
        asking.append(gevent.spawn(ask, due))
    gevent.joinall(asking, raise_error=True)
    return [each.value for each in asking]


class Hashers:
    """Clients that have passwords hashed, one after the other, while the `with` block lasts."""

    def __init__(self, clients: Clients, count: int, right: dict[tuple[str, str], str]) -> None:
        self._clients, self._count, self._right = clients, count, right
        self.hashed = 0
        self._over = False

    def __enter__(self) -> Hashers:
        self._greenlets = [gevent.spawn(self._hash_on, number) for number in range(self._count)]
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        gevent.joinall(self._greenlets, raise_error=True)

    def _hash_on(self, number: int) -> None:
        for password in itertools.cycle(PASSWORDS):
            if self._over:
                return
            salt = f"salt of {number}"
            path = "/hash?" + urlencode({"password": password, "salt": salt})
            same("/hash", [self._clients.ask(path)], [self._right[password, salt]])
            self.hashed += 1


def hashes(count: int) -> tuple[dict[tuple[str, str], str], float]:
    """What is right, made here before anything is measured, and the ms that one takes."""
    begin = time.perf_counter()
    right = {
        (password, salt): hashlib.scrypt(password.encode(), salt=salt.encode(), **SCRYPT).hex()
        for password in PASSWORDS
        for salt in (f"salt of {number}" for number in range(count))
    }
    return right, (time.perf_counter() - begin) / len(right) * 1000


def p99(latencies: list[float]) -> float:
    """Only one in a hundred takes longer."""
    return quantiles(latencies, n=100, method="inclusive")[98]


def marks(prefix: str, latencies: list[float]) -> dict[str, float]:
    """Their percentiles, in ms."""
    found = {"p50": median(latencies), "p99": p99(latencies), "max": max(latencies)}
    return {f"{prefix}_{name}_ms": value * 1000 for name, value in found.items()}


def measure(url: str, rate: float, seconds: float, turns: int, hashers: int) -> dict[str, object]:
    """The trivial route, alone and beside hashing: `turns` times each, for `seconds` in all."""
    right, hash_ms = hashes(hashers)
    clients, others = Clients(url, CONNECTIONS), Clients(url, hashers)
    with Hashers(others, hashers, right) as first:
        trivial(clients, rate, WARM_UP)
    alone: list[float] = []
    beside: list[float] = []
    growths, hashed, taken, checked = [], 0, 0.0, first.hashed
    for _ in range(turns):
        before = trivial(clients, rate, seconds / turns)
        with Hashers(others, hashers, right) as hashing:
            trivial(clients, rate, WARM_UP)
            known, begin = hashing.hashed, time.monotonic()
            during = trivial(clients, rate, seconds / turns)
            hashed += hashing.hashed - known
            taken += time.monotonic() - begin
        # Neighbours in time: whatever else runs on this machine meets both, or one pair of many.
        growths.append(p99(during) / p99(before))
        alone, beside, checked = alone + before, beside + during, checked + hashing.hashed
    numbers = {**marks("beside", beside), **marks("alone", alone), "growth": median(growths)}
    numbers |= {"hashes_per_second": hashed / taken, "hash_ms": hash_ms}
    return {"metrics": numbers, "checked": len(alone) + len(beside) + checked}


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], **json.loads(sys.argv[2]))), flush=True)
