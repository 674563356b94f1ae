"""``Settings``: what an application's configuration says to gtaskman.

=========================  ====================================================================
``GTASKMAN_URL``           where tasks go: ``memory://`` (the default), or a server
``GTASKMAN_APP``           where workers find the application: ``module``, ``module:name`` or
                           ``module:factory``
``GTASKMAN_APP_PER_TASK``  make a new application for each task, instead of one for each worker
``GTASKMAN_<FIELD>``       any field of :class:`gtaskman.Configuration`
=========================  ====================================================================
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gtaskman import default
from gtaskman.config import Configuration
from gtaskman.errors import ConfigurationError
from gtaskman.fields import declared
from gtaskman.places import is_elsewhere, scheme_of

if TYPE_CHECKING:
    from flask import Flask

log = logging.getLogger(__name__)

PREFIX = "GTASKMAN_"
URL, APP, PER_TASK = f"{PREFIX}URL", f"{PREFIX}APP", f"{PREFIX}APP_PER_TASK"
_FIELDS = {PREFIX + field.upper(): field for field in declared(Configuration, object)}


@dataclass(frozen=True)
class Settings:
    """The ``GTASKMAN_*`` keys of one application.

    ``url`` and ``path`` are None where it does not say; ``fields`` are those of a Configuration
    that it gives.
    """

    url: str | None
    path: str | None
    per_task: bool
    fields: Mapping[str, Any]

    @classmethod
    def of(cls, app: Flask) -> Settings:
        """Read and check them. Raises :class:`ConfigurationError`, which names the key."""
        given = {key: value for key, value in app.config.items() if key.startswith(PREFIX)}
        for key in given:
            _check_known(key)
        fields = {_FIELDS[key]: value for key, value in given.items() if key in _FIELDS}
        try:
            Configuration(**fields)
        except ConfigurationError as error:
            key = PREFIX + (error.field or "").upper()
            raise ConfigurationError(f"{key}: {error}", key) from None
        return cls(
            _url(given.get(URL)), _text(APP, given.get(APP)), _flag(given.get(PER_TASK)), fields
        )

    @property
    def config(self) -> Configuration:
        """The manager's configuration."""
        return Configuration(**self.fields)

    def apply(self, name: str) -> None:
        """Have the process's default manager made so, once it is needed.

        ``name`` is the application's. A manager that is at work already, or was put there by a
        test, stays, and the log says that these settings have no effect.
        """
        global _applied
        wanted = (self.url, dict(self.fields))
        if wanted in (_NOTHING, _applied):
            return
        if _applied is not None:
            log.warning(
                "the GTASKMAN_* settings of the application %r replace those of another one: a"
                " process has one manager, made with its first submit",
                name,
            )
        try:
            default.prefer(self.url, **self.fields)
        except ConfigurationError:
            log.warning(
                "the GTASKMAN_* settings of the application %r have no effect: this process's"
                " manager is at work already; call gtaskman.shutdown() first",
                name,
            )
        else:
            _applied = wanted


_NOTHING: tuple[str | None, dict[str, Any]] = (None, {})
_applied: tuple[str | None, dict[str, Any]] | None = None  # what the default manager was told last


def _check_known(key: str) -> None:
    known = (URL, APP, PER_TASK, *_FIELDS)
    if key not in known:
        close = difflib.get_close_matches(key, known, 1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ConfigurationError(f"{key} is no setting of gtaskman{hint}", key)


def _text(key: str, value: Any) -> str | None:
    if value is not None and not (isinstance(value, str) and value.strip()):
        raise ConfigurationError(f"{key} takes a text, not {value!r:.80}", key)
    return value


def _flag(value: Any) -> bool:
    if value is not None and not isinstance(value, bool):
        raise ConfigurationError(f"{PER_TASK} takes True or False, not {value!r:.80}", PER_TASK)
    return bool(value)


def _url(value: Any) -> str | None:
    url = _text(URL, value)
    if url is None or url.startswith("memory:"):
        return url
    if not is_elsewhere(url):
        raise ConfigurationError(
            f"{URL}: {scheme_of(url)} leads nowhere: give memory:// or the URL of a server, such as"
            " redis://localhost:6379/0",
            URL,
        )
    from gtaskman.client import Client

    try:
        Client(url)  # opens nothing, and knows a good one
    except ConfigurationError as error:
        raise ConfigurationError(f"{URL}: {error}", URL) from None
    return url
