"""gunicorn: what gtaskman needs of its hooks, by one line in ``gunicorn.conf.py``.

::

    from gtaskman.contrib.gunicorn import install

    install(globals(), mode="embedded")         # or mode="host"

In the mode *embedded* each gunicorn worker has a manager and a pool of its own, made with its first
``submit`` and gone with the worker. In the mode *host* all gunicorn workers share one manager, a
process of its own that lives as long as they do. Either way the application calls
``gtaskman.submit(task).get()``.

====================  =========================================================================
``hooks``             joining hooks of ours with those that the user has
``embedded``          the hooks of the mode *embedded*
``host``              the hooks of the mode *host*
``summons``           since when this process is to end
``generation``        one generation of code: its directory, its manager, who depends on whom
``serving``           the program of a manager that gunicorn's workers share
====================  =========================================================================
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gtaskman.config import Configuration
from gtaskman.contrib.gunicorn import hooks
from gtaskman.contrib.gunicorn.embedded import Embedded
from gtaskman.contrib.gunicorn.host import Host
from gtaskman.errors import ConfigurationError

__all__ = ["install"]

MODES = ("embedded", "host")


def install(
    namespace: dict[str, Any],
    mode: str = "embedded",
    *,
    start: bool | None = None,
    queue: str | None = None,
    tasks: str | Iterable[str] = (),
    directory: str | None = None,
    **options: Any,
) -> None:
    """Enable gtaskman in the ``gunicorn.conf.py`` whose ``globals()`` these are.

    Hooks that the file defines, before this line or after it, are called as ever. ``options`` are
    the fields of :class:`gtaskman.Configuration`, in the mode *embedded* for the default manager
    of each worker, in the mode *host* for the one that all share.

    ``start`` (embedded) makes the manager before the first request instead of with the first
    submit. ``queue`` (host) is the URL of the manager's queue, ``memory://`` if not given, and
    ``tasks`` (host) the modules that it imports, for the names of tasks; with a queue on a server
    that is the application's module if not given.
    ``directory`` (host) is where the private directory of its socket is made: that of
    ``XDG_RUNTIME_DIR``, or else of temporary files.

    Raises :class:`ConfigurationError` for a mistake, which ends gunicorn before it has started.
    """
    if not isinstance(namespace, dict):
        raise ConfigurationError(
            f"install takes the globals() of gunicorn.conf.py first, not {namespace!r:.80}",
            "namespace",
        )
    config = Configuration(**options)
    if mode == "embedded":
        _refuse(mode, queue=queue, tasks=tasks or None, directory=directory)
        hooks.install(namespace, Embedded(options, bool(start)))
    elif mode == "host":
        _refuse(mode, start=start)
        names = (tasks,) if isinstance(tasks, str) else tuple(tasks)
        hooks.install(namespace, Host(queue or "memory://", names, config, directory))
    else:
        raise ConfigurationError(
            f"mode must be one of {', '.join(MODES)}, not {mode!r:.80}", "mode"
        )


def _refuse(mode: str, **given: Any) -> None:
    """Refuse what has no meaning in this mode."""
    for name, value in given.items():
        if value is not None:
            raise ConfigurationError(f"{name} has no meaning in the mode {mode!r}", name)
