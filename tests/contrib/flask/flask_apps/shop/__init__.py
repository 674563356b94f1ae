"""A package with a factory, as Flask's own tutorial has it."""

import itertools

import gevent
from flask import Flask

import flask_apps.plain
from flask_apps.shop import tasks
from flask_apps.shop.extensions import ext

plain = flask_apps.plain
_numbers = itertools.count(1)


def create_app(**config):
    app = Flask(__name__)
    app.config.update(COLOUR="blue", NUMBER=next(_numbers), GTASKMAN_MAX_PROCESSES=1)
    app.config.update(config)
    app.config.from_prefixed_env("SHOP")
    ext.init_app(app)
    if "LATER" in app.config:
        gevent.sleep(0.3)  # others run meanwhile
        app.config["COLOUR"] = app.config["LATER"]
    app.teardown_appcontext(tasks.tell)
    return app
