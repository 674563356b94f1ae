"""Scenarios of whole fleets: servers that refuse or hang, leases that differ, tasks that harm."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import gevent
from refusing import Refusals
from worlds import wait_until

import gtaskman
from chaos import work
from chaos.outcome import Outcome, outcome_of
from chaos.stage import Stage, stage
from chaos.verdict import Case, no_lease_lost, no_run_unwritten
from gtaskman.redis.ledger import Ledger
from gtaskman.redis.server import Server

_SHORT = 0.5  # seconds, a lease that is short for the losses
_MIXED = (0.5, 6.0)  # seconds, the leases of one fleet
_HANGS = 0.2  # seconds without a reply, after which a server is taken to hang
_PATIENCE = 60.0
_BOUND = 10.0  # seconds that a short task may take where any worker is idle, on any machine
_NEIGHBOURS = 40
_POISONS = 2
_IDS = 6


def refusals(
    seconds: float,
    seed: int,
    kind: str | None = None,
    mutant: str = "",
    ways: Iterable[str] | None = None,
) -> Outcome:
    """The server refuses to write, to serve and to let anybody in, for seconds at a time."""
    with stage(kind, seed=seed, refused=True, mutant=mutant) as it:
        it.cast.start("runner", "runner", "sender", "sender")
        assert it.server is not None
        refusing = Refusals(it.server)
        chosen = sorted(refusing.ways if ways is None else ways)
        client = gtaskman.Client(it.settings.url, patience=_PATIENCE)
        end = time.monotonic() + seconds
        while True:
            for way in it.dice.sample(chosen, len(chosen)):
                it.pause(it.dice.uniform(0.1, 0.4))
                load = [it.dice.choice((work.plain, work.once)) for _ in range(40)]
                client.submit_many(each.task(0.03, f"mark{at}") for at, each in enumerate(load))
                with refusing.ways[way]():
                    it.pause(it.dice.uniform(0.3, 1.5))
                it.note(f"refusal: {way}")
            if time.monotonic() > end:
                break
        client.close()
        it.findings += no_run_unwritten(it.finish())
        return outcome_of(it)


def shortage(seconds: float, seed: int, kind: str | None = None, mutant: str = "") -> Outcome:
    """The server has no memory, again and again, and nothing else goes wrong."""
    return refusals(seconds, seed, kind, mutant, ["memory"])


def hang(seconds: float, seed: int, kind: str | None = None, mutant: str = "") -> Outcome:
    """The server, or managers, or both, stand still for up to three leases."""
    with stage(kind, seed=seed, lease=2.0, mutant=mutant, cancels=0.0) as it:
        url = f"{it.settings.url}?timeout={_HANGS}"
        it.cast.start("runner", "runner", url=url)
        it.cast.start("sender")
        client = gtaskman.Client(it.settings.url, patience=_PATIENCE)
        end = time.monotonic() + seconds
        handles = []
        while True:
            handles += client.submit_many(
                work.once.task(4 * it.lease, f"once{n}") for n in range(2)
            )
            it.pause(0.4)
            if it.dice.random() < 0.3:
                it.done[it.stop_runner(round(it.dice.uniform(0.5, 3.0), 1))] += 1
            it.note(it.stop_server(round(it.dice.uniform(1.2, 3.0), 1)))
            it.pause(it.lease)
            if time.monotonic() > end:
                break
        client.close()
        it.finish()
        return outcome_of(it)


def mixed_leases(seconds: float, seed: int, kind: str | None = None, mutant: str = "") -> Outcome:
    """Managers with short leases come to one with a long lease: none takes another's away."""
    short, long = _MIXED
    with stage(kind, seed=seed, mutant=mutant, lease=long) as it:
        it.cast.start("runner")
        it.cast.start("sender")
        client = gtaskman.Client(it.settings.url, patience=_PATIENCE)
        end = time.monotonic() + seconds
        while True:
            client.submit_many(work.plain.task(2.0, f"long{each}") for each in range(3))
            it.pause(it.dice.uniform(0.5, 1.5))
            (other,) = it.cast.start("runner", lease=short)
            it.note("one more manager")
            it.pause(2 * short)
            it.note(it.kill_server(round(it.dice.uniform(1.0, 4.0), 1), short))
            it.pause(2 * short)
            if wrong := other.end():
                it.findings.append(wrong)
            if time.monotonic() > end:
                break
        client.close()
        it.findings += no_lease_lost(it.finish())
        return outcome_of(it)


