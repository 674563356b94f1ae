"""Where queues and storages may be: which URLs name a server. Nothing is opened here."""

from __future__ import annotations

SERVERS = (
    "redis",
    "rediss",
    "redis+socket",
    "redis+sentinel",
    "redis+cluster",
    "rediss+sentinel",
    "rediss+cluster",
    "embedded",
)
"""The schemes of URLs that name a server."""


def is_server(url: object) -> bool:
    """Whether this is a URL that names a server."""
    return isinstance(url, str) and url.partition(":")[0].lower() in SERVERS
