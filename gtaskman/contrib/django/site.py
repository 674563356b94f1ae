"""Django set up in a worker: importing this module does it, as the settings want it preloaded.

The settings module travels in the environment, as ``DJANGO_SETTINGS_MODULE``. For ``manage.py
gtaskman run`` it is the application that is served.
"""

# ruff: noqa: E402 - Django is imported in a certain way, or not for the first time

from __future__ import annotations

import importlib

from gtaskman.contrib.django.asgi import import_without_pool

import_without_pool()

from django.utils.module_loading import autodiscover_modules

from gtaskman.config import Configuration
from gtaskman.contrib.django.loading import set_up
from gtaskman.contrib.django.settings import default_place
from gtaskman.errors import ConfigurationError
from gtaskman.task import registry


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
