"""Django set up in a worker: importing this module does it, as the settings want it preloaded.

The settings module travels in the environment, as ``DJANGO_SETTINGS_MODULE``. For ``manage.py
gtaskman run`` it is the application that is served.
"""

# ruff: noqa: E402 - Django is imported in a certain way, or not for the first time

from __future__ import annotations

import importlib
import os

from gtaskman.contrib.django.asgi import import_without_pool

import_without_pool()

import django
from django.apps import apps
from django.conf import ENVIRONMENT_VARIABLE, settings
from django.db import connections
from django.utils.module_loading import autodiscover_modules

from gtaskman.config import Configuration
from gtaskman.contrib.django.settings import default_place
from gtaskman.errors import ConfigurationError
from gtaskman.task import registry


def set_up() -> None:
    """Set Django up, unless it is. Raises :class:`ConfigurationError` without a settings module."""
    if apps.ready:
        return
    if not settings.configured and not os.environ.get(ENVIRONMENT_VARIABLE):
        raise ConfigurationError(
            f"a worker cannot set Django up: {ENVIRONMENT_VARIABLE} is not set in its environment."
            " Set it before the first submit, as manage.py does; settings.configure() alone does"
            " not reach another process"
        )
    django.setup()
    # What an application has asked the database meanwhile is no reason to hand a connection to
    # every worker.
    connections.close_all()


def configuration() -> Configuration:
    """The configuration of the site's manager, all of whose tasks are known from now on.

    Raises :class:`ConfigurationError` if there are none.
    """
    config = default_place().config
    autodiscover_modules("tasks")
    for module in config.preload:
        importlib.import_module(module)
    modules = [each.module for each in registry.values() if each.kind != "service"]
    if not modules:
        raise ConfigurationError(
            "no application of this site has a module 'tasks' that defines a task: name those that"
            " do in 'preload' of the setting GTASKMAN"
        )
    return config.replace(preload=tuple(dict.fromkeys((*config.preload, *modules))))


set_up()
