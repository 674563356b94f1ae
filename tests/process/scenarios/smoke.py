"""The smallest scenarios: that the worlds are what they say."""

from __future__ import annotations

import os
import sys

from gevent import monkey

from scenarios import stage, tasks


def doubling(number, **config):
    with stage.manager(**config) as manager:
        return manager.submit(tasks.double, number).get(timeout=stage.PATIENCE)


def raising():
    raise LookupError("as it was told")


def leaving_a_process_behind():
    os.posix_spawn(
        sys.executable, [sys.executable, "-c", "import time; time.sleep(60)"], os.environ
    )


def holding():
    stage.tell("ready", pid=os.getpid())
    stage.hold()
    return "released"


def describing():
    return {
        "pid": os.getpid(),
        "patched": monkey.is_module_patched("socket"),
        "gunicorn": "gunicorn" in sys.modules,
    }
