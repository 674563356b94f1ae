"""gunicorn's settings in its world; the test adds its own."""

import json
import os

from scenarios import stage

bind = "127.0.0.1:0"
worker_class = "gevent"
workers = 1
graceful_timeout = 5
timeout = 60
accesslog = None
loglevel = "warning"
control_socket_disable = True


def when_ready(server):
    stage.tell("listening", port=server.LISTENERS[0].getsockname()[1])


def post_worker_init(worker):
    stage.gunicorn_worker = worker
    stage.tell("worker", pid=os.getpid(), generation=worker.age)


globals().update(json.loads(os.environ.get("WORLD_GUNICORN") or "{}"))
