"""gtaskman: the task manager for gevent.

::

    gtaskman.submit(task).get()

runs ``task`` in a forked worker and waits for its result without blocking the hub. Importing this
package patches nothing, starts nothing and opens nothing; what is not needed to define a task is
imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from gtaskman._version import __version__
from gtaskman.backoff import Backoff
from gtaskman.config import Configuration
from gtaskman.context import Current, current
from gtaskman.default import (
    cancel,
    configure,
    manager,
    map,
    report,
    shutdown,
    start,
    stats,
    submit,
)
from gtaskman.errors import (
    AccessRefused,
    BindError,
    Cancelled,
    ConfigurationError,
    DuplicateServiceError,
    DuplicateTaskError,
    EnvelopeError,
    ForkedManagerError,
    FrameError,
    FrameTooLarge,
    GTaskmanError,
    MainGuardError,
    ManagerGone,
    ManagerStopped,
    MapInterrupted,
    PayloadError,
    ServerError,
    ServerUnavailable,
    ServiceCallFailed,
    ServiceDown,
    ServiceError,
    ServiceFailed,
    ServiceMethodError,
    SoftTimeout,
    StartMethodError,
    TaskCancelled,
    TaskDefinitionError,
    TaskExpired,
    TaskFailed,
    TaskOptionError,
    TaskTimedOut,
    TaskTravelError,
    UnknownServiceError,
    WaitTimeout,
    WorkerCrashed,
    WouldBlockError,
)
from gtaskman.report import Failure, FailureKind, Progress, Report, TaskStatus
from gtaskman.task import AsyncTask, Task, TaskFunction, task

if TYPE_CHECKING:
    from gtaskman.client import Client
    from gtaskman.envelope import Keyring
    from gtaskman.handle import TaskHandle
    from gtaskman.queues import InMemoryTaskQueue, TaskQueue
    from gtaskman.queues.redis import RedisTaskQueue
    from gtaskman.services import (
        RestartPolicy,
        ServiceManager,
        ServiceOptions,
        ServiceState,
        ServiceStatus,
        ServiceTask,
        remote,
    )
    from gtaskman.storages import InMemoryTaskStorage, TaskStorage
    from gtaskman.storages.redis import RedisTaskStorage
    from gtaskman.taskmanager import TaskManager

__all__ = [
    "AccessRefused",
    "AsyncTask",
    "Backoff",
    "BindError",
    "Cancelled",
    "Client",
    "Configuration",
    "ConfigurationError",
    "Current",
    "DuplicateServiceError",
    "DuplicateTaskError",
    "EnvelopeError",
    "Failure",
    "FailureKind",
    "ForkedManagerError",
    "FrameError",
    "FrameTooLarge",
    "GTaskmanError",
    "InMemoryTaskQueue",
    "InMemoryTaskStorage",
    "Keyring",
    "MainGuardError",
    "ManagerGone",
    "ManagerStopped",
    "MapInterrupted",
    "PayloadError",
    "Progress",
    "RedisTaskQueue",
    "RedisTaskStorage",
    "Report",
    "RestartPolicy",
    "ServerError",
    "ServerUnavailable",
    "ServiceCallFailed",
    "ServiceDown",
    "ServiceError",
    "ServiceFailed",
    "ServiceManager",
    "ServiceMethodError",
    "ServiceOptions",
    "ServiceState",
    "ServiceStatus",
    "ServiceTask",
    "SoftTimeout",
    "StartMethodError",
    "Task",
    "TaskCancelled",
    "TaskDefinitionError",
    "TaskExpired",
    "TaskFailed",
    "TaskFunction",
    "TaskHandle",
    "TaskManager",
    "TaskOptionError",
    "TaskQueue",
    "TaskStatus",
    "TaskStorage",
    "TaskTimedOut",
    "TaskTravelError",
    "UnknownServiceError",
    "WaitTimeout",
    "WorkerCrashed",
    "WouldBlockError",
    "__version__",
    "cancel",
    "configure",
    "current",
    "manager",
    "map",
    "remote",
    "report",
    "shutdown",
    "start",
    "stats",
    "submit",
    "task",
]

# Whoever only defines tasks, a worker for one, never loads the manager.
_ON_DEMAND = {
    "Client": "gtaskman.client",
    "InMemoryTaskQueue": "gtaskman.queues",
    "InMemoryTaskStorage": "gtaskman.storages",
    "Keyring": "gtaskman.envelope",
    "RedisTaskQueue": "gtaskman.queues.redis",
    "RedisTaskStorage": "gtaskman.storages.redis",
    "RestartPolicy": "gtaskman.services",
    "ServiceManager": "gtaskman.services",
    "ServiceOptions": "gtaskman.services",
    "ServiceState": "gtaskman.services",
    "ServiceStatus": "gtaskman.services",
    "ServiceTask": "gtaskman.services",
    "TaskHandle": "gtaskman.handle",
    "TaskManager": "gtaskman.taskmanager",
    "TaskQueue": "gtaskman.queues",
    "TaskStorage": "gtaskman.storages",
    "remote": "gtaskman.services",
}


def __getattr__(name: str) -> Any:
    home = _ON_DEMAND.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(home), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
