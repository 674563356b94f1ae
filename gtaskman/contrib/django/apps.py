"""The application of ``INSTALLED_APPS``: has the default manager made as the settings say."""

from __future__ import annotations

from django.apps import AppConfig

from gtaskman.contrib.django import managers


class GTaskmanConfig(AppConfig):
    """``gtaskman.contrib.django``."""

    name = "gtaskman.contrib.django"
    label = "gtaskman"
    verbose_name = "gtaskman"

    def ready(self) -> None:
        """Read the settings. Raises :class:`ConfigurationError`, which names what is wrong."""
        managers.configure()
