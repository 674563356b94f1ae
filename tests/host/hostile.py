"""Hostile and slow clients of a host's socket, by a seed, beside honest ones.

    python tests/host/hostile.py [--seed N] [--seconds S] [--durable]

Each round starts a manager with tight limits, lets hostile clients do what a seeded generator says
and honest ones submit tasks meanwhile, and checks that

* every honest task gives its value, and has run once;
* the manager's memory stays bounded;
* nothing is logged with a traceback, whatever was sent.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import sys
import time
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    _tests = Path(__file__).resolve().parents[1]
    sys.path[:0] = [str(_tests), str(_tests / "process"), str(_tests / "host")]

import gevent
import msgspec
from rawclient import Raw, code, frame, hello, question, sealed
from scenarios import work
from servers import RunningServer, any_kind
from sites import Hosting, Site
from strategies import AWKWARD_TEXTS
from worlds import PATIENCE

from gtaskman.host import messages
from gtaskman.wire.frames import HEADER, head
from gtaskman.wire.payload import encode_arguments

MIB = 1024 * 1024
LIMITS = {
    "max_tasks": 50,
    "max_bytes": MIB,
    "max_unread": MIB,
    "grace": 0.5,
    "max_connections": 60,
}
MEMORY = 250 * MIB  # that a manager with these limits may grow by
QUESTIONS = ("cancel", "report", "find", "count", "stats", "info", "dead", "retry", "delete",
             "names", "no such question")  # fmt: skip
TEXTS = ("x" * 5000, *(text for text in AWKWARD_TEXTS if text.isprintable() or text.isascii()))
VALUES = (None, True, 0, -1, 1 << 62, 1.5, b"\xff", [], {}, [[]], {"a": 1}, *TEXTS)


class Hostile:
    """One client that does what ``rng`` says."""

    def __init__(self, rng: random.Random, site: Site) -> None:
        self._rng = rng
        self._site = site
        self._acts = [
            self.ask_much, self.ask_nonsense, self.announce, self.garbage, self.half_a_frame,
            self.tasks_unread, self.attach_much, self.tasks_without_end, self.come_and_go,
            self.mutate,
        ]  # fmt: skip

    def run(self) -> None:
        """Do one thing on a connection of its own, and hang up at any moment."""
        act = self._rng.choice(self._acts)
        with (
            contextlib.suppress(OSError),
            gevent.Timeout(3, False),
            Raw(self._site.path, timeout=3) as raw,
        ):
            if self._rng.random() < 0.9:
                raw.send(hello(title=self._rng.choice(TEXTS)))
            act(raw)
            self._read_somewhat(raw)

    def _read_somewhat(self, raw: Raw) -> None:
        for _ in range(self._rng.choice((0, 0, 1, 10, 1000))):
            if raw.next() is None:
                return
        gevent.sleep(self._rng.choice((0, 0, 0.1, 1.0)))

    def _value(self) -> Any:
        return self._rng.choice(VALUES)

    def ask_much(self, raw: Raw) -> None:
        """Questions with large answers, which are hardly read."""
        for number in range(1, self._rng.choice((3, 300, 3000))):
            raw.send(question(number, "find", None, None, 0, 500, None))

    def ask_nonsense(self, raw: Raw) -> None:
        """Questions with any arguments."""
        for number in range(1, 50):
            args = [self._value() for _ in range(self._rng.randrange(6))]
            name = self._rng.choice(QUESTIONS)
            if name in ("cancel", "delete") and args and isinstance(args[0], str):
                args[0] = "none of " + args[0]
            raw.send(question(number, name, *args))

    def announce(self, raw: Raw) -> None:
        """A frame, or buffers, of which nothing follows."""
        many = self._rng.choice((0, 1, 4096, 5000, 65535))
        size = self._rng.choice((0, 60_000, 1 << 20, 1 << 30, (1 << 32) - 1))
        raw.send(HEADER.pack(size, self._rng.randrange(256), 0, many, 1))
        raw.send(b"".join((60_000).to_bytes(8, "little") for _ in range(min(many, 4096))))

    def garbage(self, raw: Raw) -> None:
        """Random bytes."""
        raw.send(self._rng.randbytes(self._rng.choice((1, 15, 16, 1000, 100_000))))

    def half_a_frame(self, raw: Raw) -> None:
        """The beginning of a frame, which is then torn."""
        whole = question(1, "stats")
        raw.send(whole[: self._rng.randrange(len(whole))])

    def tasks_unread(self, raw: Raw) -> None:
        """Tasks with large results, which are not read."""
        raw.send(code(1, "builtins", "bytes"))
        payload = encode_arguments((self._rng.choice((100, 300_000)),), {}, MIB)
        for number in range(1, self._rng.choice((5, 50))):
            body = messages.submit_body(1, f"h-{self._rng.getrandbits(64):x}", None, "")
            raw.send(frame(messages.SUBMIT, number, body + payload.body))

    def attach_much(self, raw: Raw) -> None:
        """Tasks that there are not, to be followed."""
        for number in range(1, self._rng.choice((5, 2000))):
            wanted = messages.Attach(self._rng.choice(TEXTS), "", True, self._rng.random() < 0.5)
            raw.send(frame(messages.ATTACH, number, messages.pack(wanted)))
            raw.send(frame(messages.FOLLOW, self._rng.randrange(number + 1)))

    def tasks_without_end(self, raw: Raw) -> None:
        """Far more and larger tasks than it may have."""
        for number in range(1, self._rng.choice((10, 3000))):
            task_id = f"e-{self._rng.getrandbits(64):x}"
            name = self._rng.choice(("scenarios.work.echo", "no.such.task"))
            again = self._rng.choice((0, messages.AGAIN, messages.SAY))
            text = "x" * self._rng.choice((1, 200_000))
            raw.send(sealed(number, task_id, name, text, flags=again))

    def come_and_go(self, _raw: Raw) -> None:
        """Connections that say nothing."""
        raws = []
        with contextlib.ExitStack() as stack:
            for _ in range(self._rng.choice((1, 30, 100))):
                with contextlib.suppress(OSError):
                    raws.append(stack.enter_context(Raw(self._site.path, timeout=1)))
            gevent.sleep(0.05)

    def mutate(self, raw: Raw) -> None:
        """Sound messages with some bytes changed, cut off or doubled."""
        sound = bytearray(
            b"".join(
                [
                    code(1, "builtins", "len"),
                    frame(messages.SUBMIT, 1, messages.submit_body(1, "m", None, "u")),
                    question(2, "stats"),
                    sealed(3, "m3", "scenarios.work.echo", 1),
                    frame(messages.DEFINE, 4, msgspec.msgpack.encode([self._value()] * 12)),
                    head(self._rng.randrange(60, 95), 255, 5, 0),
                ]
            )
        )
        for _ in range(self._rng.randrange(1, 6)):
            sound[self._rng.randrange(len(sound))] = self._rng.randrange(256)
        raw.send(bytes(sound[: self._rng.randrange(len(sound))] + sound))


class Honest:
    """A client that submits tasks, each of which leaves a mark when it runs."""

    def __init__(self, site: Site, name: str) -> None:
        self._client = site.client()
        self._path = site.directory / f"marks-{name}"
        self.ended = 0
        self._tasks: list[tuple[Any, Any]] = []

    def run(self, over: Any) -> None:
        """Submit one task after the other until that is over, and some at once."""
        number = 0
        while not over.is_set():
            batch = [self._client.submit(work.leave_mark, str(self._path), f"{number + at} ")
                     for at in range(5)]  # fmt: skip
            gevent.joinall(batch, timeout=PATIENCE)
            for handle in batch:
                handle.get(PATIENCE)
            number += len(batch)
            self.ended = number
            gevent.sleep(0.01)

    def check(self) -> None:
        """Each has run once."""
        ran = sorted(map(int, self._path.read_text().split())) if self._path.exists() else []
        assert ran == list(range(self.ended)), (self.ended, ran)


def peak(host: Hosting) -> int:
    """The most memory that the manager has had, in bytes."""
    status = Path(f"/proc/{host.leader}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def play(seed: int, seconds: float, durable: bool = False) -> int:
    """One round; gives how many honest tasks have ended. Raises AssertionError."""
    rng = random.Random(seed)
    with contextlib.ExitStack() as stack:
        queue = ""
        if durable:
            server = stack.enter_context(RunningServer(any_kind()))
            queue = f"{server.url}?namespace=hostile"
        site = stack.enter_context(Site())
        host = site.host(queue=queue, options=LIMITS, max_pending_bytes=16 * MIB)
        filler = site.client()
        fill = [filler.submit(work.echo, "r" * 50_000) for _ in range(30)]
        gevent.joinall(fill, timeout=PATIENCE)
        before, over = peak(host), gevent.event.Event()
        honest = [Honest(site, str(at)) for at in range(2)]
        honest_ones = [gevent.spawn(each.run, over) for each in honest]
        end = time.monotonic() + seconds

        def attack(own: random.Random) -> None:
            while time.monotonic() < end:
                Hostile(own, site).run()

        attackers = [gevent.spawn(attack, random.Random(rng.random())) for _ in range(6)]
        gevent.joinall(attackers, timeout=seconds + PATIENCE, raise_error=True)
        before_that = [each.ended for each in honest]
        over.set()
        gevent.joinall(honest_ones, timeout=PATIENCE, raise_error=True)
        told = f"seed {seed}\n{host.output[-3000:]}"
        assert all(each.ready() for each in honest_ones), f"an honest client hangs\n{told}"
        assert all(before_that), f"an honest client was not served\n{told}"
        for each in honest:
            each.check()
        assert peak(host) - before < MEMORY, f"{(peak(host) - before) / MIB:.0f} MiB\n{told}"
        assert "Traceback" not in host.output, told
        assert "\x1b" not in host.output, told
        assert host._popen.poll() is None, told
        assert filler.submit(work.echo, 1).get(PATIENCE) == 1
        return sum(each.ended for each in honest)


def main() -> None:
    """Play rounds with one seed after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="the first one")
    parser.add_argument("--seconds", type=float, default=60.0, help="of all rounds together")
    parser.add_argument("--round", type=float, default=5.0, help="seconds of one round")
    parser.add_argument("--durable", action="store_true", help="with a queue on a server")
    given = parser.parse_args()
    end, seed = time.monotonic() + given.seconds, given.seed
    while time.monotonic() < end:
        ended = play(seed, given.round, given.durable)
        print(f"seed {seed}: {ended} honest tasks", flush=True)
        seed += 1


if __name__ == "__main__":
    main()
