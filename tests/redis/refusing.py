"""Calls of every script on a server that refuses writes, and what must hold afterwards.

    python tests/redis/refusing.py KIND SEED STEPS           # KIND: redis6, redis7 or valkey

Each step makes the server refuse in one way, runs one script, and lets the server accept again.
Either the script had its whole effect and its messages were published, or it had none of it and
the caller has an error. The same command sent again afterwards does it once; sent once more it
changes nothing. After every step the records of the queue are whole.
"""

from __future__ import annotations

import itertools
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gevent

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from entries import entry
from invariants import check
from servers import RunningServer
from worlds import PATIENCE, wait_until

from gtaskman.errors import ServerError, ServerUnavailable
from gtaskman.redis import scripts
from gtaskman.redis.keys import client_channel, owner_channel, storage_base
from gtaskman.redis.ledger import Ledger, Settlement
from gtaskman.redis.server import Server

LEASE = 3600.0  # seconds: none ends while a test lasts
OWNERS = ("one", "other")
SHORT = 0.2  # seconds of patience, for refusals that pass by themselves
# Fields of the state that tell of the last heartbeat, and of no task.
_VOLATILE = {"tick", "lease", "none"}

Command = tuple[scripts.Script, str, tuple[Any, ...], dict[str, Any]]


class Recording(Server):
    """Keeps the last script and its arguments, to send them again."""

    last: Command

    def script(self, script: Any, base: str, *args: Any, **options: Any) -> Any:
        self.last = (script, base, args, options)
        return super().script(script, base, *args, **options)


class Refusals:
    """The ways in which a server refuses: each a context, with what the refusal is called."""

    def __init__(self, running: RunningServer) -> None:
        self._running = running
        self._passwords = itertools.count(1)
        self.command = running.client().execute_command
        self._set = lambda name, value: self.command("CONFIG", "SET", name, value)
        self.ways: dict[str, Callable[[], Any]] = {
            "memory": self.memory,
            "replica": self.replica,
            "disk": self.disk,
            "replicas": self.replicas,
            "password": self.password,
            "clients": self.clients,
        }

    @contextmanager
    def memory(self) -> Iterator[None]:
        """OOM: the server has more than it may."""
        self._set("maxmemory", "1")
        yield
        self._set("maxmemory", "0")

    @contextmanager
    def replica(self) -> Iterator[None]:
        """READONLY: the server is a replica of one that cannot be reached."""
        self.command("REPLICAOF", "127.0.0.1", "1")
        yield
        self.command("REPLICAOF", "NO", "ONE")

    @contextmanager
    def disk(self) -> Iterator[None]:
        """MISCONF: it cannot save, since a directory has the name of its file."""
        (self._running.dir / "dump.rdb").mkdir(exist_ok=True)
        self._set("save", "3600 1")
        self.command("BGSAVE")
        wait_until(self._has_failed_to_save, PATIENCE, "a save fails")
        yield
        self._set("save", "")

    def _has_failed_to_save(self) -> bool:
        told = self.command("INFO", "persistence")
        return told["rdb_last_bgsave_status"] == "err" and not told["rdb_bgsave_in_progress"]

    @contextmanager
    def replicas(self) -> Iterator[None]:
        """NOREPLICAS: it wants a replica that it does not have. Redis 6 lets scripts write."""
        self._set("min-replicas-to-write", "1")
        yield
        self._set("min-replicas-to-write", "0")

    @contextmanager
    def password(self) -> Iterator[None]:
        """NOAUTH: it wants a password since now, and the connections are gone."""
        self._set("requirepass", f"secret{next(self._passwords)}")
        self._cut()
        yield
        self._set("requirepass", "")

    @contextmanager
    def clients(self) -> Iterator[None]:
        """It has no room for another connection, and ours are gone."""
        most = self.command("CONFIG GET", "maxclients")["maxclients"]
        self._set("maxclients", "1")
        self._cut()
        yield
        self._set("maxclients", most)

    def _cut(self) -> None:
        self.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        self.command("CLIENT", "KILL", "TYPE", "pubsub", "SKIPME", "yes")


