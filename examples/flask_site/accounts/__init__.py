"""Accounts with passwords: a small Flask site, served by gunicorn's gevent workers.

    pip install 'gtaskman[flask,gunicorn]'
    gunicorn -c gunicorn.conf.py 'accounts:create_app()'
    curl localhost:8000/accounts -d name=ada -d password=secret
    curl localhost:8000/login -d name=ada -d password=secret

scrypt takes a fifth of a second of computing by design: within a request it would freeze everybody
else. Here tasks do it, which have the application's context as a view has it: its configuration,
its connection to the database, its teardown.
"""

from __future__ import annotations

import os

from flask import Flask

from accounts import database, views
from accounts.extensions import tasks


def create_app() -> Flask:
    """The application; called in each of gunicorn's workers, and in each of those of the tasks."""
    app = Flask(__name__, instance_relative_config=True)
    app.config.from_mapping(
        DATABASE=os.path.join(app.instance_path, "accounts.sqlite"),
        SCRYPT={"n": 2**14, "r": 8, "p": 5},  # as OWASP recommends
        GTASKMAN_MAX_PROCESSES=1,  # for each of gunicorn's workers
        GTASKMAN_NICE=10,  # answering goes first
    )
    app.config.from_prefixed_env("ACCOUNTS")  # ACCOUNTS_DATABASE=..., ACCOUNTS_GTASKMAN_URL=...
    database.init_app(app)
    tasks.init_app(app)
    app.register_blueprint(views.pages)
    return app
