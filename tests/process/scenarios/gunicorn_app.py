"""The application of gunicorn's world: says who it is, and performs scenarios."""

import json
import os
from urllib.parse import parse_qsl

import gtaskman
from scenarios import stage

ROUTES = {}
# What an application does when it is imported, in gunicorn's master if that preloads it.
gtaskman.configure(**json.loads(os.environ.get("WORLD_CONFIGURE") or "{}"))
stage.tell("imported", pid=os.getpid())
if "WORLD_SUBMIT_AT_IMPORT" in os.environ:
    from scenarios import tasks

    stage.tell("at import", lineage=gtaskman.submit(tasks.lineage).get(timeout=stage.PATIENCE))


def route(path):
    def add(function):
        ROUTES[path] = function
        return function

    return add


def app(environ, start_response):
    length = int(environ.get("CONTENT_LENGTH") or 0)
    body = environ["wsgi.input"].read(length) if length else b""
    query = dict(parse_qsl(environ.get("QUERY_STRING", "")))
    answer = json.dumps(ROUTES[environ["PATH_INFO"]](body, **query)).encode()
    start_response(
        "200 OK",
        [("Content-Type", "application/json"), ("Content-Length", str(len(answer)))],
    )
    return [answer]


@route("/")
def who(_body):
    return {"pid": os.getpid()}


@route("/perform")
def perform(body):
    stage.perform(json.loads(body))
    return {}


@route("/task")
def task(_body, name="where", **arguments):
    """Run a task with the default manager."""
    from scenarios import tasks

    stage.tell("task", name=name)
    values = {key: json.loads(value) for key, value in arguments.items()}
    return gtaskman.submit(getattr(tasks, name), **values).get(timeout=stage.PATIENCE)
