"""A manager in the place of the process's default one, for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TypeVar

from gtaskman import default
from gtaskman.config import Configuration
from gtaskman.taskmanager import TaskManager
from gtaskman.testing.manager import EagerManager

M = TypeVar("M", bound=TaskManager)


@contextlib.contextmanager
def as_default(manager: M) -> Iterator[M]:
    """Let ``manager`` be the default manager in the body: ``gtaskman.submit`` and its kin use it.

    It is started on the way in and stopped at once on the way out, and the one before is the
    default manager again.
    """
    manager.start()
    before = default.use(manager)
    try:
        yield manager
    finally:
        found = default.use(before)
        if found is not None and found is not manager:
            found.stop(0)  # the body has shut ours down, and submitted again
        manager.stop(0)


@contextlib.contextmanager
def eager(config: Configuration | None = None) -> Iterator[EagerManager]:
    """In the body the default manager is an :class:`EagerManager`, which is given."""
    with as_default(EagerManager(config=config)) as manager:
        yield manager
