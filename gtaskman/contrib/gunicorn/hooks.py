"""Hooks of gunicorn: ours joined with the user's.

A setting of gunicorn holds one hook, and the last definition in ``gunicorn.conf.py`` wins. So the
file gets, by our line, all hooks of ours and a few that come early. The first one that is called
joins ours with whatever gunicorn has read by then, the user's later definitions included.
"""

from __future__ import annotations

import contextlib
import functools
import pkgutil
from collections.abc import Callable
from typing import Any

from gtaskman.errors import ConfigurationError

Hook = Callable[..., None]

# These make or tell: whatever the user's does may build on that. With all others it is reversed.
_OURS_FIRST = ("when_ready", "on_reload", "post_fork", "post_worker_init")
_OTHERS = ("worker_int", "worker_abort", "worker_exit", "on_exit")
_MARK = "_of_gtaskman"


class Hooks:
    """Base of what has hooks: its methods with the names of gunicorn's are called as those."""


class _Early:
    """Hooks of which each comes before anything else of ours, at the start and at a reload."""

    NAMES = ("nworkers_changed", "on_starting", "pre_fork")

    def __init__(self, ours: Hooks) -> None:
        self._ours = ours

    def nworkers_changed(self, server: Any, new: Any, old: Any) -> None:  # noqa: ARG002 - a hook's
        _join(server.cfg, self._ours)

    def on_starting(self, server: Any) -> None:
        _join(server.cfg, self._ours)

    def pre_fork(self, server: Any, worker: Any) -> None:  # noqa: ARG002 - as above
        _join(server.cfg, self._ours)


def install(namespace: dict[str, Any], ours: Hooks) -> None:
    """Have ``ours`` joined with the hooks of the file with this namespace, once that is read.

    Raises :class:`ConfigurationError` if that was asked for already.
    """
    if any(_is_ours(namespace.get(name)) for name in _Early.NAMES):
        raise ConfigurationError("gtaskman is installed in this gunicorn.conf.py already: once")
    early = _Early(ours)
    for name in _Early.NAMES:
        theirs, join = _theirs(namespace, name), getattr(early, name)
        namespace[name] = _joined(join, join) if theirs is None else _joined(join, theirs, join)
    for name in (*_OURS_FIRST, *_OTHERS):
        hook, theirs = getattr(ours, name, None), _theirs(namespace, name)
        if hook is not None:
            # The file may define all the early ones later: then this one joins what is left.
            namespace[name] = _joined(hook, _joining(ours), *_in_order(name, hook, theirs))


def _joining(ours: Hooks) -> Hook:
    def join(server_or_worker: Any, *_: Any) -> None:
        _join(server_or_worker.cfg, ours)

    return join


def _in_order(name: str, ours: Hook, theirs: Hook | None) -> list[Hook]:
    """Both hooks, or ours alone, in the order in which they are called."""
    both = (ours, theirs) if name in _OURS_FIRST else (theirs, ours)
    return [hook for hook in both if hook is not None]


def _theirs(namespace: dict[str, Any], name: str) -> Hook | None:
    """The user's hook; the file may have it by a dotted name. Raises ConfigurationError."""
    found = namespace.get(name)
    try:
        hook = pkgutil.resolve_name(found) if isinstance(found, str) else found
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(f"{name} = {found!r}: {error}", name) from error
    if hook is None or callable(hook):
        return hook
    raise ConfigurationError(f"{name} = {found!r:.80} is not something to call", name)


def _join(config: Any, ours: Hooks) -> None:
    """Join them with those that gunicorn has, unless that is done."""
    for name in (*_OURS_FIRST, *_OTHERS):
        hook, theirs = getattr(ours, name, None), getattr(config, name)
        if hook is not None and not _is_ours(theirs):
            config.set(name, _joined(hook, *_in_order(name, hook, theirs)))


def _joined(like: Hook, *hooks: Hook) -> Hook:
    """All of them in this order, each whatever the one before raises; they take what one does."""

    @functools.wraps(like)  # gunicorn counts a hook's arguments
    def joined(*given: Any) -> None:
        with contextlib.ExitStack() as stack:
            for each in reversed(hooks):
                stack.callback(each, *given)

    setattr(joined, _MARK, True)
    return joined


def _is_ours(hook: Any) -> bool:
    return hasattr(hook, _MARK)
