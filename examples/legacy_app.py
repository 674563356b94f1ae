"""A legacy web application that hashes passwords, and still answers everybody else at once.

Serve it, in this directory, then ask it::

    gunicorn -k gevent legacy_app:app         # or: python legacy_app.py
    curl 'localhost:8000/hash?password=secret'

``/`` is trivial, ``/hash`` hashes a password through gtaskman, ``/hash-inline`` does it the old
way, right in the request, and ``/stats`` says what gtaskman has done. scrypt takes a fifth of a
second by design, and a hub that computes for so long serves nobody else meanwhile. See it::

    python examples/legacy_app.py --demo

starts the application on a free port of this machine and puts load on it: how long does ``/``
take alone, beside ``/hash`` and beside ``/hash-inline``? It prints the latencies and ends.
"""

# ruff: noqa: E402 - patching comes first: gunicorn has done it already, ``python`` has not.
from gevent import monkey

monkey.patch_all()

import argparse
import contextlib
import hashlib
import inspect
import json
import os
import signal
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from urllib.parse import parse_qs

import gevent
from gevent.pywsgi import WSGIServer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

import gtaskman

# Only says how the workers shall be: they start with the first submit, in the process that submits.
gtaskman.configure(max_processes=len(os.sched_getaffinity(0)), nice=10)


# --- the task ------------------------------------------------------------------------------------


@gtaskman.task(timeout=30)
def hash_password(password: str) -> dict[str, str]:
    """A fresh salt and the hash, with the parameters that OWASP recommends."""
    salt = os.urandom(16)
    return {"salt": salt.hex(), "hash": scrypt(password, salt).hex()}


def scrypt(password: str, salt: bytes) -> bytes:
    """The slow part."""
    return hashlib.scrypt(password.encode(), salt=salt, n=2**14, r=8, p=5)


# --- the application -----------------------------------------------------------------------------

routes: dict[str, Callable] = {}


def route(path: str) -> Callable:
    """The function below answers at ``path``; it gets the query's fields by name."""
    return lambda function: routes.setdefault(path, function)


@route("/")
def index() -> dict:
    """What most requests are like."""
    return {"hello": "world"}


@route("/hash")
def hash_in_a_worker(password: str) -> dict:
    """The one line that changed: this greenlet waits, and the hub serves the others."""
    return hash_password.submit(password).get()


@route("/hash-inline")
def hash_right_here(password: str) -> dict:
    """As it was: nothing else happens in this process until it is done."""
    return hash_password(password)


@route("/stats")
def stats() -> dict:
    """What gtaskman has done for this process."""
    return gtaskman.stats()


def app(environ: dict, start_response: Callable) -> list[bytes]:
    """The WSGI application: finds the route, answers with JSON."""
    status, answer = respond(environ["PATH_INFO"], parse_qs(environ["QUERY_STRING"]))
    body = json.dumps(answer).encode() + b"\n"
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    start_response(status, headers)
    return [body]


def respond(path: str, query: dict[str, list[str]]) -> tuple[str, dict]:
    """A status and what to say."""
    if path not in routes:
        return "404 Not Found", {"error": f"there is {', '.join(routes)}"}
    wanted = inspect.signature(routes[path]).parameters
    if query.keys() != wanted.keys():
        return "400 Bad Request", {"error": f"{path} takes: {', '.join(wanted) or 'nothing'}"}
    try:
        return "200 OK", routes[path](**{name: values[0] for name, values in query.items()})
    except gtaskman.TaskFailed as error:
        return "503 Service Unavailable", {"error": str(error)}


def serve(port: int) -> None:
    """Serve until somebody sends TERM or presses Ctrl-C."""
    gtaskman.start()  # not in the first request; under gunicorn, post_worker_init is the place
    server = WSGIServer(("127.0.0.1", port), app, log=None)
    server.start()
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    gevent.signal_handler(signal.SIGTERM, server.stop)
    gevent.signal_handler(signal.SIGINT, server.stop)
    server.serve_forever()


# --- the demonstration: a client in a process of its own, which keeps time whatever the server does

SECONDS, EVERY, HASHING = 3.0, 0.01, 3  # of each round; between two requests for /; who hash


def demo() -> None:
    """Start the application, measure three rounds, print them."""
    with started() as root:
        rounds = {
            "alone": measure(root, None),
            "beside /hash": measure(root, "/hash"),
            "beside /hash-inline": measure(root, "/hash-inline"),
        }
        numbers = fetch(f"{root}/stats")["pool"]
    show(rounds, numbers)


@contextlib.contextmanager
def started() -> Iterator[str]:
    """The application in a process of its own; gives its address."""
    command = [sys.executable, __file__, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


def fetch(url: str) -> dict:
    """One request."""
    with urllib.request.urlopen(url, timeout=60) as response:
        return json.load(response)


def measure(root: str, hashing: str | None) -> tuple[list[float], int]:
    """Ask for ``/`` at a fixed rate while others hash: the latencies, and how many hashes."""
    latencies: list[float] = []
    hashed: list[dict] = []
    end = time.monotonic() + SECONDS

    def ask() -> None:
        begin = time.monotonic()
        fetch(root)
        latencies.append(time.monotonic() - begin)

    def hash_on() -> None:
        while time.monotonic() < end:
            hashed.append(fetch(f"{root}{hashing}?password=secret"))

    others = [gevent.spawn(hash_on) for _ in range(HASHING if hashing else 0)]
    # One after the other would ask less while the server is slow, and so hide how slow it is.
    asking = [gevent.spawn_later(number * EVERY, ask) for number in range(round(SECONDS / EVERY))]
    gevent.joinall([*others, *asking], raise_error=True)
    for one in hashed[-1:]:
        assert scrypt("secret", bytes.fromhex(one["salt"])).hex() == one["hash"]
    return latencies, len(hashed)


def show(rounds: dict[str, tuple[list[float], int]], numbers: dict) -> None:
    """The latencies side by side."""
    title = f"Latency of / in ms, asked for every {EVERY * 1000:.0f} ms for {SECONDS:.0f} s"
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    table.add_column("")
    for heading in ("answers", "p50", "p90", "p99", "max", "hashes"):
        table.add_column(heading, justify="right")
    for name, (latencies, hashes) in rounds.items():
        cuts = statistics.quantiles(latencies, n=100, method="inclusive")
        marks = (cuts[49], cuts[89], cuts[98], max(latencies))
        cells = [f"{mark * 1000:,.{0 if mark > 0.1 else 1}f}" for mark in marks]
        table.add_row(name, f"{len(latencies):,}", *cells, f"{hashes:,}")
    console = Console(highlight=False)
    console.print(table)
    console.print(f" {HASHING} clients hashed at once; the last hash of each round was checked.")
    console.print(
        f" /stats: {numbers['completed_tasks']} tasks completed, {numbers['failed_tasks']} failed,"
        f" {numbers['current_processes']} workers"
    )


def main() -> None:
    """Serve, or demonstrate."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, default=8000, help="0 for any (default: 8000)")
    parser.add_argument("--demo", action="store_true", help="measure it, print a table, end")
    arguments = parser.parse_args()
    demo() if arguments.demo else serve(arguments.port)


if __name__ == "__main__":
    main()
