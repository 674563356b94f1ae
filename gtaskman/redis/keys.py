"""Names on the server: bases of keys, and channels. The keys under a base are the scripts' own."""

from __future__ import annotations

import functools

from gtaskman.errors import ConfigurationError

LONGEST_NAME = 100  # characters of a namespace or of a queue's name: they are in every key


@functools.lru_cache(maxsize=1024)
def queue_base(namespace: str, queue: str) -> str:
    """What all keys of a queue begin with. Raises :class:`ConfigurationError`."""
    return _base("gtm", namespace, "queue", queue)


def storage_base(namespace: str, name: str) -> str:
    """What all keys of a storage of reports begin with. Raises :class:`ConfigurationError`."""
    return _base("gts", namespace, "storage", name)


def queues_key(namespace: str) -> str:
    """Where the names of a namespace's queues are kept; in a cluster, in a slot of its own."""
    return f"gtm:{{{_checked('namespace', namespace)}}}:queues"


def owner_channel(base: str, owner: str) -> str:
    """Where an owner is woken and asked to cancel."""
    return f"{base}:m:{owner}"


def client_channel(base: str, client: str) -> str:
    """Where a client is told how its tasks ended; kept in records in short, without the base."""
    return f"{base}:c:{client}"


def _base(prefix: str, namespace: str, what: str, name: str) -> str:
    # The braces make one slot of them in a cluster.
    return f"{prefix}:{{{_checked('namespace', namespace)}:{_checked(what, name)}}}"


def _checked(what: str, name: str) -> str:
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME:
        raise ConfigurationError(
            f"a {what} is a text of 1 to {LONGEST_NAME} characters, not {name!r:.80}", what
        )
    bad = sorted({each for each in name if each in "{}: " or not each.isprintable()})
    if bad:
        raise ConfigurationError(
            f"the {what} {name!r} has {' '.join(map(repr, bad))} in it: leave out braces, colons,"
            " spaces and what cannot be printed",
            what,
        )
    return name
