"""Which manager serves what the settings say: the process's default one wherever that fits."""

from __future__ import annotations

import atexit
import functools
import logging
import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from gtaskman import default
from gtaskman.client import Client
from gtaskman.contrib.django.settings import Place, default_place
from gtaskman.errors import ConfigurationError
from gtaskman.process import refuse_at_import
from gtaskman.starting import Start, start_once

if TYPE_CHECKING:
    from gtaskman.taskmanager import TaskManager

log = logging.getLogger(__name__)

_made: dict[Place, TaskManager | Client] = {}
_starts: dict[Place, Start] = {}  # those that are under way


def configure() -> None:
    """Have the default manager made as the settings say, once it is needed.

    One that is at work already, or was put there by a test, stays, and the log says so. Raises
    :class:`ConfigurationError` for settings that make no sense.
    """
    place = default_place()
    # manage.py, a shell and synchronous servers compute and wait without a hub.
    default.assume_blocking()
    try:
        default.prefer(place.url, **place.options)
    except ConfigurationError:
        log.warning(
            "the settings of Django have no effect on this process's manager, which is at work"
            " already: set Django up before the first submit, or call gtaskman.shutdown() first"
        )


def manager_of(place: Place) -> TaskManager | Client:
    """The manager of this place, made and started if it is not there yet."""
    here = place == default_place() or is_eager()
    return default.manager() if here else _apart(place)


def is_eager() -> bool:
    """Whether a test has tasks run at once, in whoever submits them, wherever they would go."""
    testing = sys.modules.get("gtaskman.testing.manager")
    return testing is not None and isinstance(default.current(), testing.EagerManager)


def manager_nearby() -> TaskManager | Client:
    """The manager for what may not leave this host: the default one, unless that is a server's."""
    found = default.manager()
    if type(found) is not Client:
        return found
    return _apart(replace(default_place(), url=default.DEFAULT_URL))


def _apart(place: Place) -> TaskManager | Client:
    """One beside the default manager, which the first caller makes while others wait for it."""
    refuse_at_import()
    while (found := _made.get(place)) is None:
        start_once(_starts, place, "a manager of this site", functools.partial(_make, place))
    return found


def _make(place: Place) -> None:
    if place not in _made:  # else another start has ended just now
        _made[place] = default.make(
            place.url, place.config, background_given=place.background_given
        )


def _after_fork() -> None:
    _made.clear()
    _starts.clear()


def _stop_all() -> None:
    while _made:
        _, manager = _made.popitem()
        manager.stop()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_stop_all)
