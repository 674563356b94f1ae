# ruff: noqa: N999 - the name is gunicorn's
"""As a user has it: settings, our line, and hooks of one's own on either side of it."""

import json
import os
from pathlib import Path

from gtaskman.contrib.gunicorn import install

given = json.loads(os.environ["SERVED"])
news = Path(os.environ["SERVED_DIRECTORY"], "news")

bind = "127.0.0.1:0"
worker_class = "gevent"
graceful_timeout = 10
control_socket_disable = True
globals().update(given["settings"])


def opener(path, flags):
    os.umask(0)  # the master and its workers may be of several users
    return os.open(path, flags, 0o666)


def tell(hook):
    with open(news, "a", opener=opener) as file:
        file.write(f"{hook} {os.getpid()}\n")


def nworkers_changed(server, new, old):
    tell("nworkers_changed")


def post_worker_init(worker):
    tell("post_worker_init")


def worker_int(worker):
    tell("worker_int")


install(globals(), **given["install"])


# Defined after our line, and called all the same.
def when_ready(server):
    path = Path(os.environ["SERVED_DIRECTORY"], "port")
    path.with_suffix(".new").write_text(str(server.LISTENERS[0].getsockname()[1]))
    path.with_suffix(".new").rename(path)


def pre_fork(server, worker):
    tell("pre_fork")


def on_reload(server):
    tell("on_reload")


def worker_abort(worker):
    tell("worker_abort")


def worker_exit(server, worker):
    tell("worker_exit")


on_exit = "served.hooks.on_exit"
