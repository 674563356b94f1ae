"""What `import gtaskman` costs a process that needs gevent and msgspec anyway.

Each import is timed inside a fresh interpreter, the two kinds in turn, the first of each
dropped: it may have had to compile.
"""

import subprocess
import sys
from statistics import median

from benchmarks.measurement import Measurement
from benchmarks.peers.base import Peer

TIMED = "import time; start = time.perf_counter(); {}; print(time.perf_counter() - start)"
OURS = TIMED.format("import gtaskman")
BASE = TIMED.format("import gevent; import msgspec")


def run(_: type[Peer], times: int) -> Measurement:
    pairs = [(fresh(OURS), fresh(BASE)) for _ in range(times + 1)][1:]
    ours, base = (median(side) for side in zip(*pairs, strict=True))
    metrics = {
        "import_ms": ours * 1000,
        "base_ms": base * 1000,
        "to_base": median(ours / base for ours, base in pairs),
    }
    return Measurement(metrics, checked=2 * len(pairs))


def fresh(code: str) -> float:
    """Run `code` in an interpreter of its own; give back the seconds it printed."""
    command = [sys.executable, "-c", code]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
