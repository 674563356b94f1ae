"""A manager in a process of its own, for tests that kill it: ``python serving.py JSON``.

It says ``ready``, and ends in good order at SIGTERM.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
from typing import Any

import gevent
import sharing  # noqa: F401 - its tasks
from gevent.event import Event
from scenarios import work  # noqa: F401 - likewise

import gtaskman


def main(
    url: str,
    queues: list[str],
    lease: float,
    timeout: float | None,
    config: dict[str, Any],
) -> None:
    """Serve the queues until we are told to end; then stop within ``timeout`` seconds."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    queue = gtaskman.RedisTaskQueue(url, queues=queues, lease=lease)
    manager = gtaskman.TaskManager(queue, gtaskman.Configuration(**config))
    end = Event()
    gevent.signal_handler(signal.SIGTERM, end.set)
    manager.start()
    assert manager.wait_ready(30)
    print("ready", flush=True)
    end.wait()
    manager.stop(timeout)
    print("stopped", flush=True)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
