"""Tasks of an extension that no application in sight serves."""

from gtaskman.contrib.flask import GTaskman

ext = GTaskman()


@ext.task
def wander() -> None:
    pass
