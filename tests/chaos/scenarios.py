"""What happens in a run: each scenario takes seconds and a seed, and gives what it came to."""

from __future__ import annotations

import collections
import re
import statistics
import time
from collections.abc import Callable
from typing import Any

import gevent
from servers import Proxy, Sentinels
from worlds import wait_until

import gtaskman
from chaos import work
from chaos.cast import Player
from chaos.fleets import FLEETS, FOUND_BY
from chaos.outcome import Outcome, outcome_of
from chaos.stage import Stage, at, stage
from chaos.verdict import Case, no_lease_lost

_LOSSES = {"lost": 0.03, "unheard": 0.01}
_CROWD = 1000  # tasks of 10 ms
_ON_ITS_WAY = 0.1  # seconds that the end of a task may take to the server
_LOAD = 500  # tasks that are sent at once
_SHORT = 0.5  # seconds, a lease where nothing but its end is waited for
_LATE = 12  # leases within which a dead manager's tasks come back at the very latest
_LONG = 3.0  # seconds, a lease within which a manager can notice that it is cut off
_PATIENCE = 30.0
_BEATS = 5  # of an idle manager that are watched


def storm(seconds: float, seed: int, kind: str | None = None) -> Outcome:
    """Everything at once, and replies get lost all the time."""
    with stage(kind, seed=seed, **_LOSSES, cancels=0.2) as it:
        it.cast.start("runner", "runner", "runner", "sender", "sender")
        faults: list[Callable[[], str]] = [
            *[lambda: it.kill("runner")] * 4,
            *[it.kill_child] * 4,
            *[lambda: it.kill("sender")] * 2,
            *[it.stop_runner] * 3,
            *[lambda: it.kill_server(it.dice.choice((0, 0, 0.5, 1, 3)))] * 2,
        ]
        _play(it, seconds, faults)
        it.finish()
        return outcome_of(it)


def races(seconds: float, seed: int, kind: str | None = None) -> Outcome:
    """Most tasks are cancelled, while they wait, are claimed, run, end and are taken away."""
    with stage(kind, seed=seed, **_LOSSES, cancels=0.7) as it:
        it.cast.start("runner", "runner", "sender", "sender")
        _play(it, seconds, [lambda: it.kill("runner"), it.kill_child, it.stop_runner])
        it.finish()
        return outcome_of(it)


def thousand(seconds: float, seed: int, kind: str | None = None) -> Outcome:
    """Of everything that takes part in a thousand tasks of 10 ms, one is killed as they run.

    All run at least once; twice only those that were running at a kill.
    """
    with stage(kind, seed=seed, cancels=0.0, crowd=_CROWD) as it:
        it.cast.start("runner", "runner", "sender")
        (client,) = it.cast.all("sender")
        faults = {
            "child": it.kill_child,
            "client": client.kill,
            "server": lambda: it.kill_server(0),
            "manager": lambda: it.kill("runner"),
        }
        killed: dict[str, tuple[float, float]] = {}  # from when to when each may have died
        for share, (victim, kill) in enumerate(faults.items(), 1):
            part = share * _CROWD // (len(faults) + 1)
            wait_until(lambda part=part: it.counts().completed >= part, what=f"{part} have ended")
            since = time.monotonic()
            kill()
            killed[victim] = (since, time.monotonic())
            it.note(f"kill -9 {victim}")
        case = it.finish()
        _judge_thousand(it, case, killed)
        return outcome_of(it)


