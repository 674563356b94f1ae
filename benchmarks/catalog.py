"""What is measured, with whom, how much of it, and which value is wanted.

Data only. How a scenario is run stands in its module in `benchmarks.scenarios`.
"""

from dataclasses import dataclass

OURS = "gtaskman"


@dataclass(frozen=True)
class PeerInfo:
    """A contestant's name for readers, and the packages it cannot run without."""

    label: str
    packages: tuple[str, ...] = ()


PEERS = {
    OURS: PeerInfo("gtaskman", ("gtaskman", "gevent", "msgspec")),
    "declared": PeerInfo("gtaskman, @task", ("gtaskman", "gevent", "msgspec")),
    "executor": PeerInfo("ProcessPoolExecutor"),
    "pool": PeerInfo("multiprocessing.Pool"),
    "loky": PeerInfo("loky", ("loky",)),
    "gipc": PeerInfo("bare gipc echo", ("gipc", "gevent")),
}


@dataclass(frozen=True)
class Metric:
    """A measured number: its name for readers, its unit, and whether more of it is better."""

    label: str
    unit: str
    higher_is_better: bool = False

    @property
    def decimals(self) -> int:
        return 0 if self.unit.endswith("/s") else 2

    def number(self, value: float) -> str:
        """A value as a reader wants to see it, without its unit."""
        if self.unit == "%":
            return f"{value * 100:.1f}"
        return f"{value:,.{self.decimals}f}"

    def text(self, value: float) -> str:
        """A value with its unit."""
        space = "" if self.unit == "x" else " "
        return f"{self.number(value)}{space}{self.unit}"


@dataclass(frozen=True)
class Target:
    """The value that gtaskman's `metric` is to reach, by itself or as a multiple of a peer's."""

    metric: str
    bound: float
    against: str | None = None


@dataclass(frozen=True)
class Scenario:
    """One row of the catalogue; `size` and `quick` are the arguments of the module's `run`."""

    title: str
    peers: tuple[str, ...]
    metrics: dict[str, Metric]
    size: dict[str, float]
    quick: dict[str, float]
    targets: tuple[Target, ...] = ()
    note: str = ""


def _rate(what: str) -> Metric:
    return Metric(what, "/s", higher_is_better=True)


_LAGS = {
    f"{name}_{key}": Metric(f"{label}, {text}", "ms")
    for name, label in (("lag", "hub lag"), ("bare_lag", "hub lag beside bare processes"))
    for key, text in (("p50_ms", "p50"), ("p99_ms", "p99"), ("max_ms", "max"))
}

_PASSAGES = {
    name: metric
    for direction, what in (("to", "argument"), ("from", "result"))
    for kind in ("bytes", "bytearray")
    for name, metric in (
        (f"{direction}_{kind}_mb_per_second", Metric(f"{kind} {what}", "MB/s", True)),
        (f"{direction}_{kind}_lag_max_ms", Metric(f"hub lag max, {kind} {what}", "ms")),
    )
}

