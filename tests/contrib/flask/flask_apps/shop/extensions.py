"""The extension, made before any application."""

from gtaskman.contrib.flask import GTaskman

ext = GTaskman()
