"""``map``: many calls of one function, lazily fed and bounded in flight."""

from __future__ import annotations

import collections
import contextlib
import itertools
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, Protocol

from gtaskman.definitions import check_callable
from gtaskman.errors import MapInterrupted, TaskOptionError
from gtaskman.handle import TaskHandle
from gtaskman.latch import Latch
from gtaskman.task import TaskFunction

_PER_WORKER = 16  # calls in flight for each worker
_CHUNKS_PER_WORKER = 32


class Submitter(Protocol):
    """Who takes the calls of a map; ``parallel`` is how many workers may run them at once."""

    @property
    def parallel(self) -> int:
        """How many workers there may be."""

    def submit(self, task: Any, /, *args: Any, **kwargs: Any) -> TaskHandle:
        """Take one call."""

    def submit_chunk(self, function: Any, items: list[Any]) -> TaskHandle:
        """Take one chunk of calls."""


def run(
    manager: Submitter,
    function: Callable[[Any], Any],
    iterable: Iterable[Any],
    chunksize: int | None,
    ordered: bool,
) -> Iterator[Any]:
    """See :meth:`TaskManager.map`; mistakes are raised here, not at the first ``next``."""
    if chunksize is not None and (
        not isinstance(chunksize, int) or isinstance(chunksize, bool) or chunksize < 1
    ):
        raise TaskOptionError(f"map: chunksize takes a number from 1, not {chunksize!r}")
    if not isinstance(function, TaskFunction):
        check_callable(function)
    source = iter(iterable)
    check = function.check if isinstance(function, TaskFunction) else None
    if chunksize is None or chunksize == 1:
        handles = _single(manager, function, source)
        window = _PER_WORKER * manager.parallel
        take: Callable[[TaskHandle], Iterable[Any]] = _one
    else:
        handles = _chunks(manager, function, source, chunksize, check)
        window = _CHUNKS_PER_WORKER * manager.parallel
        take = _many
    flow = _in_order if ordered else _as_ready
    return Results(_results(flow(handles, window), take))


class Results(Iterator[Any]):
    """The results of a map. After an interrupt it raises, where it could only end silently."""

    def __init__(self, results: Generator[Any]) -> None:
        self._results = results
        self._interrupt: BaseException | None = None

    def __next__(self) -> Any:
        try:
            return next(self._results)
        except StopIteration:
            if self._interrupt is None:
                raise
            raise MapInterrupted(
                f"this map was interrupted by {self._interrupt!r:.100}: the tasks whose results had"
                " not been taken were cancelled. Map again what is missing"
            ) from None
        except Exception:
            raise
        except BaseException as interrupt:  # a gevent.Timeout, a kill, Ctrl-C
            self._interrupt = interrupt
            raise

    def close(self) -> None:
        """Take no more results: what is on its way is cancelled."""
        self._results.close()


def _single(
    manager: Submitter, function: Callable[[Any], Any], source: Iterator[Any]
) -> Iterator[TaskHandle]:
    for item in source:
        yield manager.submit(function, item)


def _chunks(
    manager: Submitter,
    function: Callable[[Any], Any],
    source: Iterator[Any],
    size: int,
    check: Callable[[tuple[Any, ...], dict[str, Any]], None] | None,
) -> Iterator[TaskHandle]:
    while chunk := list(itertools.islice(source, size)):
        if check is not None:
            for item in chunk:
                check((item,), {})
        yield manager.submit_chunk(function, chunk)


def _one(handle: TaskHandle) -> tuple[Any, ...]:
    return (handle.get(),)


def _many(handle: TaskHandle) -> list[Any]:
    values: list[Any] = handle.get()
    return values


def _results(
    handles: Generator[TaskHandle], take: Callable[[TaskHandle], Iterable[Any]]
) -> Generator[Any]:
    # Closed here and now: an exception that somebody keeps also keeps this frame.
    with contextlib.closing(handles):
        for handle in handles:
            yield from take(handle)


def _in_order(handles: Iterator[TaskHandle], window: int) -> Generator[TaskHandle]:
    flying: collections.deque[TaskHandle] = collections.deque()
    try:
        while True:
            # A slow source does not hold back a result that is there already.
            while len(flying) < window and not (flying and flying[0].done()):
                handle = next(handles, None)
                if handle is None:
                    break
                flying.append(handle)
            if not flying:
                return
            flying[0].wait()
            yield flying.popleft()
    finally:
        _cancel(flying)


def _as_ready(handles: Iterator[TaskHandle], window: int) -> Generator[TaskHandle]:
    flying: dict[str, TaskHandle] = {}
    landed: collections.deque[TaskHandle] = collections.deque()
    news = Latch()

    def land(handle: TaskHandle) -> None:
        landed.append(handle)
        news.open()

    try:
        while True:
            while len(flying) < window and not landed:
                handle = next(handles, None)
                if handle is None:
                    break
                flying[handle.id] = handle
                handle.rawlink(land)
            if not flying:
                return
            while not landed:
                news.wait()
                news = Latch()
            first = landed.popleft()
            del flying[first.id]
            yield first
    finally:
        _cancel(flying.values())


def _cancel(handles: Iterable[TaskHandle]) -> None:
    for handle in list(handles):
        handle.cancel("nobody takes the results of this map any more")