def _judge_thousand(it: Stage, case: Case, killed: dict[str, tuple[float, float]]) -> None:
    """Who has run, who has run twice and why, and how long it took to be back at work."""
    runs = collections.defaultdict(list)
    for each in sorted(case.executions):
        runs[each.task_id].append(each)
    twice = [each[0] for each in runs.values() if len(each) > 1]
    died = killed.values()
    it.findings += [
        f"{run.task_id} has run again, and was not running at any kill"
        for run in twice
        if not any(run.begin <= at and run.last >= since - _ON_ITS_WAY for since, at in died)
    ]
    if len(runs) != _CROWD or case.counts.completed != _CROWD:
        it.findings.append(f"{len(runs)} of {_CROWD} have run, {case.counts.completed} completed")
    begins = sorted(each.begin for each in case.executions)
    since, _ = killed["manager"]
    held = [each for each in runs.values() if each[1:] and each[0].last >= since - _ON_ITS_WAY]
    back = max((again.begin - since for _, again, *_ in held), default=0.0)
    it.numbers |= {"have run": len(runs), "have run twice": len(twice)}
    it.numbers["leases until what the manager ran had begun again"] = round(back / it.lease, 2)
    it.numbers |= {
        f"ms until work went on after the {victim}'s death": round(1000 * (after - at), 1)
        for victim, (_, at) in killed.items()
        for after in [next((each for each in begins if each > at), at)]
    }


def _play(it: Stage, seconds: float, faults: list[Callable[[], str]]) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        it.pause(it.dice.uniform(0.2, 0.5))
        it.note(it.dice.choice(faults)())


def outages(seconds: float, seed: int, kind: str | None = None) -> Outcome:
    """The server dies and comes back, again and again: nobody's lease ends with it."""
    with stage(kind, seed=seed) as it:
        it.cast.start("runner", "runner", "runner", "sender")
        end = time.monotonic() + seconds
        while True:
            for leases in (0, 0.5, 1, 3):
                it.pause(0.2)
                it.note(it.kill_server(leases))
            if time.monotonic() > end:
                break
        it.findings += no_lease_lost(it.finish())
        return outcome_of(it)


def failover(seconds: float, seed: int, kind: str | None = None) -> Outcome:
    """The primary dies with what its replica has not heard of.

    Nothing gets stuck, and of what was sent by one who waits for the replica nothing is lost.
    """
    with (
        Sentinels(kind) as group,
        at(group.url, None, seed, **_LOSSES, forgetful=True) as it,
    ):
        it.cast.start("runner", "runner", "sender")
        (careful,) = it.cast.start("sender", replicas=1)
        it.pause(max(0.5, seconds - 4))
        # What it cannot read it may yet find in its buffers: it must not be connected either.
        group.replica.sigstop()
        group.primary.command("CLIENT", "KILL", "TYPE", "replica")
        it.pause(0.4)
        gevent.spawn_later(0.1, group.replica.sigcont)
        group.fail_over()
        for each in group.sentinels:  # once is enough
            each.command("SENTINEL", "SET", group.service, "down-after-milliseconds", 60000)
        group.primary.restart()
        group.primary.command("REPLICAOF", "127.0.0.1", group.replica.port)
        it.note("failover, the replica behind")
        it.pause(0.5)
        case = it.finish()
        sent = [task_id for e in it.named("taken") if e.pid == careful.pid for task_id in e.told]
        it.numbers["waited for"] = len(sent)
        it.findings += [
            f"{task_id} had been waited for, and is lost"
            for task_id in sent
            if task_id not in case.records
        ]
        return outcome_of(it)


def busy(seconds: float, seed: int, kind: str | None = None) -> Outcome:
    """A manager dies while the other has no idle moment: its tasks come back all the same."""
    with stage(kind, seed=seed, lease=_SHORT) as it:
        runners = it.cast.start("runner", "runner")
        client = gtaskman.Client(it.settings.url)
        held = client.submit_many(work.plain.task(3600.0, f"held{each}") for each in range(2))
        wait_until(lambda: len(it.named("begin")) == len(held), what="both are held", every=0.05)
        begun = {event.pid: event.told[1] for event in it.named("begin")}
        victim = next(each for each in runners if begun.keys() & each.offspring())
        ids = [task_id for pid, task_id in begun.items() if pid in victim.offspring()]
        load = gevent.spawn(_load, client, held)
        wait_until(lambda: it.counts().completed > _LOAD, what="the load is on", every=0.05)
        victim.kill()
        if not _comes_back(it, ids):
            it.findings.append(f"under load, what a dead manager held did not come back: {ids}")
        it.note("kill -9 runner")
        for handle in held:
            handle.cancel()
        load.get()
        client.close()
        it.finish()
        return outcome_of(it)


