"""Where tasks wait. ``connect`` makes a queue of a URL."""

from __future__ import annotations

from gtaskman.errors import ConfigurationError
from gtaskman.queues.base import TaskQueue
from gtaskman.queues.memory import InMemoryTaskQueue

__all__ = ["InMemoryTaskQueue", "TaskQueue", "connect"]


def connect(queue: TaskQueue | str) -> TaskQueue:
    """The queue itself, or the one that a URL names. Raises :class:`ConfigurationError`."""
    if isinstance(queue, TaskQueue):
        return queue
    if queue == "memory://":
        return InMemoryTaskQueue()
    raise ConfigurationError(
        f"no queue is known under {queue!r}: this version has 'memory://'", "url"
    )
