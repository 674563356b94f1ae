"""The process's default manager: what ``gtaskman.submit`` and its kin use.

It is made on first use, from ``configure`` or the environment variable ``GTASKMAN_URL``, and it
is per process: a fork makes its own.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from gtaskman.config import Configuration
from gtaskman.errors import ConfigurationError
from gtaskman.fields import declared
from gtaskman.places import is_elsewhere
from gtaskman.process import in_main_thread, is_patched, refuse_at_import
from gtaskman.task import submitted_by

if TYPE_CHECKING:
    from gtaskman.client import Client
    from gtaskman.handle import TaskHandle
    from gtaskman.report import Report
    from gtaskman.starting import Start
    from gtaskman.storages import TaskStorage
    from gtaskman.taskmanager import TaskManager

DEFAULT_URL = "memory://"

_locks: dict[str, Any] = {}  # the one that guards the default manager, once it is needed
_manager: TaskManager | Client | None = None
_starts: dict[str, Start] = {}  # the start that is under way
_refusal: str | None = None  # why none is made now
_may_block = False  # see ``assume_blocking``
_settings: Made  # set below the class


def _lock() -> Any:
    """A lock of the native kind, made when it is first needed: importing us costs nothing."""
    if "default" not in _locks:
        from gevent import monkey

        _locks.setdefault("default", monkey.get_original("_thread", "allocate_lock")())
    return _locks["default"]


def configure(
    url: Any = None,
    *,
    storage: TaskStorage | str | None = None,
    client: Mapping[str, Any] | None = None,
    **options: Any,
) -> None:
    """Say how the default manager shall be made.

    Without a ``url``, or with ``"memory://"``, it is a manager in this process: ``options`` are the
    fields of :class:`Configuration`, and ``storage`` is where it keeps reports. With the URL of a
    server or of a Unix socket it is a :class:`Client`, and ``options`` are the client's:
    ``queue``, ``namespace``, ``patience``, ``codec``, ``keyring``, ``credentials`` and so on;
    ``url`` may then be a ``redis.Redis``, too. ``client`` gives options for whichever URL the
    environment variable ``GTASKMAN_URL`` holds later.

    Raises :class:`ConfigurationError` for a bad value, for an option that would have no effect,
    and if the manager is at work already: :func:`shutdown` it first.
    """
    if url is None and "credentials" in options:
        client = {**(client or {}), "credentials": options.pop("credentials")}
    if url is not None and is_elsewhere(url):
        settings, config = _client_settings(storage, {**(client or {}), **options}), {}
    else:
        settings, config = _client_settings(None, client or {}), _refuse_client(options)
    _set(Made(url, Configuration(**config), "background" in config, storage, settings))


def prefer(url: str | None = None, **options: Any) -> None:
    """:func:`configure` for integrations, whose settings serve several processes.

    The fields of Configuration have no effect where ``url`` leads to a server.
    """
    _set(Made(url, Configuration(**options), "background" in options, None, {}))


class Made(NamedTuple):
    """How the default manager is to be made."""

    url: Any = None
    config: Configuration = Configuration()
    background_given: bool = False  # ``configure`` was told where the manager runs
    storage: TaskStorage | str | None = None
    client: Mapping[str, Any] = MappingProxyType({})


_settings = Made()


def _set(made: Made) -> None:
    global _settings
    with _lock():
        if _manager is not None or _starts:
            raise ConfigurationError(
                "the default manager is at work already: configure it before the first submit, or"
                " after gtaskman.shutdown()"
            )
        _settings = made


def _client_settings(storage: object, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Those options, if a client takes each of them."""
    if storage is not None:
        raise ConfigurationError(
            "storage has no effect with the URL of a server: its managers keep the reports",
            "storage",
        )
    if not options:
        return {}
    known = _client_options()
    for name in options:
        if name not in known:
            raise ConfigurationError(
                f"{name} has no effect on a client of a server: give it to the manager that serves"
                f" the tasks (gtaskman run). A client takes {', '.join(known)}",
                name,
            )
    return options


def _client_options() -> list[str]:
    import inspect

    from gtaskman.client import Client

    parameters = inspect.signature(Client.__init__).parameters.values()
    return [each.name for each in parameters if each.kind is each.KEYWORD_ONLY]


def _refuse_client(options: dict[str, Any]) -> dict[str, Any]:
    """The options, unless one is for clients only."""
    mine = options.keys() - declared(Configuration, object)
    if mine:
        name = sorted(mine)[0]
        if name in _client_options():
            raise ConfigurationError(
                f"{name} is an option of a client: give the URL of a server, configure(url=...,"
                f" {name}=...), or configure(client={{{name!r}: ...}}) for the one in GTASKMAN_URL",
                name,
            )
    return options


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

    For its events, ``dead``, ``pause`` and whatever else has no function of its own here. With the
    URL of a server, or of a Unix socket, it is a :class:`Client` of that: managers on other hosts,
    or started here by ``gtaskman run``, do the work.
    """
    found = _manager
    return found if found is not None else _make()


def _make() -> TaskManager | Client:
    refuse_at_import()
    if _refusal is not None:
        raise ConfigurationError(_refusal)
    from gtaskman.starting import start_once

    while (found := _manager) is None:
        start_once(_starts, "default", "the default manager", _make_here)
    return found


def _make_here() -> None:
    global _manager
    if _manager is not None:
        return  # another start has ended just now
    how = _settings
    _manager = make(
        how.url or os.environ.get("GTASKMAN_URL") or DEFAULT_URL,
        how.config,
        background_given=how.background_given,
        storage=how.storage,
        client=how.client,
    )


def make(
    url: Any,
    config: Configuration,
    *,
    background_given: bool = False,
    storage: TaskStorage | str | None = None,
    client: Mapping[str, Any] = MappingProxyType({}),
) -> TaskManager | Client:
    """A manager for this process as the default one would be, started; it is the caller's.

    ``background_given`` says that ``config.background`` is as the user wants it, whatever
    :func:`assume_blocking` says. Raises :class:`ConfigurationError` for a URL that leads nowhere.
    """
    if is_elsewhere(url):
        return _client(url, client)
    if client:
        raise ConfigurationError(
            f"{next(iter(client))} is for a server: give its URL, too", next(iter(client))
        )
    return _embedded(url, config, background_given, storage)


def _client(url: Any, settings: Mapping[str, Any]) -> Client:
    from gtaskman.client import Client

    return Client(url, **settings)


def _embedded(
    url: str,
    config: Configuration,
    background_given: bool,
    storage: TaskStorage | str | None,
) -> TaskManager:
    from gtaskman.starting import started
    from gtaskman.taskmanager import TaskManager

    # Another thread may end, and whoever else submits must find a hub that runs.
    if not in_main_thread() or (not background_given and _needs_thread(config)):
        config = config.replace(background=True)
    return started(TaskManager(url, config, storage))


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
    global _manager
    _manager = None
    _starts.clear()
    _locks.clear()  # another thread of the original may have held it


def _at_exit() -> None:
    # After an unhandled error, a Ctrl-C for one, nobody waits for results any more.
    unhandled = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
    shutdown(0 if unhandled is not None else None)


submitted_by(submit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
