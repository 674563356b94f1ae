"""The pages. No view computes: they wait, and their worker serves others meanwhile."""

from __future__ import annotations

import os

from flask import Blueprint, Response, jsonify, request

import gtaskman
from accounts import passwords
from accounts.database import connection

pages = Blueprint("pages", __name__)
PATIENCE = 20.0  # seconds


@pages.get("/")
def index() -> Response:
    """What most requests are like."""
    return jsonify(hello="world", pid=os.getpid())


@pages.get("/accounts")
def accounts() -> Response:
    """All names, and the process that made each."""
    rows = connection().execute("select name, made_by from account order by name")
    return jsonify({row["name"]: row["made_by"] for row in rows})


@pages.post("/accounts")
def register() -> tuple[Response, int]:
    """A new account."""
    name, password = request.form["name"], request.form["password"]
    if not passwords.register.submit(name, password).get(timeout=PATIENCE):
        return jsonify(error=f"there is a {name} already"), 409
    return jsonify(name=name), 201


@pages.post("/login")
def login() -> tuple[Response, int]:
    """Whether the password is right."""
    name, password = request.form["name"], request.form["password"]
    if not passwords.is_right.submit(name, password).get(timeout=PATIENCE):
        return jsonify(error="no such name, or another password"), 403
    return jsonify(hello=name), 200


@pages.errorhandler(gtaskman.GTaskmanError)
@pages.errorhandler(TimeoutError)
def unavailable(error: Exception) -> tuple[Response, int]:
    """The task failed, or took too long."""
    return jsonify(error=str(error)), 503
