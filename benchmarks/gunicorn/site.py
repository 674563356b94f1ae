"""The site that is measured: one trivial route, and others whose work computes.

`BENCHMARK_PEER` says who does that work, `BENCHMARK_POOL` how many pool workers there are for each
gunicorn worker.
"""

from __future__ import annotations

import hashlib
import os
import time
from typing import Any

import gevent
from flask import Flask, request

from benchmarks.catalog import OURS
from gtaskman.contrib.flask import GTaskman

SCRYPT: dict[str, Any] = {"n": 2**14, "r": 12, "p": 1}  # some 50 ms

app = Flask(__name__)
app.config["GTASKMAN_MAX_PROCESSES"] = int(os.environ.get("BENCHMARK_POOL", 1))
app.config["GTASKMAN_NICE"] = 19  # whoever answers goes first
gtaskman = GTaskman(app)


@gtaskman.task
def scrypt(password: str, salt: str) -> str:
    """The hash of a password."""
    return hashlib.scrypt(password.encode(), salt=salt.encode(), **SCRYPT).hex()


@gtaskman.task
def spin(number: int, seconds: float) -> int:
    """Compute for so long, by the clock."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return number


def work(task: Any, *arguments: Any) -> Any:
    """Have it done, in a worker or right here."""
    if os.environ["BENCHMARK_PEER"] == OURS:
        return task.submit(*arguments).get(timeout=30)
    return task(*arguments)


@app.get("/")
def index() -> str:
    return "hello"


@app.get("/hash")
def hashed() -> str:
    return str(work(scrypt, request.args["password"], request.args["salt"]))


@app.get("/greenlets")
def greenlets() -> dict[str, Any]:
    """So many tasks from as many greenlets: what they gave, and in which time."""
    count, seconds = request.args.get("count", 1, int), request.args.get("seconds", 1.0, float)
    begin = time.monotonic()
    calls = [gevent.spawn(work, spin, number, seconds) for number in range(count)]
    gevent.joinall(calls, raise_error=True)
    return {"numbers": [call.value for call in calls], "seconds": time.monotonic() - begin}
