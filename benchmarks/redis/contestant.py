"""One peer in one scenario, in a process of its own; the answer is one line of JSON.

    GTASKMAN_BENCHMARK_URL=redis://127.0.0.1:6379/0 \\
        python -m benchmarks.redis.contestant PEER SCENARIO '{"count": 1000}'

The interpreter is that of the peer's virtual environment, the server private and empty.
"""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import asdict

from benchmarks.measurement import Measurement


def measure(peer: str, scenario: str, size: dict[str, float]) -> Measurement:
    """Run `scenario` with `peer`; raises whatever goes wrong, above all `WrongResult`."""
    run = importlib.import_module(f"benchmarks.redis.scenarios.{scenario}").run
    contestant = importlib.import_module(f"benchmarks.redis.peers.{peer}").Contestant
    measurement: Measurement = run(contestant, **size)
    return measurement


def main() -> None:
    peer, scenario, size = sys.argv[1:]
    print(json.dumps(asdict(measure(peer, scenario, json.loads(size)))), flush=True)


if __name__ == "__main__":
    main()
