"""Django set up in this process, once: ``set_up``, and ``set_up_for_task`` inside a task.

::

    ready      nothing to do
    loading    by this thread: a module of the site is being imported, and the caller goes on;
               by another thread: wait for it
    failed     the error of the first attempt again: Django does not load applications twice
    else       django.setup()
"""

from __future__ import annotations

import contextlib
import contextvars
import os

import django
from django.apps import apps
from django.conf import ENVIRONMENT_VARIABLE, settings
from django.db import connections
from gevent import Greenlet, spawn

from gtaskman.errors import ConfigurationError

_failure: BaseException | None = None  # why django.setup() failed in this process
_loader: Greenlet | None = None  # sets Django up for the tasks that wait for it


def set_up() -> None:
    """Set Django up, unless it is; while this thread loads the applications, do nothing.

    Raises :class:`ConfigurationError` without a settings module, and what the site itself raised.
    """
    if apps.ready:
        return
    if _failure is not None:
        raise ConfigurationError(
            f"Django could not be set up in this process: {type(_failure).__name__}: {_failure}"
        ) from _failure
    if apps.loading:
        _join_loading()
        return
    if not settings.configured and not os.environ.get(ENVIRONMENT_VARIABLE):
        raise ConfigurationError(
            f"a worker cannot set Django up: {ENVIRONMENT_VARIABLE} is not set in its environment."
            " Set it before the first submit, as manage.py does; settings.configure() alone does"
            " not reach another process"
        )
    _load()


def set_up_for_task() -> None:
    """:func:`set_up`, in a greenlet of its own, which no cancel or time limit of a task interrupts.

    Interrupted halfway, Django could not be set up in this worker any more, and each later task
    would fail there. Raises :class:`ConfigurationError`.
    """
    global _loader
    if apps.ready:
        return
    if _loader is None:
        # In an empty context: what the site calls while it is loaded is not called by the task.
        _loader = spawn(contextvars.Context().run, _load_apart)
    _loader.join()
    set_up()


def _load_apart() -> None:
    with contextlib.suppress(Exception, SystemExit):  # each task gets the error from set_up()
        set_up()


def _load() -> None:
    global _failure
    try:
        django.setup()
    except BaseException as error:
        _failure = error
        raise
    # What an application has asked the database meanwhile is no reason to hand a connection to
    # every worker.
    connections.close_all()


def _join_loading() -> None:
    """Wait until another thread has loaded the applications; return at once in that thread."""
    try:
        # Takes Django's lock, which the loading thread holds: it alone gets in, and is refused.
        apps.populate(settings.INSTALLED_APPS)
    except RuntimeError:
        # A models.py or AppConfig.ready() imports a module of tasks. What this thread is loading
        # will be ready when it has finished.
        pass
