"""One run: the server, the cast, the faults that can be done to them, and the findings."""

from __future__ import annotations

import collections
import contextlib
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
from invariants import check
from servers import RunningServer
from worlds import kill_hard, wait_until

from chaos import journal, verdict
from chaos.cast import Cast, Player
from chaos.photo import Photo
from chaos.settings import Settings
from chaos.verdict import Case
from gtaskman.redis.ledger import Counts, Ledger
from gtaskman.redis.server import Server

_STILL = 4  # leases without any change, after which nothing will ever change
_PATIENCE = 60.0
_SWEPT = {"st", "names"}  # keys of an empty queue
_TOTALS = {
    "seq",
    "tok",
    "tick",
    "lease",
    "short",
    "queued",
    "C",
    "F",
    "X",
    "none",
}  # fields of its state

_AGE = """
for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do redis.call('ZADD', KEYS[1], 1, id) end
"""


class Stage:
    """Where a scenario plays. ``findings`` are what is wrong, in words; ``done`` counts faults."""

    def __init__(
        self,
        url: str,
        server: RunningServer | None,
        folder: Path,
        *,
        seed: int,
        forgetful: bool = False,
        hearing: bool = False,
        **options: Any,
    ) -> None:
        self.server = server
        self.dice = random.Random(seed)
        self.folder = folder
        self.journal = folder / "journal"
        self.settings = Settings(url=url, journal=str(self.journal), seed=seed, **options)
        self.cast = Cast(self.settings, folder)
        self.findings: list[str] = []
        self.done: collections.Counter[str] = collections.Counter()
        self.numbers: dict[str, Any] = {}
        self._traits = {"forgetful": forgetful, "hearing": hearing}
        self._way = Server(url, patience=_PATIENCE)
        self._ledger = Ledger(self._way, self._way.address.namespace, "default")

    @property
    def lease(self) -> float:
        """Seconds."""
        return self.settings.lease

    # --- what can be seen

    def photo(self) -> Photo:
        """All that the server keeps now."""
        return Photo(self._way, self._ledger.namespace, self._ledger.queue)

    def counts(self) -> Counts:
        """How many tasks stand how now."""
        return self._ledger.counts()

    def events(self) -> list[journal.Event]:
        """The journal so far."""
        return journal.read(self.journal)

    def named(self, what: str) -> list[journal.Event]:
        """The events of one sort so far."""
        return [each for each in self.events() if each.what == what]

    def look(self, after: str) -> None:
        """See whether all invariants hold now."""
        self.findings += [f"after {after}: {wrong}" for wrong in check(self.photo())]

    # --- what can be done; each returns a word for it

    def kill(self, role: str) -> str:
        """SIGKILL for one of them, and another one in its place."""
        victims = self.cast.all(role, awake=False)
        if not victims:
            return "nothing"
        self.dice.choice(victims).kill()
        self.cast.start(role)
        return f"kill -9 {role}"

    def kill_child(self) -> str:
        """SIGKILL for a worker, or the template of workers, of one of the managers."""
        offspring = [pid for each in self.cast.all("runner") for pid in each.offspring()]
        if offspring:
            kill_hard([self.dice.choice(offspring)])
        return "kill -9 child"

    def stop_runner(self, leases: float = 2.2) -> str:
        """SIGSTOP for a manager, for longer than its lease; others must be left."""
        victims: list[Player] = self.cast.all("runner")
        if len(victims) < 2:
            return "nothing"
        self.dice.choice(victims).stop(leases * self.lease)
        return f"SIGSTOP runner {leases} leases"

    def kill_server(self, leases: float, lease: float | None = None) -> str:
        """SIGKILL for the server, which is away for so many leases, of those of the run."""
        assert self.server is not None
        self.server.kill9()
        self.pause(leases * (lease or self.lease))
        self.server.restart()
        return f"kill -9 server {leases} leases"

    def stop_server(self, leases: float) -> str:
        """SIGSTOP for the server, for so long."""
        assert self.server is not None
        self.server.sigstop()
        self.pause(leases * self.lease)
        self.server.sigcont()
        return "SIGSTOP server"

    def pause(self, seconds: float) -> None:
        """Let the others play; those that are stopped go on when it is their time."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            gevent.sleep(min(left, 0.05))
            self.cast.continue_those_due()

    def note(self, fault: str) -> None:
        """A fault has been done: count it, and look what it did."""
        self.done[fault] += 1
        self.look(fault)

    # --- the end

    def finish(self, judge: Callable[[Case], list[str]] = verdict.judge) -> Case:
        """Let all come to rest, judge, and see that nothing stays behind."""
        self.cast.continue_those_due(whatever=True)
        senders = self.cast.all("sender")
        for each in senders:
            each.process.terminate()
        if not self._rests(senders):
            self.findings.append(self._standstill(senders))
        for each in [*self.cast.all("sender"), *self.cast.all("runner")]:
            if wrong := each.end():
                self.findings.append(f"{wrong}\n{self.cast.output[-3000:]}")
        self.look("all")
        case = Case(self.events(), self.photo(), self.counts(), **self._traits)
        self.findings += judge(case)
        if not self.findings:
            self._sweep()
        self.numbers |= {
            "acknowledged": len(case.ids("taken")),
            "acknowledged and lost": len(case.ids("taken") - case.records.keys()),
            "tasks": len(case.records),
            "completed": case.counts.completed,
            "failed": case.counts.failed,
            "cancelled": case.counts.cancelled,
            "runs": len(case.executions),
            "losses": sum(each.losses for each in case.records.values()),
            "leases lost": len(case.logged("the lease of %s on %s was lost")),
            "astray": len(case.logged("booked on us", "are ours no longer")),
        }
        return case

    def _rests(self, senders: list[Player]) -> bool:
        """Wait until senders are done and no task waits or runs; False if nothing moves."""
        seen, since = None, time.monotonic()
        while True:
            counts = self.counts()
            busy = [each for each in senders if each.alive]
            if not busy and not counts.waiting and not counts.processing:
                return True
            if (counts, len(busy)) != seen:
                seen, since = (counts, len(busy)), time.monotonic()
            if time.monotonic() - since > _STILL * self.lease:
                return False
            self.pause(0.05)

    def _standstill(self, senders: list[Player]) -> str:
        """What is known of a run that does not end; ends those who wait for ever."""
        waiting = {each.pid for each in senders if each.alive}
        heard = {each.told[0] for each in self.named("heard")}
        unheard = {
            task_id
            for each in self.named("taken")
            if each.pid in waiting
            for task_id in each.told
            if task_id not in heard
        }
        for each in self.cast.all("sender"):
            each.kill()
        return f"nothing goes on any more: {self.counts()}, not heard of: {sorted(unheard)[:9]}"

    def _sweep(self) -> None:
        """Grow old: when all is forgotten, next to nothing is left on the server."""
        base, owner = self._ledger.base, "judge"
        self._way.call(base, "EVAL", _AGE, 1, f"{base}:ex")
        self._ledger.beat(owner, self.lease, first=True)

        def is_empty() -> bool:
            beat = self._ledger.beat(owner, self.lease)
            return not beat.swept and not beat.reaped and self._ledger.owners() == 1

        wait_until(is_empty, _PATIENCE, "dead owners are forgotten", every=self.lease / 5)
        self._ledger.resign(owner)
        photo = self.photo()
        if left := photo.keys.keys() - _SWEPT:
            self.findings.append(f"when all was forgotten there were {sorted(left)[:9]}")
        if left := photo.fields("st") - _TOTALS:
            self.findings.append(f"when all was forgotten there were fields {sorted(left)[:9]}")

    def close(self) -> None:
        """Let go of everything."""
        self.cast.__exit__()
        self._way.close()


@contextlib.contextmanager
def stage(kind: str | None = None, *, seed: int, **options: Any) -> Iterator[Stage]:
    """A stage with a server that loses nothing; its folder is kept if anything was found."""
    with RunningServer(kind, aof="always") as server, at(server.url, server, seed, **options) as it:
        yield it


@contextlib.contextmanager
def at(url: str, server: RunningServer | None, seed: int, **options: Any) -> Iterator[Stage]:
    """A stage at a server that is there."""
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    it = Stage(url, server, folder, seed=seed, **options)
    keep = True
    try:
        yield it
        keep = bool(it.findings) and not it.settings.mutant
    finally:
        it.close()
        if keep:
            it.findings.append(f"(see {folder})")
        else:
            shutil.rmtree(folder, ignore_errors=True)