class World:
    """One queue and one storage, who listens, and what the last script did."""

    def __init__(self, running: RunningServer, seed: int, calls: tuple[Any, ...] = ()) -> None:
        self.draw = random.Random(seed)
        self.calls = calls or self.CALLS
        self.refusals = Refusals(running)
        self.server = Recording(running.url, patience=SHORT)
        self.ledger = Ledger(self.server, "refusing", f"queue{seed}")
        self.storage = storage_base("refusing", f"storage{seed}")
        self.client = client_channel(self.ledger.base, "client")
        self.held: dict[str, dict[str, int]] = {owner: {} for owner in OWNERS}
        self.ids: list[str] = []
        self.refused = 0
        self._numbers = itertools.count(1)
        self._redis = running.client()
        self._heard = self._redis.pubsub(ignore_subscribe_messages=True)
        channels = [owner_channel(self.ledger.base, owner) for owner in OWNERS]
        self._marks = f"refusing:marks{seed}"
        self._listen = (*channels, self.client, self._marks)
        for owner in OWNERS:
            self.ledger.beat(owner, LEASE, first=True)

    def new(self) -> str:
        return f"{next(self._numbers):x}"

    def known(self) -> str:
        return self.draw.choice(self.ids) if self.ids else "nothing"

    # --- what there is

    def photo(self) -> dict[bytes, Any]:
        """All keys and what they hold, without what every heartbeat changes."""
        found: dict[bytes, Any] = {}
        for base in (self.ledger.base, self.storage):
            for key in self._redis.keys(f"{_escaped(base)}:*"):
                found[key] = self._value(key)
        found.pop(f"{self.ledger.base}:own".encode(), None)
        found.pop(f"{self.storage}:own".encode(), None)
        found.pop(f"{self.storage}:ex".encode(), None)  # a KEEP begins anew with each
        return found

    def _value(self, key: bytes) -> Any:
        kind = self._redis.type(key)
        if kind == b"hash":
            fields = self._redis.hgetall(key)
            return {name: fields[name] for name in fields if name.decode() not in _VOLATILE}
        if kind == b"zset":
            return self._redis.zrange(key, 0, -1, withscores=True)
        return self._redis.smembers(key) if kind == b"set" else self._redis.get(key)

    def listen(self) -> None:
        """From now on, on a connection of its own."""
        self._heard.close()
        self._heard = self._redis.pubsub(ignore_subscribe_messages=True)
        self._heard.subscribe(*self._listen)
        self.messages()

    def messages(self) -> list[tuple[bytes, bytes]]:
        """What was published since this was called last."""
        mark = self.new()
        found = []
        self._redis.publish(self._marks, mark)
        end = time.monotonic() + PATIENCE
        while True:
            message = self._heard.get_message(timeout=1.0)
            assert time.monotonic() < end, "a message does not come"
            if message is None:  # that was a confirmation
                continue
            if message["channel"] == self._marks.encode():
                if message["data"] == mark.encode():
                    return found
            else:
                found.append((message["channel"], message["data"]))

    # --- the calls, one for each script

    def enqueue(self) -> None:
        ids = [f"task{self.new()}" for _ in range(self.draw.choice([1, 1, 1, 3]))]
        entries = [
            entry(
                each,
                kind=self.draw.choice("sa"),
                priority=self.draw.choice([0, 0, 5]),
                delay=self.draw.choice([0, 0, 0, 3600]),
                ttl=self.draw.choice([0, 0, 3600]),
                unique=self.draw.choice(["", "", "key"]),
                reply=self.draw.choice(["", self.client]),
                result_ttl=1e6,
                envelope=b"x" * self.draw.choice([10, 5000]),
            )
            for each in ids
        ]
        self.ids += ids
        self.ledger.enqueue(entries, self.new())

    def turn(self) -> None:
        owner = self.draw.choice(OWNERS)
        owned = self.held[owner]
        some = self.draw.sample(sorted(owned), min(len(owned), self.draw.randint(0, 3)))
        settlements = [
            Settlement(each, owned[each], self.draw.choice("CFXRLB"), b"end", b"result")
            for each in some
        ]
        self.ledger.turn(
            owner, self.new(), settlements, self.draw.randint(0, 3), self.draw.randint(0, 3), LEASE
        )

    def _owned(self, owner: str) -> dict[str, int]:
        key = f"{self.ledger.base}:o:{owner}"
        return {k.decode(): int(v) for k, v in self._redis.hgetall(key).items()}

    def beat(self) -> None:
        self.ledger.beat(self.draw.choice(OWNERS), LEASE)

    def resign(self) -> None:
        # A script of its own takes the owner up again: it is what changes, not the last command.
        self.ledger._script(scripts.RESIGN, self.draw.choice(OWNERS))

    def vow(self) -> None:
        owner = self.draw.choice(OWNERS)
        for task_id, token in sorted(self.held[owner].items())[:1]:
            self.ledger.vow(owner, task_id, token)

    def progress(self) -> None:
        owner = self.draw.choice(OWNERS)
        blob = self.new().encode() * 40
        self.ledger.progress(owner, [(each, t, blob) for each, t in self.held[owner].items()])

    def cancel(self) -> None:
        self.ledger.cancel(self.known(), "because")

    def watch(self) -> None:
        # Not by a name of its own: channels without a listener are dropped one day.
        self.ledger.watch(self.client, [self.known(), self.known()], self.draw.random() < 0.5)

    def look(self) -> None:
        self.draw.choice(
            [lambda: self.ledger.record(self.known()), self.ledger.find, self.ledger.counts]
        )()

    def pause(self) -> None:
        self.draw.choice([self.ledger.pause, self.ledger.resume, self.ledger.resume])()

    def requeue(self) -> None:
        self.ledger.requeue([self.known(), self.known()])

    def delete(self) -> None:
        self.ledger.delete(self.known())

    def store(self) -> None:
        task_id, status = f"stored{self.draw.randint(1, 5)}", self.draw.choice("WPCFX")
        args = (self.new(), self.draw.randint(0, 1), task_id, status, "name", "sync")
        more = (self.draw.randint(1, 9), 3_600_000, b"3\nend" + b"x" * 500, 1000)
        owner = self.draw.choice(["", "writer"])
        self.server.script(scripts.STORE, self.storage, *args, *more, owner, 3_600_000)

    def tend(self) -> None:
        self.server.script(scripts.TEND, self.storage, self.draw.choice(["", "writer"]), 3_600_000)

    def keep(self) -> None:
        self.server.script(scripts.KEEP, self.storage, f"stored{self.draw.randint(1, 5)}", 10**7)

    CALLS = (
        *(enqueue,) * 4, *(turn,) * 4, beat, resign, vow, progress, cancel, cancel, watch, look,
        pause, requeue, delete, store, store, tend, keep,
    )  # fmt: skip

    # --- one step

    def step(self, way: str) -> None:
        """One call while the server refuses in this way, or accepts again meanwhile."""
        call = self.draw.choice(self.calls)
        what = f"{call.__name__} while it refuses: {way}"
        self.server.last = (scripts.COUNTS, self.ledger.base, (), {})
        before = self.photo()
        self.held = {owner: self._owned(owner) for owner in OWNERS}
        self.listen()
        error: Exception | None = None
        with self.refusals.ways[way]():
            try:
                call(self)
            except (ServerError, ServerUnavailable) as caught:
                error = caught
            # What cut connections cut this one as well.
            told = self.messages() if way not in ("password", "clients") else []
        self._heal()
        after = self.photo()
        if error is not None:
            self.refused += 1
            assert after == before, f"{what}: refused ({error}), and yet {_changes(before, after)}"
            assert not told, f"{what}: refused ({error}), and yet it published {told}"
        self._again(what, error is not None)

    def _again(self, what: str, refused: bool) -> None:
        """The same command, sent again, does it once and changes nothing the next time."""
        script, base, args, options = self.server.last
        if refused:
            self.server.script(script, base, *args, **options)
        if script in (scripts.RESIGN,):
            self._finish_resigning(args[0])
        else:
            once = self._settled()
            self.server.script(script, base, *args, **options)
            twice = self._settled()
            assert twice == once, f"{what}: sent again it changes {_changes(once, twice)}"
        wrong = check(self.ledger)
        assert not wrong, f"{what}: {wrong}"

    def _settled(self) -> dict[bytes, Any]:
        """All but who is parked: what is sent again may wake once more."""
        parked = {f"{self.ledger.base}:id{kind}".encode() for kind in "sa"}
        return {key: value for key, value in self.photo().items() if key not in parked}

    def _finish_resigning(self, owner: str) -> None:
        self.ledger.resign(owner)
        self.ledger.beat(owner, LEASE, first=True)

    def _heal(self) -> None:
        """Until the server is known to serve again."""
        self.server.patience = PATIENCE
        self.server.call(self.ledger.base, "DEL", f"{self.ledger.base}:nothing")
        wait_until(lambda: not self.server.away, PATIENCE, "the outage is over")
        self.server.patience = SHORT

    def close(self) -> None:
        self._heard.close()
        self._redis.close()
        self.server.close()


