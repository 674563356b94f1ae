"""The extension, before there is an application."""

from gtaskman.contrib.flask import GTaskman

tasks = GTaskman()
