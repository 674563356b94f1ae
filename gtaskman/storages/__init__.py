"""Where reports are kept."""

from __future__ import annotations

from gtaskman.config import Configuration
from gtaskman.errors import ConfigurationError
from gtaskman.places import SERVERS, is_server, scheme_of
from gtaskman.storages.archivist import Archivist
from gtaskman.storages.base import TaskStorage
from gtaskman.storages.memory import InMemoryTaskStorage

__all__ = ["Archivist", "InMemoryTaskStorage", "TaskStorage", "archive_of", "connect"]


def archive_of(storage: TaskStorage) -> TaskStorage | Archivist:
    """Who takes the reports for a storage from a hub that cannot wait."""
    storage.attend()
    return Archivist(storage) if storage.waits else storage


def connect(storage: TaskStorage | str | None, config: Configuration) -> TaskStorage:
    """The storage itself, or the one that a URL names. Raises :class:`ConfigurationError`."""
    if isinstance(storage, TaskStorage):
        return storage
    if storage in (None, "memory://"):
        return InMemoryTaskStorage(config.keep_finished, config.keep_bytes)
    if is_server(storage):
        from gtaskman.storages.redis import RedisTaskStorage

        return RedisTaskStorage(storage)
    raise ConfigurationError(
        f"no storage is known under {scheme_of(storage)}: there are 'memory://' and, on a server,"
        f" {', '.join(f'{scheme}:' for scheme in SERVERS)}",
        "storage",
    )
