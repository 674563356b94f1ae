"""One connection for each application context: of a request, or of a task."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from flask import Flask, current_app, g

TABLES = """
create table if not exists account (
    name text primary key,
    salt blob not null,
    hash blob not null,
    made_by integer not null
)
"""


def connection() -> sqlite3.Connection:
    """The context's connection, opened when it is first asked for."""
    if "connection" not in g:
        g.connection = sqlite3.connect(current_app.config["DATABASE"], timeout=30)
        g.connection.row_factory = sqlite3.Row
    return g.connection


def close(_error: BaseException | None) -> None:
    """At the end of the context."""
    opened = g.pop("connection", None)
    if opened is not None:
        opened.close()


def init_app(app: Flask) -> None:
    """Make the tables, and close what contexts have opened."""
    app.teardown_appcontext(close)
    Path(app.config["DATABASE"]).parent.mkdir(exist_ok=True)
    with app.app_context(), connection():
        connection().execute(TABLES)
