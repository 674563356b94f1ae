"""One more worker: from the request to its first task, and the memory that it adds.

Seen from outside. Every worker there is runs a task that blocks, and the limit allows one more;
then the time from `submit` until the new task is running, by its own clock, is the time that a
new worker takes. The application of about 60 MB is preloaded, as a real one would be.
"""

import os
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import gevent

import gtaskman
from benchmarks import application
from benchmarks.check import same
from benchmarks.measurement import Measurement
from benchmarks.memory import parent_of, resident, unshared
from benchmarks.peers import gtaskman as peers

MIB = 1024 * 1024
STARTED_TIMEOUT = 20.0


def run(contestant: type[peers.Contestant], workers: int) -> Measurement:
    configuration = {
        "min_processes": 1,
        "max_processes": 1 + workers,
        "preload": (application.__name__,),
    }
    # Opened without warming: a burst would start the workers whose start is to be measured.
    with closing(contestant(**configuration)) as peer, TemporaryDirectory() as directory:
        peer.open()
        same("application", peer.burst(application.entries, [(0,)]), [application.ENTRIES])
        fifo = Path(directory, "release")
        os.mkfifo(fifo)
        occupy(peer.manager, fifo)
        asked, handles = zip(*(occupy(peer.manager, fifo) for _ in range(workers)), strict=True)
        pids, began = zip(*release(fifo, handles), strict=True)
        latencies = [after - before for before, after in zip(asked, began, strict=True)]
        metrics = {
            "start_ms": median(latencies) * 1000,
            "worker_uss_mib": median(unshared(pid) for pid in pids) / MIB,
            "template_rss_mib": resident(parent_of(pids[0])) / MIB,
        }
    checked = same("workers", [len(set(pids)), os.getpid() in pids], [workers, False])
    return Measurement(metrics, checked=checked + workers)


def occupy(manager: gtaskman.TaskManager, fifo: Path) -> tuple[float, Any]:
    """Give one worker a task that blocks, wait until it does; when it was asked, and its handle."""
    asked = time.time()
    handle = manager.submit(application.hold, str(fifo))
    deadline = time.monotonic() + STARTED_TIMEOUT
    while handle.report.started_at is None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"no worker started the task within {STARTED_TIMEOUT:.0f} s")
        gevent.sleep(0.001)
    return asked, handle


def release(fifo: Path, handles: Sequence[Any]) -> list[tuple[int, float]]:
    """Let all blocked tasks end; their results, from workers that are idle now."""
    # Opened for reading too: so the call does not block, nor does a task that comes late.
    writer = os.open(fifo, os.O_RDWR)
    try:
        return [handle.get(timeout=STARTED_TIMEOUT) for handle in handles]
    finally:
        os.close(writer)
