"""The configuration keys: what is wrong is named, and nothing starts."""

from __future__ import annotations

import logging
import os

import flask_apps.shop
import pytest
from flask import Flask
from worlds import children_of, descriptors

import gtaskman
from gtaskman import default
from gtaskman.contrib.flask import GTaskman

pytestmark = pytest.mark.quick


def application(**config):
    app = Flask("site")
    app.config.update(config)
    return app


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("GTASKMAN_MAX_PROCESSES", 0, "at least 1"),
        ("GTASKMAN_MAX_PROCESSES", "four", "`int`"),
        ("GTASKMAN_PREFETCH", 999, "is more than max_prefetch"),
        ("GTASKMAN_START_METHOD", "magic", "zygote, spawn, fork"),
        ("GTASKMAN_MAX_PROCESES", 2, "did you mean GTASKMAN_MAX_PROCESSES?"),
        ("GTASKMAN_COLOUR", "red", "no setting of gtaskman"),
        ("GTASKMAN_URL", "http://localhost", "leads nowhere"),
        ("GTASKMAN_URL", "redis://localhost:port", "port"),
        ("GTASKMAN_URL", 6379, "takes a text"),
        ("GTASKMAN_APP", "", "takes a text"),
        ("GTASKMAN_APP_PER_TASK", "yes", "True or False"),
        ("GTASKMAN_APP_PER_TASK", True, "module:factory"),
    ],
)
def test_a_wrong_setting_is_an_error_that_names_the_key(key, value, words):
    with pytest.raises(gtaskman.ConfigurationError) as caught:
        GTaskman(application(**{key: value}))
    assert key in str(caught.value)
    assert words in str(caught.value)
    assert caught.value.field == key


def test_every_field_of_a_configuration_is_a_key(monkeypatch):
    told = {}
    monkeypatch.setattr(default, "prefer", lambda url=None, **more: told.update(more, url=url))
    wanted = gtaskman.Configuration(max_processes=3, nice=5, preload=("json",), max_age=60.0)
    fields = dict(vars(wanted))
    keys = {f"GTASKMAN_{name.upper()}": value for name, value in fields.items()}

    GTaskman(application(**keys, GTASKMAN_URL="redis://localhost/3"))

    assert told == {**fields, "url": "redis://localhost/3"}


def test_init_app_starts_and_opens_nothing():
    before, children = descriptors(), children_of(os.getpid())
    app = application(GTASKMAN_MAX_PROCESSES=1, GTASKMAN_URL="redis://127.0.0.1:1")
    ext = GTaskman()

    ext.init_app(app)

    assert app.extensions["gtaskman"] is ext
    assert descriptors() == before
    assert children_of(os.getpid()) == children
    assert default._manager is None


def test_the_default_manager_is_made_as_the_application_says():
    GTaskman(application(GTASKMAN_MAX_PROCESSES=3, GTASKMAN_MIN_PROCESSES=0))
    assert default.manager().config.max_processes == 3


def test_settings_that_come_too_late_have_no_effect_and_the_log_says_so(caplog):
    GTaskman(application(GTASKMAN_MAX_PROCESSES=3, GTASKMAN_MIN_PROCESSES=0))
    gtaskman.start()
    with caplog.at_level(logging.WARNING):
        GTaskman(application(GTASKMAN_MAX_PROCESSES=3, GTASKMAN_MIN_PROCESSES=0))
        assert caplog.text == ""
        GTaskman(application(GTASKMAN_MAX_PROCESSES=4))
    assert "gtaskman.shutdown()" in caplog.text
    assert default.manager().config.max_processes == 3


def test_an_application_without_settings_leaves_the_manager_as_it_was_configured():
    gtaskman.configure(max_processes=7, min_processes=0)
    GTaskman(application())
    assert default.manager().config.max_processes == 7


def test_two_applications_of_one_process_cannot_both_name_the_one_of_the_workers():
    flask_apps.shop.create_app(GTASKMAN_APP="flask_apps.shop:create_app")
    assert os.environ["GTASKMAN_APP"] == "flask_apps.shop:create_app"
    with pytest.raises(gtaskman.ConfigurationError, match="factory="):
        GTaskman(application(GTASKMAN_APP="other:create_app"))
    GTaskman(factory="other:create_app").init_app(application(GTASKMAN_APP="other:create_app"))


def test_one_extension_serves_several_applications():
    ext = GTaskman()
    apps = [application(), application()]
    for app in apps:
        ext.init_app(app)
    assert all(app.extensions["gtaskman"] is ext for app in apps)


def test_what_is_a_task_already_is_not_decorated_again():
    with pytest.raises(gtaskman.TaskDefinitionError, match="already"):
        GTaskman().task(flask_apps.plain.colour)


def test_options_of_a_class_go_in_its_statement():
    class Late(gtaskman.Task):
        def run(self, _progress):
            return None

    with pytest.raises(gtaskman.TaskDefinitionError, match="class statement"):
        GTaskman().task(timeout=5)(Late)