def _escaped(base: str) -> str:
    return base.replace("{", "\\{").replace("}", "\\}")


def _changes(before: dict[bytes, Any], after: dict[bytes, Any]) -> str:
    keys = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
    values = ((key, before.get(key), after.get(key)) for key in keys)
    return "; ".join(f"{key!r}: {old!r:.200} -> {new!r:.200}" for key, old, new in values)


# The first one is refused at once; with the others a call lasts for as long as patience does.
FAST, SLOW = ("memory",), ("replica", "disk", "replicas", "password", "clients")


def play(
    running: RunningServer, seed: int, steps: int, slow: int, calls: tuple[Any, ...] = ()
) -> int:
    """So many steps without memory, and ``slow`` in the other ways; gives how many were refused.

    ``calls`` are those of ``World`` that are drawn from, instead of all.
    """
    world = World(running, seed, calls)
    try:
        ways = [*FAST * steps, *(SLOW[at % len(SLOW)] for at in range(slow))]
        world.draw.shuffle(ways)
        for way in ways:
            world.step(way)
            gevent.sleep(0)
        return world.refused
    finally:
        world.close()


def main(kind: str, seed: int, steps: int) -> None:
    """Play seeds, the first one ``seed``, until ``steps`` steps are done."""
    with RunningServer(kind) as running:
        done = 0
        while done < steps:
            refused = play(running, seed, 200, 50)
            done += 250
            print(f"{kind} seed {seed}: 250 steps, {refused} refused", flush=True)
            seed += 1


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
