"""``Executor``: the whole of ``concurrent.futures.Executor``, on gtaskman's workers."""

from __future__ import annotations

import collections
import concurrent.futures
import itertools
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from gtaskman.config import Configuration
from gtaskman.cores import usable_cores
from gtaskman.errors import ConfigurationError, TaskDefinitionError
from gtaskman.futures.calls import Prepared, run_chunk
from gtaskman.futures.future import Future
from gtaskman.futures.work import Work
from gtaskman.process import in_main_thread, is_patched
from gtaskman.task import LIMITS, Definition, FunctionTask, TaskFunction, name_of
from gtaskman.taskmanager import TaskManager

BROKEN = ("call", "pool")
_FRESH = ("spawn", "forkserver")  # start methods that promise what ours does: a clean process


class Executor(concurrent.futures.Executor):
    """Runs calls in worker processes: ``ProcessPoolExecutor``, but for the import.

    ``max_workers`` is as many as there are processors for this process unless it is given. The
    ``initializer`` is called with ``initargs`` once in each worker, before its first call. After
    ``max_tasks_per_child`` calls a worker is replaced. ``config`` is a
    :class:`gtaskman.Configuration` for everything else; or ``manager`` a
    :class:`gtaskman.TaskManager` that is shared with others and never stopped here. ``broken``
    says what a worker breaks that dies under a call: ``"call"``, that one alone, or ``"pool"``,
    every open call and every later one, as in ``ProcessPoolExecutor``.

    It works whether or not the process is monkey-patched, from every thread and in every event
    loop: unless the process is patched, the manager has a thread of its own. Raises
    :class:`ConfigurationError`, :class:`TaskDefinitionError` for an initializer that nobody can
    call, and :class:`PayloadError` for one that cannot travel.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: Any = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: int | None = None,
        manager: TaskManager | None = None,
        config: Configuration | None = None,
        broken: str = "call",
    ) -> None:
        _check_context(mp_context)
        if broken not in BROKEN:
            raise ConfigurationError(
                f"broken takes {' or '.join(map(repr, BROKEN))}, not {broken!r:.80}", "broken"
            )
        if manager is not None:
            own = {"max_workers": max_workers, "max_tasks_per_child": max_tasks_per_child}
            _check_manager(manager, {**own, "config": config})
            self._config = manager.config
            make: Callable[[], TaskManager] = lambda: manager  # noqa: E731 - one of two
        else:
            self._config = _configuration(max_workers, max_tasks_per_child, config)
            make = _maker(self._config)
        self._max_workers = self._config.max_processes
        self._prepared = self._prepare(initializer, initargs)
        self._definitions: dict[int, Definition] = {}
        self._work = Work(
            make,
            owned=manager is None,
            kept=(initializer, initargs),
            breaks_pool=broken == "pool",
        )
        # Nobody need call shutdown: what was submitted is done, and then the workers end.
        self._dropped = weakref.finalize(self, self._work.close)
        self._dropped.atexit = False

    def _prepare(
        self, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]
    ) -> Prepared | None:
        if initializer is None:
            return None
        if not callable(initializer):
            raise TaskDefinitionError(f"initializer must be a callable, not {initializer!r:.80}")
        return Prepared(initializer, tuple(initargs), self._config.max_frame)

    # --- calls

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        """Have ``fn(*args, **kwargs)`` called in a worker; gives its future.

        ``fn`` may be a task function or a task object, whose limits and terms then hold. A call
        that cannot travel has a future that says so. Raises :class:`ExecutorShutDown`, a
        ``RuntimeError``, after a shutdown, and :class:`InitializerFailed` if that has failed.
        """
        if self._prepared is None:
            return self._work.submit(fn, args, kwargs)
        if isinstance(fn, TaskFunction):
            fn.check(args, kwargs)
        definition = self._definition(self._prepared, fn)
        return self._work.submit(FunctionTask(definition, (fn, *args), kwargs), (), {})

    def _definition(self, prepared: Prepared, fn: Any) -> Definition:
        """What stands for calls of ``fn`` under an initializer."""
        base = fn.definition if isinstance(fn, TaskFunction) else None
        number = base.number if base is not None else 0
        known = self._definitions.get(number)
        if known is None:
            if base is None:
                known = Definition(name_of(Executor), "sync", prepared)
            else:
                limits = {name: getattr(base, name) for name in LIMITS}
                known = Definition(base.name, base.kind, prepared, terms=base.terms, **limits)
            self._definitions[number] = known
        return known

    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[Any]:
        """Like ``map(fn, *iterables)``, with the calls made in workers; the results in order.

        The calls are submitted at once, or with ``buffersize`` so many chunks ahead of the results
        that are taken. ``chunksize`` calls travel and run together. ``timeout`` seconds from now
        the iterator raises ``TimeoutError``. When it ends early, by that, by a call's own
        exception or by being closed, the calls that no worker has are cancelled.
        """
        _check_map(chunksize, buffersize)
        end = None if timeout is None else time.monotonic() + timeout
        calls = zip(*iterables, strict=False)
        if chunksize == 1:
            sources = ((fn, *args) for args in calls)
        else:
            sources = ((run_chunk, fn, chunk) for chunk in _chunks(calls, chunksize))
        futures = collections.deque(
            self.submit(*each) for each in itertools.islice(sources, buffersize)
        )
        values = _values(weakref.ref(self), futures, sources, end)
        return values if chunksize == 1 else _flat(values)

    # --- the end

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls. With ``wait`` return when all have ended and the workers are gone.

        ``cancel_futures`` cancels the calls that no worker has.
        """
        self._work.close(cancel_futures)
        if wait:
            self._work.await_end()

    def terminate_workers(self) -> None:
        """End at once: what waits is cancelled, what runs is stopped, and killed if need be.

        The futures of what ran raise :class:`WorkerLost`. Returns without waiting. Of a manager
        that is shared only the calls of this executor are stopped.
        """
        self._work.end_workers(kill=False, by="terminate_workers()")

    def kill_workers(self) -> None:
        """:meth:`terminate_workers`, with SIGKILL: no call can clean up."""
        self._work.end_workers(kill=True, by="kill_workers()")

    def __repr__(self) -> str:
        return f"<Executor max_workers={self._max_workers} {self._work!r}>"


