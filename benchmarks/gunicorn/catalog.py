"""What is measured in a web server, with whom, how much of it, and which value is wanted.

Data only, in the words of `benchmarks.catalog`, whose readers (summary, table, record) take these
rows too once `enter` has put them there.
"""

from __future__ import annotations

from benchmarks import catalog
from benchmarks.catalog import OURS, Metric, PeerInfo, Scenario, Target

INLINE = "inline"

PEERS = {
    OURS: PeerInfo("gtaskman", ("gtaskman", "gevent", "flask", "gunicorn")),
    INLINE: PeerInfo("in the request", ("gevent", "flask", "gunicorn")),
}


def _latencies(label: str, prefix: str) -> dict[str, Metric]:
    return {f"{prefix}_{key}_ms": Metric(f"{label}, {key}", "ms") for key in ("p50", "p99", "max")}


SCENARIOS = {
    "hashing": Scenario(
        title="the trivial route while others hash passwords, 2 gunicorn workers",
        peers=(OURS, INLINE),
        metrics={
            "growth": Metric("p99 beside hashing, to alone", "x"),
            **_latencies("beside hashing", "beside"),
            **_latencies("alone", "alone"),
            "hashes_per_second": Metric("hashes", "/s", higher_is_better=True),
            "hash_ms": Metric("one hash, bare", "ms"),
        },
        size={"rate": 150, "seconds": 12.0, "turns": 6, "hashers": 4},
        quick={"rate": 50, "seconds": 1.0, "turns": 1, "hashers": 4},
        targets=(Target("growth", 3), Target("beside_p99_ms", 1 / 20, against=INLINE)),
        note="one pool worker of niceness 19 for each gunicorn worker; p99 to p99: median of turns",
    ),
    "greenlets": Scenario(
        title="8 tasks of one second from 8 greenlets of one gunicorn worker, 2 pool workers",
        peers=(OURS, INLINE),
        metrics={"seconds": Metric("until all have ended", "s")},
        size={"count": 8, "seconds": 1.0, "pool": 2},
        quick={"count": 8, "seconds": 0.1, "pool": 2},
        targets=(Target("seconds", 4.4),),
        note="tasks that compute until their second is over; four of them one after the other",
    ),
}


def enter() -> None:
    """Put these peers and scenarios into the catalogue that the rest of the package reads."""
    catalog.PEERS.update(PEERS)
    catalog.SCENARIOS.update(SCENARIOS)
