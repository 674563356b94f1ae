"""Stands for an application of about 60 MB: what the "start" scenario preloads.

Many small objects rather than one block, as an application's modules, templates and tables are:
they are what reference counting and garbage collection would copy in every forked worker.
"""

import os
import time

import gtaskman

ENTRIES = 108_000

catalogue = [
    {"number": number, "name": f"article {number}", "words": [f"{number}-{word}" for word in "abc"]}
    for number in range(ENTRIES)
]


@gtaskman.task
def hold(path: str) -> tuple[int, float]:
    """Keep this worker busy until the fifo at `path` is opened for writing.

    Gives back the worker's pid, and when it began, by the clock of the whole machine.
    """
    began = time.time()
    with open(path):
        return os.getpid(), began


@gtaskman.task
def entries(_: int) -> int:
    """Prove that the application is there."""
    return len(catalogue)
