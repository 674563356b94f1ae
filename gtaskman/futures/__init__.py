"""``Executor``: ``concurrent.futures`` on gtaskman's workers.

::

    from gtaskman.futures import Executor as ProcessPoolExecutor

Its parts are imported when they are first used: the workers of an executor with an initializer
import this package too, and need next to nothing of it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gtaskman.futures.errors import (
        ExecutorShutDown,
        InitializerFailed,
        Unpicklable,
        WorkerLost,
    )
    from gtaskman.futures.executor import Executor
    from gtaskman.futures.future import Future

__all__ = [
    "Executor",
    "ExecutorShutDown",
    "Future",
    "InitializerFailed",
    "Unpicklable",
    "WorkerLost",
]

_ON_DEMAND = {
    "Executor": "gtaskman.futures.executor",
    "ExecutorShutDown": "gtaskman.futures.errors",
    "Future": "gtaskman.futures.future",
    "InitializerFailed": "gtaskman.futures.errors",
    "Unpicklable": "gtaskman.futures.errors",
    "WorkerLost": "gtaskman.futures.errors",
}


def __getattr__(name: str) -> Any:
    home = _ON_DEMAND.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(home), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
