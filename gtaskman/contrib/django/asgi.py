"""asgiref, which Django imports, without the thread pool that it makes at once.

In a process that gevent has patched that pool makes a hub, and a process with a hub cannot be a
template for workers. Here the pool is made when it is first asked for, in whichever worker does.
"""

from __future__ import annotations

import queue
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from gevent import monkey
from gevent._hub_local import get_hub_if_exists


class _Pool:
    """Stands where the pool will be."""

    def __get__(self, _instance: Any, owner: Any) -> ThreadPoolExecutor:
        made = ThreadPoolExecutor(max_workers=1)
        sys.modules["asgiref.sync"].SyncToAsync.single_thread_executor = made
        return made


def import_without_pool() -> None:
    """Import asgiref so, unless it is imported already, or a hub is there, or will never be."""
    patched = monkey.is_module_patched("queue")
    if "asgiref.sync" in sys.modules or not patched or get_hub_if_exists() is not None:
        return
    cooperative = queue.SimpleQueue
    queue.SimpleQueue = monkey.get_original("queue", "SimpleQueue")  # type: ignore[misc] # for as long as the import takes
    try:
        from asgiref.sync import SyncToAsync
    finally:
        queue.SimpleQueue = cooperative  # type: ignore[misc] # likewise
    SyncToAsync.single_thread_executor = _Pool()  # type: ignore[assignment] # see there
