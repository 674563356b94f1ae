"""What Django's settings say to gtaskman.

``GTASKMAN`` is about the process's default manager, which plain tasks and ``offload`` use:

==================  ===============================================================================
``url``             where tasks go: ``memory://`` (the default), or a server
``in_atomic``       what ``offload`` does inside a transaction: ``error``, ``inline``, ``allow``
a field             any field of :class:`gtaskman.Configuration`
==================  ===============================================================================

``OPTIONS`` of a backend in ``TASKS`` takes ``url`` and the same fields (what it leaves out is as in
``GTASKMAN``), and ``enqueue_on_commit``, ``kind``, ``timeout`` and ``retries``.
"""

from __future__ import annotations

import difflib
import functools
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from gtaskman.config import Configuration
from gtaskman.default import DEFAULT_URL
from gtaskman.errors import ConfigurationError
from gtaskman.fields import declared
from gtaskman.places import is_elsewhere, scheme_of

GTASKMAN, TASKS = "GTASKMAN", "TASKS"
SITE = "gtaskman.contrib.django.site"
"""The module that sets Django up, in a worker or its template, when it is imported."""
IN_ATOMIC = ("error", "inline", "allow")
_FIELDS = tuple(declared(Configuration, object))
_MANAGER = ("url", *_FIELDS)
_TASK = ("enqueue_on_commit", "kind", "timeout", "retries")


@dataclass(frozen=True)
class Place:
    """A manager as the settings want it."""

    url: str
    config: Configuration
    background_given: bool = False
    """Whether the settings say where the manager runs, instead of the integration."""

    @property
    def options(self) -> dict[str, Any]:
        """What :func:`gtaskman.configure` takes beside the URL."""
        given = dict(self.config.__dict__)
        if not self.background_given:
            del given["background"]
        return given

    @property
    def is_embedded(self) -> bool:
        """Whether it is one of this process alone."""
        return not is_elsewhere(self.url)


@dataclass(frozen=True)
class BackendOptions:
    """The ``OPTIONS`` of one backend: where its tasks go, and what holds for all of them."""

    place: Place
    on_commit: bool
    kind: str
    timeout: float | None
    retries: int

    @classmethod
    def of(cls, alias: str, options: Mapping[str, Any]) -> BackendOptions:
        """Read and check them. Raises :class:`ConfigurationError`, which names the key."""
        where = f"{TASKS}[{alias!r}]['OPTIONS']"
        _check_keys(where, options, (*_MANAGER, *_TASK))
        on_commit = options.get("enqueue_on_commit", False)
        if not isinstance(on_commit, bool):
            raise ConfigurationError(
                f"{where}: enqueue_on_commit takes True or False, not {on_commit!r:.80}",
                "enqueue_on_commit",
            )
        own = getattr(settings, GTASKMAN, None) or {}
        given = {key: value for key, value in options.items() if key in _MANAGER}
        inherited = {key: value for key, value in own.items() if key in _MANAGER}
        return cls(
            _place(where, {**inherited, **given}),
            on_commit,
            options.get("kind", "sync"),
            options.get("timeout"),
            options.get("retries", 0),
        )


@functools.cache
def default_place() -> Place:
    """The default manager's: as ``GTASKMAN`` says, else as the first of our backends does.

    Raises :class:`ConfigurationError`, which names the key that is wrong.
    """
    own = getattr(settings, GTASKMAN, None)
    if own is not None:
        _check_keys(GTASKMAN, own, (*_MANAGER, "in_atomic"))
        in_atomic()
        return _place(GTASKMAN, {key: value for key, value in own.items() if key in _MANAGER})
    for alias, options in _backends():
        return BackendOptions.of(alias, options).place
    return _place(GTASKMAN, {})


def in_atomic() -> str:
    """What ``offload`` does inside a transaction, unless it is told."""
    own = getattr(settings, GTASKMAN, None) or {}
    return check_in_atomic(own.get("in_atomic", IN_ATOMIC[0]), f"{GTASKMAN}: ")


def check_in_atomic(value: Any, where: str = "") -> str:
    """``value`` if ``in_atomic`` takes it, else :class:`ConfigurationError`."""
    if value not in IN_ATOMIC:
        known = ", ".join(map(repr, IN_ATOMIC))
        raise ConfigurationError(f"{where}in_atomic takes {known}, not {value!r:.80}", "in_atomic")
    return str(value)


def queues() -> list[str]:
    """The names of the queues that our backends send to."""
    names = [name for alias, _ in _backends() for name in _tasks()[alias].get("QUEUES", ())]
    return list(dict.fromkeys(names))


def _tasks() -> Mapping[str, Mapping[str, Any]]:
    return getattr(settings, TASKS, None) or {}


def _backends() -> Iterable[tuple[str, Mapping[str, Any]]]:
    """Aliases of our backends and their options, ``default`` first."""
    for alias, params in sorted(_tasks().items(), key=lambda pair: pair[0] != "default"):
        if _is_ours(params.get("BACKEND", "")):
            yield alias, params.get("OPTIONS", {})


def _is_ours(path: str) -> bool:
    try:
        found = import_string(path)
    except (ImportError, ConfigurationError):
        # Django says so itself when the backend is used, and never before 6.0.
        return False
    from gtaskman.contrib.django.backend import TaskBackend

    return isinstance(found, type) and issubclass(found, TaskBackend)


def _place(where: str, given: Mapping[str, Any]) -> Place:
    fields = {key: value for key, value in given.items() if key != "url"}
    try:
        config = Configuration(**fields)
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: {error}", error.field) from None
    modules = tuple(name for name in config.preload if name != SITE)
    return Place(
        _url(where, given.get("url")),
        config.replace(preload=(SITE, *modules)),
        "background" in fields,
    )


def _url(where: str, url: Any) -> str:
    if url is None:
        return os.environ.get("GTASKMAN_URL") or DEFAULT_URL
    if not is_elsewhere(url) and not (isinstance(url, str) and url.startswith("memory:")):
        raise ConfigurationError(
            f"{where}: url={scheme_of(url)} leads nowhere: give memory://, unix:///path.sock or"
            " the URL of a server, such as redis://localhost:6379/0",
            "url",
        )
    return str(url)


def _check_keys(where: str, given: Any, known: tuple[str, ...]) -> None:
    if not isinstance(given, Mapping):
        raise ConfigurationError(f"{where} takes a dict, not {given!r:.80}")
    for key in given:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, 1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ConfigurationError(f"{where} has no key {key!r}{hint}", str(key))


def _forget(*, setting: str, **_more: Any) -> None:
    """For tests that override settings."""
    if setting in (GTASKMAN, TASKS):
        default_place.cache_clear()


setting_changed.connect(_forget)
