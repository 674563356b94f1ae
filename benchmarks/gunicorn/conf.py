"""gunicorn's settings for a measurement; on standard output it says where it listens."""

from __future__ import annotations

from typing import Any

bind = "127.0.0.1:0"
worker_class = "gevent"
keepalive = 75  # seconds: clients keep their connections, as a proxy does
loglevel = "warning"


def when_ready(server: Any) -> None:
    print(server.LISTENERS[0].getsockname()[1], flush=True)
