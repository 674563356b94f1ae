"""What is measured over Redis, with whom, how much of it, and which value is wanted.

Data only, in the words of `benchmarks.catalog`, whose readers (summary, table, record) take these
rows too once `enter` has put them there.
"""

from __future__ import annotations

from benchmarks import catalog
from benchmarks.catalog import OURS, Metric, PeerInfo, Scenario, Target

BARE = "bare"

PEERS = {
    OURS: catalog.PEERS[OURS],
    "celery": PeerInfo("Celery"),
    "rq": PeerInfo("RQ"),
    "dramatiq": PeerInfo("Dramatiq"),
    "huey": PeerInfo("Huey"),
    "arq": PeerInfo("arq"),
    "taskiq": PeerInfo("taskiq"),
    BARE: PeerInfo("bare scripts", catalog.PEERS[OURS].packages),
}

# What is installed into each peer's own environment; gtaskman and its scripts run in ours.
REQUIREMENTS = {
    "celery": ("celery[redis,gevent]>=5.4", "hiredis"),
    "rq": ("rq>=2", "redis[hiredis]"),
    "dramatiq": ("dramatiq[redis,gevent]>=1.17", "hiredis"),
    "huey": ("huey>=3", "redis[hiredis]", "gevent"),
    "arq": ("arq>=0.26",),
    "taskiq": ("taskiq>=0.11", "taskiq-redis>=1", "redis[hiredis]"),
}

OTHERS = tuple(REQUIREMENTS)
EVERYBODY = (OURS, *OTHERS)


def _rate(what: str) -> Metric:
    return Metric(what, "/s", higher_is_better=True)


def _than_each(metric: str, bound: float) -> tuple[Target, ...]:
    """The same target against each of the others: who is the fastest is seen in the run."""
    return tuple(Target(metric, bound, against=peer) for peer in OTHERS)


_DRAINED = {
    "tasks_per_second": _rate("tasks"),
    "collected_per_second": _rate("results in hand"),
}

SCENARIOS = {
    "enqueue": Scenario(
        title="one client sends one task at a time",
        peers=EVERYBODY,
        metrics={"tasks_per_second": _rate("tasks sent")},
        size={"count": 5_000},
        quick={"count": 500},
        targets=_than_each("tasks_per_second", 1),
        note="nobody takes them",
    ),
    "bulk": Scenario(
        title="one client sends many tasks at once",
        peers=EVERYBODY,
        metrics={"tasks_per_second": _rate("tasks sent")},
        size={"count": 10_000},
        quick={"count": 1_000},
        targets=_than_each("tasks_per_second", 2),
        note="by each one's own call for many, one by one where it has none (arq, taskiq)",
    ),
    "noop": Scenario(
        title="no-op tasks, queued before two worker processes",
        peers=(*EVERYBODY, BARE),
        metrics=_DRAINED,
        size={"count": 10_000},
        quick={"count": 1_000},
        targets=(
            *_than_each("tasks_per_second", 3),
            Target("tasks_per_second", 0.5, against=BARE),
        ),
        note="from the workers' start until the last result is on the server, then collected",
    ),
    "nap": Scenario(
        title="tasks that sleep 10 ms, queued before two worker processes",
        peers=EVERYBODY,
        metrics=_DRAINED,
        size={"count": 2_000, "seconds": 0.01},
        quick={"count": 300, "seconds": 0.01},
        note="100 at a time in each process; RQ has no way for that and runs one",
    ),
    "round_trip": Scenario(
        title="submit, wait for the result, submit the next",
        peers=EVERYBODY,
        metrics={"p50_us": Metric("p50", "µs"), "p99_us": Metric("p99", "µs")},
        size={"count": 1_000},
        quick={"count": 100},
        targets=_than_each("p50_us", 0.8),
    ),
    "idle": Scenario(
        title="two worker processes with nothing to do",
        peers=EVERYBODY,
        metrics={
            "commands_per_second": Metric("commands sent", "a second"),
            "with_scripts": Metric("with those inside scripts", "a second"),
        },
        size={"seconds": 5.0},
        quick={"seconds": 2.0},
        targets=(Target("commands_per_second", 1),),
    ),
    "memory": Scenario(
        title="server memory of a waiting task with a text of 150 bytes",
        peers=EVERYBODY,
        metrics={"bytes_per_task": Metric("memory", "bytes")},
        size={"count": 20_000, "size": 150},
        quick={"count": 2_000, "size": 150},
        note="the text is the argument: name, times and ids come on top, for everybody",
    ),
    "record": Scenario(
        title="server memory of a waiting task of 150 bytes",
        peers=(OURS,),
        metrics={"bytes_per_task": Metric("memory", "bytes")},
        size={"count": 20_000, "size": 150},
        quick={"count": 5_000, "size": 150},
        targets=(Target("bytes_per_task", 700),),
        note="the whole envelope has 150 bytes",
    ),
    "waiters": Scenario(
        title="1,000 greenlets of one process wait for results",
        peers=(OURS,),
        metrics={
            "lag_p99_ms": Metric("hub lag, p99", "ms"),
            "lag_p50_ms": Metric("hub lag, p50", "ms"),
            "lag_max_ms": Metric("hub lag, max", "ms"),
            "reply_connections": Metric("connections for replies", "in all"),
            "connections": Metric("connections", "in all"),
        },
        size={"greenlets": 1_000, "tasks": 10, "seconds": 0.1},
        quick={"greenlets": 1_000, "tasks": 3, "seconds": 0.1},
        targets=(Target("lag_p99_ms", 5), Target("reply_connections", 1)),
        note="a ticker of 1 ms runs beside them",
    ),
    "flat": Scenario(
        title="one completion while more and more finished tasks are kept",
        peers=(OURS,),
        metrics={
            "growth": Metric("with the most to with the fewest", "x"),
            "few_us": Metric("with the fewest", "µs"),
            "more_us": Metric("with more", "µs"),
            "many_us": Metric("with the most", "µs"),
        },
        size={"few": 1_000, "more": 100_000, "many": 1_000_000, "sample": 2_000},
        quick={"few": 1_000, "more": 5_000, "many": 20_000, "sample": 500},
        targets=(Target("growth", 1.25),),
        note="1,000, 100,000 and 1,000,000 finished tasks (--quick: 1,000, 5,000, 20,000)",
    ),
}


def enter() -> None:
    """Put these peers and scenarios into the catalogue that the rest of the package reads."""
    catalog.PEERS.update(PEERS)
    catalog.SCENARIOS.update(SCENARIOS)
