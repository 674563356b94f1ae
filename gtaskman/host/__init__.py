"""One manager for the processes of a host, reached over a Unix socket.

::

    process -> client -> link == socket == guest -> desk -> manager -> pool
    handle  <- connection                        <- reply <-

``server`` and what it uses is the manager's side, ``client`` and what it uses that of everybody
else, which never imports a manager. Nothing else of gtaskman needs this room.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gtaskman.host.client import HostClient
    from gtaskman.host.server import HostServer

__all__ = ["HostClient", "HostServer"]

# Whoever only sends does without all that runs tasks.
_HOMES = {"HostClient": "gtaskman.host.client", "HostServer": "gtaskman.host.server"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
