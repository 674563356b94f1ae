"""What `import gtaskman` costs a process that needs gevent and msgspec anyway.

Each import is timed inside a fresh interpreter, the two kinds in turn, the first of each
dropped: it may have had to compile.
"""

import os
import subprocess
import sys
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.measurement import Measurement
from benchmarks.peers.base import Peer

TIMED = "import time; start = time.perf_counter(); {}; print(time.perf_counter() - start)"
OURS = TIMED.format("import gtaskman")
BASE = TIMED.format("import gevent; import msgspec")


def run(_: type[Peer], times: int) -> Measurement:
    with TemporaryDirectory() as cache:
        pairs = [(fresh(OURS, cache), fresh(BASE, cache)) for _ in range(times + 1)][1:]
    ours, base = (median(side) for side in zip(*pairs, strict=True))
    metrics = {
        "import_ms": ours * 1000,
        "base_ms": base * 1000,
        "to_base": median(ours / base for ours, base in pairs),
    }
    return Measurement(metrics, checked=2 * len(pairs))


def fresh(code: str, cache: str) -> float:
    """Run `code` in an interpreter of its own; give back the seconds it printed.

    What it imports is compiled once, into `cache`, as an installed package is.
    """
    command = [sys.executable, "-c", code]
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": cache}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return float(done.stdout)
