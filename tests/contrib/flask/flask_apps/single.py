"""An application at the top of a module, with its extension and its tasks beside it."""

import os

from flask import Flask, current_app, g

import flask_apps.plain
from gtaskman.contrib.flask import GTaskman

app = Flask(__name__)
app.config.update(COLOUR="green", GTASKMAN_MAX_PROCESSES=1, GTASKMAN_KILL_GRACE=0.5)
ext = GTaskman(app)
plain = flask_apps.plain
teardowns = []


@app.teardown_appcontext
def tell(error):
    teardowns.append((getattr(g, "name", None), None if error is None else type(error).__name__))


@ext.task
def look(name: str) -> dict:
    """What is around a task."""
    before = g.get("name")
    g.name = name
    return {"colour": current_app.config["COLOUR"], "before": before, "pid": os.getpid()}


@ext.task
def torn_down() -> list:
    """The ends of contexts in this worker so far."""
    return teardowns
