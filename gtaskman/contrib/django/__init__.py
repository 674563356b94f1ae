"""Django: tasks with Django set up, ``django.tasks``, and queries that leave the hub.

::

    INSTALLED_APPS = [..., "gtaskman.contrib.django"]
    TASKS = {"default": {"BACKEND": "gtaskman.contrib.django.TaskBackend"}}

    from gtaskman.contrib.django import offload, submit_on_commit, task

    books = offload(Book.objects.filter(lines__gt=1000))      # the rows, from a worker

====================  =========================================================================
``apps``              the application of ``INSTALLED_APPS``
``settings``          what the settings say: ``GTASKMAN``, and ``OPTIONS`` of ``TASKS``
``managers``          which manager serves them
``site``              imported by a worker before its first task; ``asgi`` helps
``loading``           Django set up in this process, once
``connections``       the database connections of a task in its worker
``tasks``             ``task``, and ``submit_on_commit``
``offloading``        ``offload``, and ``errands``, ``parcels``: what it has a worker do
``backend``           ``TaskBackend``, with ``performer`` in the worker and ``results``
====================  =========================================================================

Nothing is started by importing it or by installing it: the first submit does.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gtaskman.contrib.django.backend import TaskBackend
    from gtaskman.contrib.django.offloading import AtomicBlockError, Offloaded, offload
    from gtaskman.contrib.django.tasks import submit_on_commit, task

__all__ = [
    "AtomicBlockError",
    "Offloaded",
    "TaskBackend",
    "offload",
    "submit_on_commit",
    "task",
]

# INSTALLED_APPS is read before models, and so whatever needs them, may be imported; and a worker's
# template must not import Django in any other way than by ``site``.
_ON_DEMAND = {
    "AtomicBlockError": "offloading",
    "Offloaded": "offloading",
    "TaskBackend": "backend",
    "offload": "offloading",
    "submit_on_commit": "tasks",
    "task": "tasks",
}


def __getattr__(name: str) -> Any:
    home = _ON_DEMAND.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    return value
