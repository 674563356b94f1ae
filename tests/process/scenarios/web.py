"""What an application does inside a request of a gunicorn worker."""

from __future__ import annotations

import time

import gevent

import gtaskman
from scenarios import stage, tasks


def several_greenlets_at_once(count, seconds):
    """``count`` greenlets of one request submit at once; how long that takes."""
    gtaskman.submit(tasks.where).get(stage.PATIENCE)
    stage.tell("begun")
    begin = time.monotonic()
    greenlets = [
        gevent.spawn(lambda: gtaskman.submit(tasks.spin, seconds).get(stage.PATIENCE))
        for _ in range(count)
    ]
    workers = [greenlet.get() for greenlet in greenlets]
    return {"seconds": time.monotonic() - begin, "workers": sorted(set(workers))}


def tasks_that_never_end():
    """Blocks one worker of the default manager, uses another, and leaves both as they are."""
    blocked = gtaskman.submit(tasks.spin_for_ever)
    stage.wait_until(lambda: blocked.report.worker)
    idle, template = gtaskman.submit(tasks.lineage).get(stage.PATIENCE)
    stage.tell("busy", blocked=blocked.report.worker, idle=idle, template=template)
