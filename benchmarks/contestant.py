"""One peer in one scenario, in a process of its own; the answer is one line of JSON.

    python -m benchmarks.contestant PEER SCENARIO '{"count": 1000}'

A fresh process per measurement, so that no peer inherits another's threads, children, caches
or hub. Peers of the standard library are refused when gevent has come in with them.
"""

import importlib
import json
import sys
from dataclasses import asdict

from benchmarks.catalog import PEERS
from benchmarks.measurement import Measurement


def measure(peer: str, scenario: str, size: dict[str, float]) -> Measurement:
    """Run `scenario` with `peer`; raises whatever goes wrong, above all `WrongResult`."""
    run = importlib.import_module(f"benchmarks.scenarios.{scenario}").run
    contestant = importlib.import_module(f"benchmarks.peers.{peer}").Contestant
    if "gevent" in sys.modules and "gevent" not in PEERS[peer].packages:
        raise RuntimeError(f"gevent was loaded beside {peer}, which is to run without it")
    measurement: Measurement = run(contestant, **size)
    return measurement


def main() -> None:
    peer, scenario, size = sys.argv[1:]
    print(json.dumps(asdict(measure(peer, scenario, json.loads(size)))), flush=True)


if __name__ == "__main__":
    main()
