"""Where queues, storages and managers may be: what URLs name. Nothing is opened here."""

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
    """Whether this is a URL that names a server, or a client of redis-py for one."""
    if isinstance(url, str):
        return url.partition(":")[0].lower() in SERVERS
    return hasattr(url, "connection_pool") or hasattr(url, "nodes_manager")


def is_socket(url: object) -> bool:
    """Whether this is a URL that names the Unix socket of a manager on this host."""
    return isinstance(url, str) and url.partition(":")[0].lower() == "unix"


def is_elsewhere(url: object) -> bool:
    """Whether tasks that go there are run by managers in other processes."""
    return is_server(url) or is_socket(url)


def scheme_of(url: object) -> str:
    """What an error may show of a URL that is not known: the rest may hold a password."""
    if not isinstance(url, str):
        return f"{url!r:.80}"
    scheme, colon, _ = url.partition(":")
    return f"{scheme!r:.40} (the part before the first colon)" if colon else f"{url!r:.80}"