def _load(client: gtaskman.Client, held: list[Any]) -> None:
    while not held[0].done():
        last = client.submit_many(work.light.task(0.0, "mark") for _ in range(_LOAD))
        last[_LOAD // 2].wait()


def _comes_back(it: Stage, ids: list[str]) -> bool:
    end = time.monotonic() + _LATE * it.lease
    while time.monotonic() < end:
        it.pause(it.lease / 5)
        records = it.photo().records()
        if all(records[task_id].losses for task_id in ids):
            return True
    return False


def cut_off(seconds: float, seed: int, kind: str | None = None) -> Outcome:
    """A manager that alone cannot reach the server stops its tasks before others get them."""
    with stage(kind, seed=seed, lease=_LONG) as it, Proxy(it.server) as proxy:
        it.cast.start("runner", url=f"{proxy.url}?timeout={_LONG / 10}")
        client = gtaskman.Client(it.settings.url)
        tasks = (work.plain.task(3600.0, "held"), work.light.task(3600.0, "held"))
        held = client.submit_many(tasks)
        wait_until(lambda: len(it.named("begin")) == len(held), what="both are held", every=0.05)
        it.cast.start("runner")
        proxy.silent = True
        wait_until(lambda: len(it.named("begin")) > len(held), what="others run", every=0.05)
        it.pause(it.lease / 10)
        proxy.silent = False
        proxy.cut()
        it.note("a manager is cut off")
        for handle in held:
            handle.cancel()
            handle.wait(_PATIENCE)
        client.close()
        case = it.finish()
        for each in held:
            first, *later = sorted(run for run in case.executions if run.task_id == each.id)
            if any(run.begin < first.last for run in later):
                it.findings.append(f"{each.id} still ran in {first.run} when others had it")
        it.numbers["stopped in time"] = len(case.logged("before its lease ends"))
        return outcome_of(it)


# --- sleepers ------------------------------------------------------------------------------------


def wakes(seconds: float, seed: int, kind: str | None = None) -> Outcome:
    """Idle managers ask for nothing; dead and hung ones that are woken keep nobody waiting."""
    with stage(kind, seed=seed, lease=_SHORT) as it:
        runners = it.cast.start(*["runner"] * 3)
        client = gtaskman.Client(it.settings.url)
        wait_until(
            lambda: len(it.photo().parked()) == len(runners), what="all are parked", every=0.05
        )
        _watch_idle(it, runners)
        _measure(it, client, "all are well", max(10, int(5 * seconds)))
        for word in ("dead", "hung"):
            first = _next_to_be_woken(it)
            if word == "dead":
                first.kill()
            else:
                first.stop(3600)
            _measure(it, client, f"the first is {word}", 3)
            assert word == "dead" or first.wakes_at  # it was stopped all the time
            it.note(f"a {word} manager is woken")
        client.close()
        it.finish()
        return outcome_of(it)


def _watch_idle(it: Stage, runners: list[Player]) -> None:
    since = time.monotonic()

    def beats(runner: Player) -> int:
        return sum(e.what == "beat" and e.pid == runner.pid and e.at > since for e in it.events())

    wait_until(lambda: all(beats(each) >= _BEATS for each in runners), what="beats", every=0.05)
    seen = collections.Counter(each.what for each in it.events() if each.at > since)
    if seen["turn"] > seen["beat"] + len(runners):  # one look with each beat
        it.findings.append(f"while there was nothing to do: {dict(seen)}")


def _next_to_be_woken(it: Stage) -> Player:
    wait_until(
        lambda: len(it.photo().parked()) >= len(it.cast.all("runner")), what="all park", every=0.05
    )
    owner = it.photo().parked()[0]
    pid = next(e.pid for e in it.events() if e.what == "beat" and e.told[0] == owner)
    return next(each for each in it.cast.all("runner") if each.pid == pid)


def _measure(it: Stage, client: gtaskman.Client, word: str, count: int) -> None:
    latencies = []
    for number in range(count):
        sent = time.monotonic()
        handle = client.submit(work.plain, 0.0, f"mark{number}")
        try:
            handle.get(10)
        except TimeoutError:
            it.findings.append(f"{word}: nobody was woken within 10 s: {handle.report}")
            return
        begun = next(e.at for e in it.events() if e.what == "begin" and e.told[1] == handle.id)
        latencies.append((begun - sent) * 1000)
    it.numbers[f"ms until a task begins, {word}"] = [
        round(statistics.median(latencies), 1),
        round(max(latencies), 1),
    ]


# --- mutants -------------------------------------------------------------------------------------


def mutant(name: str, seed: int, kind: str | None = None) -> Outcome:
    """A script, or code, is changed for the worse: the judge must find something."""
    if name in FOUND_BY:
        scenario, seconds, _ = FOUND_BY[name]
        return FLEETS[scenario](seconds, seed, kind, name)
    lost = 0.0 if name in _HARM else 0.25
    with stage(kind, seed=seed, mutant=name, lease=0.5, lost=lost, hearing=True) as it:
        it.cast.start("runner", "runner", "sender")
        for _ in range(5 if name == "no fence" else 1 if name in _HARM else 3):
            it.pause(0.5)
            if name in _HARM:
                it.note(_HARM[name](it))
            if it.findings or it.named("trouble"):
                break
        case = it.finish()
        if name == "no fresh leases":
            it.findings += no_lease_lost(case)
        return outcome_of(it)


def _kill_holder(it: Stage) -> str:
    """One that holds something: it is stopped first, so that this does not change."""

    def found() -> Player | None:
        for each in it.cast.all("runner"):
            each.stop(3600)
            if it.photo().fields(f"o:{_owner(it, each)}"):
                return each
            each.go_on()
        return None

    wait_until(found, what="somebody holds something", every=0.05).kill()
    it.cast.continue_those_due(whatever=True)
    return "kill -9 runner"


def _owner(it: Stage, runner: Player) -> str:
    """The name under which a manager holds tasks."""
    return next(str(e.told[0]) for e in reversed(it.named("beat")) if e.pid == runner.pid)


def _stall_runner(it: Stage) -> str:
    """It comes back when others have its tasks."""
    wait_until(lambda: it.counts().processing > 2, what="something runs")
    done = it.stop_runner()
    it.pause(2.5 * it.lease)
    return done


_HARM: dict[str, Callable[[Stage], str]] = {
    "no fence": _stall_runner,
    "no reaper": _kill_holder,
    "no fresh leases": lambda it: it.kill_server(3),
}


def is_found_out(name: str, outcome: Outcome) -> bool:
    """Whether the judge has found what the mutant does, and not just anything."""
    return any(re.search(SIGNS[name], finding) for finding in outcome.findings)


SIGNS = {
    "no enqueue dedup": "DuplicateTaskError|tasks were queued",
    "no claim replay": "booked on us without a word",
    "no fence": "is in .* and in|is .* and in x|: .* ends|ends were accepted",
    "no reaper": "nothing goes on any more",
    "no fresh leases": "the lease of .* was lost|was taken from its owner",
    **{name: sign for name, (_, _, sign) in FOUND_BY.items()},
}

SCENARIOS: dict[str, Callable[..., Outcome]] = {
    "thousand": thousand,
    "storm": storm,
    "races": races,
    "outages": outages,
    "failover": failover,
    "cut off": cut_off,
    "busy": busy,
    "wakes": wakes,
    **FLEETS,
}