# --- making one ----------------------------------------------------------------------------------


def _check_context(context: Any) -> None:
    """An ``mp_context`` is good if it asks for what there is: a process that is no fork of us."""
    if context is None:
        return
    method = getattr(context, "get_start_method", lambda: None)()
    if method not in _FRESH:
        raise ConfigurationError(
            f"mp_context={context!r:.80}: the workers of this executor are no forks of the"
            " process, and see nothing of its memory: leave it out, and hand over what they need as"
            " initargs or arguments",
            "mp_context",
        )


def _configuration(
    max_workers: int | None, max_tasks_per_child: int | None, config: Configuration | None
) -> Configuration:
    changes: dict[str, Any] = {}
    if max_workers is not None:
        if max_workers <= 0:
            raise ConfigurationError("max_workers must be greater than 0", "max_workers")
        changes["max_processes"] = max_workers
    elif config is None:
        changes["max_processes"] = usable_cores()
    if max_tasks_per_child is not None:
        changes["max_tasks_per_process"] = max_tasks_per_child
    if config is None:
        # Nobody asks for reports: a result goes with its future. And of what might be cancelled a
        # worker has hardly more than the original has on its way.
        return Configuration(keep_finished=0, keep_bytes=0, prefetch=2, max_prefetch=4, **changes)
    if config.min_processes > changes.get("max_processes", config.max_processes):
        changes["min_processes"] = changes["max_processes"]
    return config.replace(**changes)


def _maker(config: Configuration) -> Callable[[], TaskManager]:
    def make() -> TaskManager:
        # The hub of the manager must run while a future is waited for. Only a patched thread lets
        # it, and the main one does not end before the others.
        if is_patched() and in_main_thread():
            return TaskManager(config=config)
        return TaskManager(config=config.replace(background=True))

    return make


def _check_manager(manager: TaskManager, others: dict[str, Any]) -> None:
    for name, value in others.items():
        if value is not None:
            raise ConfigurationError(
                f"{name} is a matter of the manager: give it to that, or leave the manager out",
                name,
            )
    if not isinstance(manager, TaskManager) or manager.queue.remote:
        raise ConfigurationError(
            "an executor takes a TaskManager whose queue is in memory (its calls and results can"
            f" be anything that pickles), not {manager!r:.80}",
            "manager",
        )
    if not manager.background and not is_patched():
        raise ConfigurationError(
            "whoever waits for a future holds up the hub of this manager, and so the future, since"
            " the process is not monkey-patched: make it with Configuration(background=True)",
            "manager",
        )


# --- map -----------------------------------------------------------------------------------------


def _check_map(chunksize: int, buffersize: int | None) -> None:
    if chunksize < 1:
        raise ConfigurationError("chunksize must be >= 1", "chunksize")
    if buffersize is None:
        return
    if not isinstance(buffersize, int):
        raise TaskDefinitionError(f"buffersize must be an integer or None, not {buffersize!r:.80}")
    if buffersize < 1:
        raise ConfigurationError("buffersize must be None or > 0", "buffersize")


def _chunks(calls: Iterator[Any], size: int) -> Iterator[tuple[Any, ...]]:
    while chunk := tuple(itertools.islice(calls, size)):
        yield chunk


def _values(
    owner: weakref.ref[Executor],
    futures: collections.deque[Future],
    sources: Iterator[tuple[Any, ...]],
    end: float | None,
) -> Iterator[Any]:
    try:
        while futures:
            # Held by nobody else while it is yielded: neither the executor nor the value.
            executor = owner()
            if executor is not None:
                for source in itertools.islice(sources, 1):
                    futures.append(executor.submit(*source))
            del executor
            yield _take(futures, end)
    finally:
        for future in futures:
            future.cancel()


def _take(futures: collections.deque[Future], end: float | None) -> Any:
    future = futures.popleft()
    try:
        return future.result(None if end is None else end - time.monotonic())
    except BaseException:
        future.cancel()
        raise
    finally:
        del future


def _flat(chunks: Iterator[list[Any]]) -> Iterator[Any]:
    for chunk in chunks:
        chunk.reverse()
        while chunk:
            yield chunk.pop()
