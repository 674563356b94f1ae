"""Where tasks wait. ``connect`` makes a queue of a URL."""

from __future__ import annotations

from gtaskman.errors import ConfigurationError
from gtaskman.places import SERVERS, is_server, scheme_of
from gtaskman.queues.base import TaskQueue
from gtaskman.queues.memory import InMemoryTaskQueue

__all__ = ["InMemoryTaskQueue", "TaskQueue", "connect", "is_remote"]


def is_remote(queue: TaskQueue | str) -> bool:
    """Whether it is on a server, from which many managers fetch."""
    return queue.remote if isinstance(queue, TaskQueue) else is_server(queue)


def connect(queue: TaskQueue | str) -> TaskQueue:
    """The queue itself, or the one that a URL names. Raises :class:`ConfigurationError`."""
    if isinstance(queue, TaskQueue):
        return queue
    if queue == "memory://":
        return InMemoryTaskQueue()
    if is_server(queue):
        from gtaskman.queues.redis import RedisTaskQueue

        return RedisTaskQueue(queue)
    raise ConfigurationError(
        f"no queue is known under {scheme_of(queue)}: there are 'memory://' and, on a server,"
        f" {', '.join(f'{scheme}:' for scheme in SERVERS)}",
        "url",
    )