SCENARIOS = {
    "burst": Scenario(
        title="burst of no-op sync tasks",
        peers=(OURS, "declared", "executor", "pool", "loky", "gipc"),
        metrics={"tasks_per_second": _rate("tasks")},
        size={"count": 20_000},
        quick={"count": 4_000},
        targets=(
            Target("tasks_per_second", 100_000),
            Target("tasks_per_second", 8, against="executor"),
            Target("tasks_per_second", 4, against="pool"),
        ),
    ),
    "echo": Scenario(
        title="burst of sync tasks with a number there and back",
        peers=(OURS, "declared", "executor", "pool", "loky", "gipc"),
        metrics={"tasks_per_second": _rate("tasks")},
        size={"count": 20_000},
        quick={"count": 4_000},
    ),
    "round_trips": Scenario(
        title="one at a time: submit, wait, submit the next",
        peers=(OURS, "declared", "executor", "pool", "loky", "gipc"),
        metrics={"round_trips_per_second": _rate("round trips")},
        size={"count": 4_000},
        quick={"count": 1_000},
        targets=(Target("round_trips_per_second", 3, against="executor"),),
    ),
    "async_burst": Scenario(
        title="burst of no-op async tasks",
        peers=(OURS,),
        metrics={"tasks_per_second": _rate("tasks")},
        size={"count": 20_000},
        quick={"count": 10_000},
        targets=(Target("tasks_per_second", 50_000),),
    ),
    "mapping": Scenario(
        title="map in chunks of 64",
        peers=(OURS, "declared", "executor", "pool"),
        metrics={"values_per_second": _rate("values")},
        size={"count": 500_000, "chunksize": 64},
        quick={"count": 50_000, "chunksize": 64},
        targets=(Target("values_per_second", 0.8, against="pool"),),
        note="multiprocessing.Pool: imap_unordered; the others keep the order",
    ),
    "wave": Scenario(
        title="2,000 async sleeps of 50 ms at once",
        peers=(OURS,),
        metrics={
            "to_ideal": Metric("makespan / 50 ms", "x"),
            "makespan_ms": Metric("makespan", "ms"),
        },
        size={"count": 2_000, "seconds": 0.05, "waves": 5},
        quick={"count": 2_000, "seconds": 0.05, "waves": 3},
        targets=(Target("to_ideal", 2),),
    ),
    "cpu": Scenario(
        title="5 ms of computing per task, flat out",
        peers=(OURS,),
        metrics={
            "efficiency": Metric("work done, of two bare processes'", "%", True),
            "unit_ms": Metric("one task's loops, bare", "ms"),
            **_LAGS,
        },
        size={"seconds": 3.0, "unit": 0.005},
        quick={"seconds": 1.0, "unit": 0.005},
        targets=(Target("efficiency", 0.95), Target("lag_p99_ms", 2)),
        note="a ticker of 1 ms runs in the parent, beside the bare processes too",
    ),
    "skew": Scenario(
        title="5 % tasks of 200 ms among tasks of 2 ms",
        peers=(OURS, "executor"),
        metrics={
            "to_ideal": Metric("makespan / ideal", "x"),
            "greedy_to_ideal": Metric("a costless greedy scheduler's", "x"),
            "makespan_ms": Metric("makespan", "ms"),
        },
        size={"count": 400, "share": 0.05, "long": 0.2, "short": 0.002},
        quick={"count": 200, "share": 0.05, "long": 0.2, "short": 0.002},
        targets=(Target("to_ideal", 1.1),),
        note="the tasks sleep: order alone counts, not cores",
    ),
    "big": Scenario(
        title="100 MB argument, 100 MB result",
        peers=(OURS,),
        metrics={
            "lag_max_ms": Metric("hub lag max, of all", "ms"),
            "idle_lag_max_ms": Metric("hub lag max, idle hub", "ms"),
            **_PASSAGES,
        },
        size={"megabytes": 100},
        quick={"megabytes": 100},
        targets=(Target("lag_max_ms", 10),),
        note="contents compared by digest, outside the timed part",
    ),
    "start": Scenario(
        title="one more worker of a 60 MB application",
        peers=(OURS,),
        metrics={
            "start_ms": Metric("submit until started", "ms"),
            "worker_uss_mib": Metric("USS of an idle worker", "MiB"),
            "template_rss_mib": Metric("RSS of what it was forked from", "MiB"),
        },
        size={"workers": 30},
        quick={"workers": 12},
        targets=(Target("start_ms", 10), Target("worker_uss_mib", 4)),
    ),
    "imports": Scenario(
        title="import gtaskman, in fresh interpreters",
        peers=(OURS,),
        metrics={
            "to_base": Metric("to that of gevent and msgspec", "x"),
            "import_ms": Metric("import gtaskman", "ms"),
            "base_ms": Metric("import gevent, msgspec", "ms"),
        },
        size={"times": 11},
        quick={"times": 7},
        targets=(Target("to_base", 1.5),),
    ),
}
