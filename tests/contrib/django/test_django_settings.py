"""What the settings say: read, checked, and who is served by which manager."""

from __future__ import annotations

import json
from pathlib import Path

import django
import pytest
from django.conf import settings as django_settings
from django.test import override_settings
from django_site import settings as site_settings
from worlds import run_python

import gtaskman
from gtaskman import default
from gtaskman.contrib.django import apps, managers, settings

pytestmark = pytest.mark.quick
HERE = str(Path(__file__).resolve().parent)
OURS = site_settings.BACKEND
with_tasks = pytest.mark.skipif(
    django.VERSION < (6,), reason="django.tasks came with Django 6.0, TASKS is not read before"
)


@pytest.fixture(autouse=True)
def anew(fresh):
    """No manager is there."""


def test_the_default_manager_is_as_the_settings_say():
    found = settings.default_place()
    assert found.url == "memory://"
    assert found.is_embedded
    assert found.config.max_processes == 2
    # Whatever else is preloaded, Django is set up before.
    assert found.config.preload == (settings.SITE,)
    # This process is not patched: what its main thread does need not let a hub run.
    assert default.manager().config == found.config.replace(background=True)


@pytest.mark.parametrize(
    ("given", "background"),
    [
        ({}, True),
        ({"background": True}, True),
        ({"background": False}, False),
    ],
    ids=str,
)
def test_where_the_managers_of_an_unpatched_process_run(given, background):
    with override_settings(GTASKMAN={**given, "max_processes": 1}):
        managers.configure()
        assert default.manager().background is background
        place = settings.BackendOptions.of("apart", {"max_processes": 2}).place
        assert managers.manager_of(place).background is background


BESIDE = """
from gevent import monkey

monkey.patch_all()

import django


def main():
    django.setup()
    import gevent

    from gtaskman.contrib.django import offload

    print([each.get() for each in [gevent.spawn(offload, abs, -n) for n in range(3)]])


if __name__ == "__main__":
    main()
"""


def test_greenlets_that_come_together_to_a_second_manager_share_one(site, tmp_path):
    (tmp_path / "together.py").write_text(BESIDE)
    given = {"url": "redis://127.0.0.1:1", "background": True, "max_processes": 1}
    env = {**site, "PYTHONPATH": HERE, "DJANGO_SITE_GTASKMAN": json.dumps(given)}
    done = run_python(str(tmp_path / "together.py"), directory=tmp_path, env=env)
    assert done.code == 0, done.output
    assert done.output.splitlines()[-1] == "[0, 1, 2]"


@pytest.mark.parametrize(
    ("url", "embedded"),
    [
        ("memory://", True),
        ("redis://localhost:6379/1", False),
        ("embedded:/tmp/queue", False),
        ("unix:///run/gtaskman.sock", False),
    ],
)
def test_where_tasks_go(url, embedded):
    with override_settings(GTASKMAN={"url": url, "preload": ["shop", settings.SITE, "lamp"]}):
        found = settings.default_place()
    assert (found.url, found.is_embedded) == (url, embedded)
    assert found.config.preload == (settings.SITE, "shop", "lamp")


def test_without_a_url_the_environment_says_it(monkeypatch):
    monkeypatch.setenv("GTASKMAN_URL", "redis://elsewhere:6379/0")
    assert settings.default_place().url == "memory://"  # what was read stays
    settings.default_place.cache_clear()
    assert settings.default_place().url == "redis://elsewhere:6379/0"
    with override_settings(GTASKMAN={"url": "memory://"}):
        assert settings.default_place().url == "memory://"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_proceses": 3}, r"^GTASKMAN has no key 'max_proceses'; did you mean 'max_processes'"),
        ({"max_processes": 0}, r"^GTASKMAN: max_processes must be at least 1"),
        ({"min_processes": 5, "max_processes": 2}, r"^GTASKMAN: min_processes=5 is more than"),
        ({"url": "nowhere"}, r"^GTASKMAN: url='nowhere' leads nowhere"),
        ({"url": 7}, r"^GTASKMAN: url=7 leads nowhere"),
        ({"in_atomic": "maybe"}, r"^GTASKMAN: in_atomic takes 'error', 'inline', 'allow'"),
        (["max_processes"], r"^GTASKMAN takes a dict"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_said_when_django_is_set_up(given, message):
    config = apps.GTaskmanConfig.create("gtaskman.contrib.django")
    said = pytest.raises(gtaskman.ConfigurationError, match=message)
    with override_settings(GTASKMAN=given), said:
        config.ready()


def test_a_manager_that_is_at_work_stays(caplog):
    manager = default.manager()
    managers.configure()
    assert "have no effect on this process's manager" in caplog.text
    assert default.manager() is manager


@with_tasks
def test_without_settings_of_its_own_the_first_backend_decides():
    other = {"BACKEND": "django.tasks.backends.dummy.DummyBackend", "OPTIONS": {"x": 1}}
    tasks = {
        "dummy": other,
        "missing": {"BACKEND": "does.not.exist"},
        "ours": {"BACKEND": OURS, "OPTIONS": {"max_processes": 3}, "QUEUES": ["a", "b"]},
        "default": {"BACKEND": OURS, "OPTIONS": {"max_processes": 4}, "QUEUES": ["b", "c"]},
    }
    with override_settings(TASKS=tasks):
        del django_settings.GTASKMAN
        assert settings.default_place().config.max_processes == 4
        assert settings.queues() == ["b", "c", "a"]
        tasks["default"] = other
        settings.default_place.cache_clear()
        assert settings.default_place().config.max_processes == 3


@pytest.mark.skipif(django.VERSION >= (6,), reason="django.tasks is there")
def test_before_django_6_the_backend_says_what_is_missing():
    with pytest.raises(gtaskman.ConfigurationError, match=r"needs django.tasks, .* since 6.0"):
        gtaskman.contrib.django.TaskBackend  # noqa: B018 - it is imported by that
    # And nobody else minds what TASKS says.
    assert settings.queues() == []


def test_options_inherit_what_they_leave_out():
    with override_settings(GTASKMAN={"max_processes": 7, "ttl": 5, "in_atomic": "allow"}):
        found = settings.BackendOptions.of("a", {"ttl": 6, "timeout": 3, "kind": "async"})
        same = settings.BackendOptions.of("b", {"enqueue_on_commit": True})
        assert same.place == settings.default_place()
    assert (found.place.config.max_processes, found.place.config.ttl) == (7, 6)
    assert (found.timeout, found.kind, found.retries, found.on_commit) == (3, "async", 0, False)
    assert same.on_commit is True


def test_places_that_are_alike_share_a_manager():
    place = settings.BackendOptions.of("a", {"max_processes": 1}).place
    mine = managers.manager_of(place)
    assert managers.manager_of(settings.BackendOptions.of("b", {"max_processes": 1}).place) is mine
    assert managers.manager_of(settings.default_place()) is default.manager() is not mine
    assert managers.manager_nearby() is default.manager()
    server = settings.Place("redis://127.0.0.1:1", place.config)
    assert isinstance(managers.manager_of(server), gtaskman.Client)
