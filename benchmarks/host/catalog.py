"""What is measured over a Unix socket, with whom, how much of it, and which value is wanted.

Data only, in the words of `benchmarks.catalog`, whose readers (summary, table, record) take these
rows too once `enter` has put them there.
"""

from __future__ import annotations

from benchmarks import catalog
from benchmarks.catalog import OURS, Metric, PeerInfo, Scenario, Target

EMBEDDED = "embedded"

PEERS = {
    OURS: PeerInfo("over the socket", catalog.PEERS[OURS].packages),
    EMBEDDED: PeerInfo("embedded", catalog.PEERS[OURS].packages),
}

SCENARIOS = {
    "round_trip": Scenario(
        title="one at a time: submit, wait, submit the next",
        peers=(OURS, EMBEDDED),
        metrics={
            "mean_us": Metric("a round trip", "µs"),
            "p50_us": Metric("p50", "µs"),
            "p99_us": Metric("p99", "µs"),
        },
        size={"count": 4_000},
        quick={"count": 500},
        targets=(Target("mean_us", 2, against=EMBEDDED),),
    ),
    "burst": Scenario(
        title="burst of no-op sync tasks",
        peers=(OURS, EMBEDDED),
        metrics={"tasks_per_second": Metric("tasks", "/s", higher_is_better=True)},
        size={"count": 10_000},
        quick={"count": 2_000},
    ),
    "big": Scenario(
        title="a result of 100 MB",
        peers=(OURS, EMBEDDED),
        metrics={
            "seconds": Metric("until it is there", "s"),
            "lag_max_ms": Metric("hub lag, max", "ms"),
        },
        size={"megabytes": 100},
        quick={"megabytes": 20},
        targets=(Target("lag_max_ms", 10),),
        note="the hub is that of the process that waits",
    ),
}


def enter() -> None:
    """Put these peers and scenarios into the catalogue that the rest of the package reads."""
    catalog.PEERS.update(PEERS)
    catalog.SCENARIOS.update(SCENARIOS)