def backoff(seconds: float, seed: int, kind: str | None = None, mutant: str = "") -> Outcome:
    """A quarter of all replies gets lost, and no lease with them, short as it is."""
    with stage(kind, seed=seed, lease=_SHORT, lost=0.25, mutant=mutant) as it:
        it.cast.start("runner", "runner", "sender")
        it.pause(seconds)
        it.note("lost replies")
        it.findings += no_lease_lost(it.finish())
        return outcome_of(it)


def fairness(seconds: float, seed: int, kind: str | None = None, mutant: str = "") -> Outcome:
    """A short task never waits behind a long one while a worker of the fleet is idle."""
    latencies: list[float] = []
    with stage(kind, seed=seed, lease=5.0, mutant=mutant) as it:
        runners = it.cast.start("runner", "runner", processes=it.dice.choice((1, 1, 2)))
        places = sum(each.settings.processes for each in runners)
        client = gtaskman.Client(it.settings.url, patience=_PATIENCE)
        end = time.monotonic() + seconds
        number = 0
        while not it.findings:
            gate = str(it.folder / f"gate{number}")
            number += 1
            tasks = [
                it.dice.choice((work.held, work.held, work.held_light)).task(gate, "held")
                for _ in range(it.dice.randint(1, places - 1))
            ]
            longs = client.submit_many(tasks)
            wait_until(
                lambda longs=longs: all(each.report.started_at for each in longs),
                what="the long ones run",
            )
            latencies += _short_ones(it, client, number)
            open(gate, "w").close()
            client.wait(longs, _PATIENCE)
            it.done["a round beside long tasks"] += 1
            if time.monotonic() > end:
                break
        client.close()
        it.finish()
        if len(latencies) > 1:
            latencies.sort()
            it.numbers["ms a short task takes: median, p99, most"] = [
                round(1000 * each, 1)
                for each in (
                    statistics.median(latencies),
                    latencies[math.ceil(0.99 * len(latencies)) - 1],
                    latencies[-1],
                )
            ]
        return outcome_of(it)


def _short_ones(it: Stage, client: gtaskman.Client, number: int) -> list[float]:
    taken = []
    for each in range(20):
        sent = time.monotonic()
        task = it.dice.choice((work.plain, work.plain, work.light))
        handle = client.submit(task, 0.0, f"mark{number}.{each}")
        if not handle.wait(_BOUND):
            it.findings.append(f"a short task waits though a worker is idle: {handle.report}")
            break
        taken.append(time.monotonic() - sent)
        gevent.sleep(it.dice.choice((0.0, 0.0, 0.03)))
    return taken


def _end(client: gtaskman.Client, handles: list[Any], seconds: float) -> bool:
    """Whether all of them end within so many seconds."""
    try:
        client.wait(handles, seconds)
    except gtaskman.WaitTimeout:
        return False
    return True


def poison(seconds: float, seed: int, kind: str | None = None, mutant: str = "") -> Outcome:
    """A task kills its manager, wherever it runs: it is given up, and its neighbours are not."""
    with stage(kind, seed=seed, mutant=mutant) as it:
        it.cast.start("runner", "runner")
        client = gtaskman.Client(it.settings.url, patience=_PATIENCE)
        end = time.monotonic() + seconds
        while True:
            tasks: list[Any] = [work.stout.task(0.002, f"mark{n}") for n in range(_NEIGHBOURS)]
            tasks += [work.poison.task(f"poison{n}") for n in range(_POISONS)]
            it.dice.shuffle(tasks)
            handles = client.submit_many(tasks)
            limit = time.monotonic() + _PATIENCE
            while not _end(client, handles, 0.2) and time.monotonic() < limit:
                for _ in range(2 - len(it.cast.all("runner"))):
                    it.cast.start("runner")
            it.note("poison among neighbours")
            for task, handle in zip(tasks, handles, strict=True):
                status = handle.report.status.value
                wanted = "FAILED" if task.definition is work.poison.definition else "COMPLETED"
                if status.upper() != wanted:
                    it.findings.append(f"{task.definition.name} came to {handle.report}")
            if time.monotonic() > end:
                break
        for _ in range(1 - len(it.cast.all("runner"))):
            it.cast.start("runner")
        client.close()
        it.finish()
        return outcome_of(it)


