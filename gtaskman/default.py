"""The process's default manager: what ``gtaskman.submit`` and its kin use.

It is made on first use, from ``configure`` or the environment variable ``GTASKMAN_URL``, and it
is per process: a fork makes its own.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from gtaskman.config import Configuration
from gtaskman.errors import ConfigurationError
from gtaskman.places import is_elsewhere
from gtaskman.process import in_main_thread, is_patched, refuse_at_import
from gtaskman.task import submitted_by

if TYPE_CHECKING:
    from gtaskman.client import Client
    from gtaskman.handle import TaskHandle
    from gtaskman.latch import Latch
    from gtaskman.manager import TaskManager
    from gtaskman.report import Report

DEFAULT_URL = "memory://"

_locks: dict[str, Any] = {}  # the one that guards the default manager, once it is needed
_manager: TaskManager | Client | None = None
_coming: Latch | None = None  # somebody is about to make it
_settings: tuple[str | None, Configuration] = (None, Configuration())
_credentials: Any = None  # for a server; see ``configure``
_background_given = False  # ``configure`` was told where the manager runs
_refusal: str | None = None  # why none is made now
_may_block = False  # see ``assume_blocking``


def _lock() -> Any:
    """A lock of the native kind, made when it is first needed: importing us costs nothing."""
    if "default" not in _locks:
        from gevent import monkey

        _locks.setdefault("default", monkey.get_original("_thread", "allocate_lock")())
    return _locks["default"]


def configure(url: Any = None, *, credentials: Any = None, **options: Any) -> None:
    """Say how the default manager shall be made: its ``url`` and the fields of Configuration.

    ``url`` may be a ``redis.Redis``, and ``credentials`` is for a server: see :class:`Client`.
    Raises :class:`ConfigurationError` for a bad value, and if the manager is at work already:
    :func:`shutdown` it first.
    """
    global _settings, _background_given, _credentials
    config = Configuration(**options)
    with _lock():
        if _manager is not None or _coming is not None:
            raise ConfigurationError(
                "the default manager is at work already: configure it before the first submit, or"
                " after gtaskman.shutdown()"
            )
        _settings = (url, config)
        _credentials = credentials
        _background_given = "background" in options


def assume_blocking() -> None:
    """Expect a main thread that never runs its hub, as that of a synchronous server or a shell.

    For integrations. In a process that is not monkey-patched the embedded managers made here then
    have a native thread of their own, unless ``background`` or a start by ``fork`` was asked for.
    """
    global _may_block
    _may_block = True


def refuse(why: str | None) -> None:
    """Let calls raise :class:`ConfigurationError` with this text until it is called with None.

    For integrations, as long as the manager that the default one stands for cannot be there yet.
    """
    global _refusal
    _refusal = why


def manager() -> TaskManager | Client:
    """The process's default manager, made and started if it is not there yet.

    With the URL of a server, or of a Unix socket, it is a :class:`Client` of that: managers on
    other hosts, or started here by ``gtaskman run``, do the work.
    """
    found = _manager
    return found if found is not None else _make()


def _make() -> TaskManager | Client:
    global _manager, _coming
    refuse_at_import()
    if _refusal is not None:
        raise ConfigurationError(_refusal)
    from gtaskman.latch import Latch

    while (found := _manager) is None:
        with _lock():
            coming, mine = _coming, False
            if coming is None and _manager is None:
                coming, mine = Latch(), True
                _coming = coming
        if coming is None:
            continue
        if not mine:
            coming.wait()
            continue
        # Not under the lock: a start may wait cooperatively, and others would stop the hub there.
        try:
            url, config = _settings
            url = url or os.environ.get("GTASKMAN_URL") or DEFAULT_URL
            _manager = make(
                url, config, background_given=_background_given, credentials=_credentials
            )
        finally:
            _coming = None
            coming.open()
    return found


def make(
    url: Any, config: Configuration, *, background_given: bool = False, credentials: Any = None
) -> TaskManager | Client:
    """A manager for this process as the default one would be, started; it is the caller's.

    ``background_given`` says that ``config.background`` is as the user wants it, whatever
    :func:`assume_blocking` says. Raises :class:`ConfigurationError` for a URL that leads nowhere.
    """
    if is_elsewhere(url):
        return _client(url, credentials)
    if credentials is not None:
        raise ConfigurationError("credentials are for a server: give its URL, too", "credentials")
    return _embedded(url, config, background_given)


def _client(url: Any, credentials: Any) -> Client:
    from gtaskman.client import Client

    return Client(url, credentials=credentials)


def _embedded(url: str, config: Configuration, background_given: bool) -> TaskManager:
    from gtaskman.manager import TaskManager

    # Another thread may end, and whoever else submits must find a hub that runs.
    if not in_main_thread() or (not background_given and _needs_thread(config)):
        config = config.replace(background=True)
    return TaskManager(url, config).start()


def _needs_thread(config: Configuration) -> bool:
    """Whether nothing may run a hub in the main thread while it does other things."""
    return _may_block and config.start_method != "fork" and not is_patched()


def current() -> TaskManager | Client | None:
    """The process's default manager if there is one; makes none."""
    return _manager


def use(other: TaskManager | Client | None) -> TaskManager | Client | None:
    """Let ``other`` be the default manager; gives the one before, which is not stopped.

    For tests and for code that manages managers; None lets the next use make one as configured.
    """
    global _manager
    with _lock():
        found, _manager = _manager, other
    return found


def start() -> None:
    """Make and start the default manager now, if it is not there yet.

    The first ``submit`` does so by itself, which takes some 50 ms of imports: a server does it
    better before its first request.
    """
    manager()


def submit(task: Any, /, *args: Any, **kwargs: Any) -> TaskHandle:
    """Submit a task to the default manager; see :meth:`TaskManager.submit`."""
    return manager().submit(task, *args, **kwargs)


def map(
    function: Callable[[Any], Any],
    iterable: Iterable[Any],
    *,
    chunksize: int | None = None,
    ordered: bool = True,
) -> Iterator[Any]:
    """Call ``function`` with each item in the workers; see :meth:`TaskManager.map`."""
    return manager().map(function, iterable, chunksize=chunksize, ordered=ordered)


def cancel(task_id: str, reason: str | None = None) -> bool:
    """Ask a task of the default manager to stop; see :meth:`TaskManager.cancel`."""
    return manager().cancel(task_id, reason)


def report(task_id: str) -> Report | None:
    """How a task of the default manager stands; see :meth:`TaskManager.report`."""
    return manager().report(task_id)


def stats() -> dict[str, dict[str, int]]:
    """Numbers of the default manager; see :meth:`TaskManager.stats`."""
    return manager().stats()


def shutdown(timeout: float | None = None) -> None:
    """Stop the default manager, if there is one; the next ``submit`` makes a new one."""
    global _manager
    if _manager is None:
        return
    with _lock():
        found, _manager = _manager, None
    if found is not None:
        found.stop(timeout)


def _after_fork() -> None:
    global _manager, _coming
    _manager = _coming = None
    _locks.clear()  # another thread of the original may have held it


def _at_exit() -> None:
    # After an unhandled error, a Ctrl-C for one, nobody waits for results any more.
    unhandled = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
    shutdown(0 if unhandled is not None else None)


submitted_by(submit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
