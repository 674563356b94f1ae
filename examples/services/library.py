"""A web service, a queue manager and a ticker, kept alive by one command.

Run it, after ``pip install -e '.[embedded]'`` in the repository::

    gtaskman services run examples/services/system.toml

and, in another terminal::

    gtaskman services status
    curl http://127.0.0.1:8080/json/decoder.py               # what is in that file
    gtaskman services call web set_greeting 'Good morning'   # one of its two processes
    gtaskman services call ticker seen
    kill -9 PID                                              # of any of them: it comes back
    gtaskman services reload web                             # no request is lost
    gtaskman services stop ticker

``system.toml`` says what runs, this file what it does::

    browser -> web (two processes, one socket) -> queue -> its workers
               ticker -> its parent, the supervisor

* ``web`` answers HTTP on a socket that the supervisor opened and keeps. What is asked for is
  computed elsewhere: a task goes to the queue, and the greenlet waits.
* ``queue`` is a service that runs a :class:`gtaskman.TaskManager` of its own, whose workers parse
  and hash the files. The queue is on a server that both share (``embedded:``): what was sent
  while ``queue`` is away waits for it.
* ``ticker`` looks how long the queue is, and calls its parent, which remembers all it was told,
  whatever becomes of the ticker.
"""

from __future__ import annotations

import ast
import hashlib
import html
import json
import os
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

import gevent
from gevent.event import Event
from gevent.pool import Pool
from gevent.pywsgi import WSGIServer

import gtaskman

LIBRARY = Path(sysconfig.get_path("stdlib")).resolve()
QUEUE = os.environ.get(
    "LIBRARY_QUEUE", f"embedded:{tempfile.gettempdir()}/gtaskman-library-{os.geteuid()}"
)
PATIENCE = 30.0  # seconds that a request may take


@gtaskman.task(timeout=20, retries=2)
def examine(name: str) -> dict[str, Any]:
    """What is in one source of the standard library; computed by a worker of ``queue``."""
    source = (LIBRARY / name).read_bytes()
    tree = ast.parse(source)
    functions = [
        (each.name, (each.end_lineno or each.lineno) - each.lineno + 1)
        for each in ast.walk(tree)
        if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]
    return {
        "name": name,
        "sha256": hashlib.sha256(source).hexdigest(),
        "lines": len(source.splitlines()),
        "functions": len(functions),
        "longest": max(functions, key=lambda each: each[1], default=None),
    }


class Queue(gtaskman.ServiceTask, notify=True):
    """A manager of tasks, kept alive like any other service."""

    workers: int = 2

    def run(self, progress: gtaskman.Progress) -> None:
        """Serve the queue until told to stop."""
        self.told = Event()
        config = gtaskman.Configuration(max_processes=self.workers, stop_timeout=3)
        self.manager = gtaskman.TaskManager(QUEUE, config)
        with self.manager:
            progress.update(message=f"serves {QUEUE}")
            self.ready()
            self.told.wait()

    def stop(self) -> None:
        """Let its tasks finish; what cannot goes back to the queue."""
        self.told.set()

    @gtaskman.remote
    def stats(self) -> dict[str, Any]:
        """The numbers of its pool and its queue."""
        return self.manager.stats()


class Web(gtaskman.ServiceTask):
    """Answers HTTP: a page that greets, and what is in a file of the standard library."""

    greeting: str

    def run(self, _progress: gtaskman.Progress) -> None:
        """Serve until told to stop."""
        self.draining = False
        self.answered = 0
        self.server = WSGIServer(self.sockets["http"], self.answer, log=None, spawn=Pool(1000))
        with gtaskman.Client(QUEUE) as self.client:
            self.server.serve_forever(stop_timeout=4)

    def stop(self) -> None:
        """Take no more requests, and answer those that are under way."""
        self.draining = True
        self.server.stop(timeout=4)

    def answer(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        """One request."""
        status, kind, body = self._page(environ["PATH_INFO"].strip("/"))
        self.answered += 1
        headers = [("Content-Type", kind), ("Content-Length", str(len(body)))]
        headers.append(("X-Process", str(os.getpid())))
        if self.draining:
            headers.append(("Connection", "close"))  # let whoever keeps it come to the new one
        start_response(status, headers)
        return [body]

    def _page(self, name: str) -> tuple[str, str, bytes]:
        if not name:
            return "200 OK", "text/html", f"<h1>{html.escape(self.greeting)}</h1>".encode()
        path = (LIBRARY / name).resolve()
        if path.suffix != ".py" or not path.is_relative_to(LIBRARY) or not path.is_file():
            return "404 Not Found", "text/plain", b"no such file\n"
        try:
            found = self.client.submit(examine, name).get(timeout=PATIENCE)
        except gtaskman.TaskFailed as failed:
            return "500 Failed", "text/plain", f"{failed.message}\n".encode()
        return "200 OK", "application/json", json.dumps(found).encode() + b"\n"

    @gtaskman.remote
    def set_greeting(self, text: str) -> str:
        """Say something else from now on; gives what was said before."""
        before, self.greeting = self.greeting, text
        return before

    @gtaskman.remote
    def count(self) -> int:
        """How many requests this process has answered."""
        return self.answered

    @gtaskman.remote
    def is_well(self) -> bool:
        """Whether it has a server, which is asked now and then."""
        return self.server.started


class Ticker(gtaskman.ServiceTask):
    """Looks now and then, and tells its parent."""

    every: float = 1.0
    ticks = 0  # in the parent: what was told so far
    most = 0

    def run(self, progress: gtaskman.Progress) -> None:
        """Look until told to stop, which ends the sleep."""
        with gtaskman.Client(QUEUE) as client:
            while True:
                waiting = client.count(finished=False)
                ticks = self.parent.note(waiting)
                self.emit("tick", waiting)
                progress.update(message=f"tick {ticks}: {waiting} tasks wait or run")
                gevent.sleep(self.every)

    @gtaskman.remote(parent=True)
    def note(self, waiting: int) -> int:
        """In the parent: remember; gives how many ticks there were."""
        self.ticks += 1
        self.most = max(self.most, waiting)
        return self.ticks

    @gtaskman.remote(parent=True)
    def recall(self) -> dict[str, int]:
        """In the parent: what is remembered."""
        return {"ticks": self.ticks, "most": self.most}

    @gtaskman.remote
    def seen(self) -> dict[str, int]:
        """What its parent remembers of all tickers that there were."""
        return self.parent.recall()
