"""The application: each answer says which process gave it."""

import json
import os
import signal
from urllib.parse import parse_qsl

import gtaskman
from served import work

VERSION = work.version()
if json.loads(os.environ["SERVED"])["settings"].get("submits_at_import"):
    gtaskman.submit(work.where).get(timeout=30)


def app(environ, start_response):
    given = dict(parse_qsl(environ.get("QUERY_STRING", "")))
    try:
        status, value = "200 OK", ROUTES[environ["PATH_INFO"]](**given)
    except gtaskman.GTaskmanError as error:
        status, value = "500 Oops", f"{type(error).__name__}: {error}"
    answer = {"lineage": work.lineage(), "version": VERSION, "value": value}
    body = json.dumps(answer).encode()
    start_response(
        status, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    )
    return [body]


def who():
    return os.getpid()


def run(task, **given):
    """Run a task and wait for its value."""
    return gtaskman.submit(getattr(work, task), **given).get(timeout=30)


def submit(task, **given):
    """Submit a task and wait for nothing."""
    return gtaskman.submit(getattr(work, task), **given).id


def hang():
    """What nobody should do: compute in a request, and never yield."""
    work.touch("hanging")
    while True:
        pass


def fork():
    """Fork a process that outlives this request."""
    child = os.fork()
    if not child:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        while True:
            signal.pause()
    return child


def stats():
    return gtaskman.stats()


ROUTES = {"/": who, "/run": run, "/submit": submit, "/hang": hang, "/stats": stats, "/fork": fork}
