"""Whose a ``gevent.Timeout`` is that ends an eager task: the task's, or the caller's around it.

A task in a worker never meets the caller's. gevent does not record when a timeout was started;
``watched`` has it recorded while eager tasks run.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Iterator
from typing import Any

import gevent

_numbers = itertools.count(1)
_watches: set[int] = set()  # those that are under way, in any thread
_NUMBER = "_gtaskman_started"


@contextlib.contextmanager
def watched() -> Iterator[int]:
    """Record the timeouts that are started from here on; gives what :func:`is_outer` takes."""
    number = next(_numbers)
    _watches.add(number)
    try:
        yield number
    finally:
        _watches.discard(number)


def is_outer(error: BaseException, watch: int) -> bool:
    """Whether ``error`` is a timeout that was started before ``watch``."""
    return isinstance(error, gevent.Timeout) and error.__dict__.get(_NUMBER, 0) < watch


def _record_starts() -> None:
    start = gevent.Timeout.start

    @functools.wraps(start)
    def recorded(self: gevent.Timeout, *args: Any, **kwargs: Any) -> None:
        if _watches:
            self.__dict__[_NUMBER] = next(_numbers)
        start(self, *args, **kwargs)

    gevent.Timeout.start = recorded


_record_starts()
