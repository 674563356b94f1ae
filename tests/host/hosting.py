"""A manager in a process of its own that others of this host use: ``python hosting.py JSON``.

It says ``ready``, and ends in good order at SIGTERM.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
from typing import Any

import gevent
from gevent.event import Event
from scenarios import tasks, work  # noqa: F401 - what others may name

import gtaskman
from gtaskman.host import HostServer


def main(
    path: str,
    queue: str,
    lease: float,
    timeout: float | None,
    config: dict[str, Any],
    options: dict[str, Any],
) -> None:
    """Serve at ``path`` until we are told to end; then stop within ``timeout`` seconds."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    taken = gtaskman.RedisTaskQueue(queue, lease=lease) if queue else "memory://"
    manager = gtaskman.TaskManager(taken, gtaskman.Configuration(**config))
    server = HostServer(manager, path, **options)
    end = Event()
    gevent.signal_handler(signal.SIGTERM, end.set)
    server.start()
    assert manager.wait_ready(30)
    print("ready", flush=True)
    end.wait()
    server.stop(timeout)
    print("stopped", flush=True)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