def identity(seconds: float, seed: int, kind: str | None = None, mutant: str = "") -> Outcome:
    """The same ids in two queues of each manager; tasks come back while their old runs stop."""
    names = ("default", "second")
    with stage(kind, seed=seed, mutant=mutant, queues=names, grace=0.6, processes=4) as it:
        it.cast.start("runner", "runner")
        clients = {
            name: gtaskman.Client(it.settings.url, queue=name, patience=_PATIENCE) for name in names
        }
        way = Server(it.settings.url, patience=_PATIENCE)
        ledgers = {name: Ledger(way, way.address.namespace, name) for name in names}
        end = time.monotonic() + seconds
        number = 0
        while not it.findings:
            ids = [f"id{number}.{each}" for each in range(_IDS)]
            number += 1
            for name, client in clients.items():
                client.submit_many(
                    work.lingering.with_id(each, it.dice.uniform(0.2, 1.5), name, 0.4)
                    for each in ids
                )
            it.pause(0.3)
            for name in names:
                if it.dice.random() < 0.7:
                    _end_leases(it, ledgers[name])
            it.note("leases that ended")
            _await_ends(it, ledgers, ids)
            if time.monotonic() > end:
                break
        for client in clients.values():
            client.close()
        way.close()
        it.finish(_judge_identity)
        return outcome_of(it)


def _end_leases(it: Stage, ledger: Ledger) -> None:
    """All leases have ended, says the server, and another owner takes note of that."""
    base = ledger.base
    owners = ledger.server.call(base, "ZRANGE", f"{base}:own", 0, -1)
    ledger.beat("judge", it.lease, first=True)
    for owner in owners:
        ledger.server.call(base, "ZADD", f"{base}:own", "XX", 1, owner)
    ledger.beat("judge", it.lease)
    ledger.resign("judge")


def _await_ends(it: Stage, ledgers: dict[str, Ledger], ids: list[str]) -> None:
    limit = time.monotonic() + _PATIENCE / 2
    open_ones = {(name, each) for name in ledgers for each in ids}
    while open_ones and time.monotonic() < limit:
        it.pause(0.1)
        for name, each in list(open_ones):
            record = ledgers[name].record(each)
            if record is not None and record.status in "CFX":
                open_ones.discard((name, each))
                if record.status != "C":
                    it.findings.append(f"{each} of {name} came to {record.status} {record.why}")
    if open_ones:
        it.findings.append(f"never end: {sorted(open_ones)}")


def _judge_identity(case: Case) -> list[str]:
    """Ids do not tell tasks of two queues apart: only what a manager says counts."""
    return [each for each in case.logged("booked on us", "are ours no longer") if each]


def strange(seconds: float, seed: int, kind: str | None = None, mutant: str = "") -> Outcome:
    """Tasks write and raise what cannot be encoded; the code of managers fails now and then."""
    with stage(kind, seed=seed, mutant=mutant, slips=0.02) as it:
        it.cast.start("runner", "runner", "sender")
        client = gtaskman.Client(it.settings.url, patience=_PATIENCE)
        end = time.monotonic() + seconds
        while not it.findings:
            handles = client.submit_many(work.odd.task(0.4, f"odd{each}") for each in range(4))
            if not _end(client, handles, _PATIENCE / 2):
                it.findings.append(f"never end: {[str(each.report) for each in handles]}")
            it.done["tasks that write strange texts"] += 1
            if time.monotonic() > end:
                break
        client.close()
        it.finish()
        return outcome_of(it)


FLEETS: dict[str, Callable[..., Outcome]] = {
    "refusals": refusals,
    "shortage": shortage,
    "hang": hang,
    "mixed leases": mixed_leases,
    "back-off": backoff,
    "fairness": fairness,
    "poison": poison,
    "identity": identity,
    "strange": strange,
}

# Of each mutant: the scenario that must find it out, for how many seconds, and by what.
FOUND_BY: dict[str, tuple[str, float, str]] = {
    "ids for keys": ("identity", 5.0, "never end|nothing goes on"),
    "runs by id": ("identity", 8.0, "never end|nothing goes on|booked on us"),
    "one error ends the courier": ("strange", 5.0, "never end|nothing goes on"),
    "prefetched like free": ("fairness", 5.0, "a short task waits"),
    "handed over unwritten": ("refusals", 12.0, "has begun .* times in"),
    "stopped is unbegun": ("hang", 8.0, "may run once, and has begun"),
    "one lease for all": ("mixed leases", 5.0, "the lease of .* was lost|was taken from its owner"),
    "a refused vow": ("shortage", 5.0, "nothing goes on|is not final"),
}
