"""Services: tasks that run for ever, are kept alive, and can be talked to.

::

    ServiceManager -> service -> places -> instances -> pipe -> child -> the task's run()
         options, status         policy    a process    calls, messages

A service has one place, or N, for a process that runs it. A place keeps a process in it, as the
options say; what follows the end of one is a pure decision (``policy``).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gtaskman.services.calls import Call
    from gtaskman.services.manager import ServiceManager
    from gtaskman.services.options import RestartPolicy, ServiceOptions
    from gtaskman.services.proxy import Service
    from gtaskman.services.status import (
        Exit,
        Milestone,
        PlaceStatus,
        ServiceEvent,
        ServiceMessage,
        ServiceState,
        ServiceStatus,
    )
    from gtaskman.services.task import ServiceTask, remote

__all__ = [
    "Call",
    "Exit",
    "Milestone",
    "PlaceStatus",
    "RestartPolicy",
    "Service",
    "ServiceEvent",
    "ServiceManager",
    "ServiceMessage",
    "ServiceOptions",
    "ServiceState",
    "ServiceStatus",
    "ServiceTask",
    "remote",
]

# Whoever only defines a service, or runs it, never loads what manages them.
_ON_DEMAND = {
    "Call": "calls",
    "Exit": "status",
    "Milestone": "status",
    "PlaceStatus": "status",
    "RestartPolicy": "options",
    "Service": "proxy",
    "ServiceEvent": "status",
    "ServiceManager": "manager",
    "ServiceMessage": "status",
    "ServiceOptions": "options",
    "ServiceState": "status",
    "ServiceStatus": "status",
    "ServiceTask": "task",
    "remote": "task",
}


def __getattr__(name: str) -> Any:
    home = _ON_DEMAND.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    return value
