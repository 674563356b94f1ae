"""Sites laid out in every way that Django allows: each is set up, and runs its task."""

from __future__ import annotations

import textwrap
from pathlib import Path

import django
import pytest
from worlds import run_python

pytestmark = pytest.mark.quick
ENDING = 60  # seconds for a script that starts workers

SETTINGS = """
    SECRET_KEY = "for tests only"
    USE_TZ = True
    INSTALLED_APPS = {applications!r}
    DATABASES = {{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": {database!r}}}}}
    TASKS = {{"default": {{"BACKEND": "gtaskman.contrib.django.TaskBackend"}}}}
    {gtaskman}
"""
OWN_TASKS = """
    import os

    from gtaskman.contrib.django import task


    @task
    def double(number: int) -> tuple[int, int]:
        return 2 * number, os.getpid()
"""
DJANGO_TASKS = """
    import os

    from django.tasks import task


    @task
    def double(number: int) -> list[int]:
        return [2 * number, os.getpid()]
"""
APPS = """
    from django.apps import AppConfig


    class Shop(AppConfig):
        name = "shop"

        def ready(self):
            {ready}
"""
SCRIPT = """
    import os

    import django


    def main():
        django.setup()
        from gtaskman import default
        from shop.tasks import double

        if hasattr(double, "enqueue"):
            result = double.enqueue(21)
            handle = default.manager().handle(result.id)
            assert handle is None or handle.wait(40)
            result.refresh()
            value, pid = result.return_value
        else:
            value, pid = double.submit(21).get(40)
        assert value == 42
        assert pid != os.getpid()
        print("as it should be")


    if __name__ == "__main__":
        main()
"""
MODELS_OF_THE_APPLICATION = """
    import os

    mine = str(os.getpid())
    if os.environ.setdefault("APPLICATION", mine) != mine:
        raise LookupError("no models for workers")
"""
KINDS = {"gtaskman": OWN_TASKS, "django": DJANGO_TASKS} if django.VERSION >= (6,) else {
    "gtaskman": OWN_TASKS
}  # fmt: skip
IMPORT = "import shop.tasks"
READY = {
    "ready": IMPORT,
    "errands": "import gtaskman.contrib.django.errands",  # as the first offload() does
}


def write_site(directory: Path, kind: str, gtaskman: str, importer: str, first: bool) -> None:
    """A site of one application, whose tasks the ``importer`` imports while Django is loading."""
    names = ["gtaskman.contrib.django", "shop.apps.Shop"]
    files = {
        "settings.py": SETTINGS.format(
            applications=names if first else names[::-1],
            database=str(directory / "db.sqlite3"),
            gtaskman=gtaskman,
        ),
        "shop/__init__.py": "",
        "shop/tasks.py": KINDS[kind],
        "shop/models.py": IMPORT if importer == "models" else "",
        "shop/apps.py": APPS.format(ready=READY.get(importer, "pass")),
        "script.py": SCRIPT,
    }
    (directory / "shop").mkdir()
    for name, text in files.items():
        (directory / name).write_text(textwrap.dedent(text))


def environment(directory: Path) -> dict[str, str]:
    return {"DJANGO_SETTINGS_MODULE": "settings", "PYTHONPATH": str(directory), "GTASKMAN_URL": ""}


@pytest.mark.parametrize("first", [True, False], ids=["gtaskman-first", "gtaskman-last"])
@pytest.mark.parametrize("importer", ["models", "ready", "errands", "nobody"])
@pytest.mark.parametrize("gtaskman", ["", "GTASKMAN = {}"], ids=["without", "with"])
@pytest.mark.parametrize("kind", list(KINDS))
def test_a_site_is_set_up_and_runs_its_task(tmp_path, kind, gtaskman, importer, first):
    write_site(tmp_path, kind, gtaskman, importer, first)
    env = environment(tmp_path)
    done = run_python("-m", "script", directory=tmp_path, env=env, timeout=ENDING)
    assert done.code == 0, done.output
    assert "as it should be" in done.output
    assert "by themselves" not in done.output, "the workers' template has not set Django up"


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_checks_of_a_site_pass(tmp_path, kind):
    write_site(tmp_path, kind, "", "models", first=True)
    env = environment(tmp_path)
    done = run_python("-m", "django", "check", directory=tmp_path, env=env, timeout=ENDING)
    assert done.code == 0, done.output
    assert "no issues" in done.output


def test_a_site_that_cannot_be_set_up_in_a_worker_says_why(tmp_path):
    write_site(tmp_path, "gtaskman", "", "nobody", first=True)
    (tmp_path / "shop" / "models.py").write_text(textwrap.dedent(MODELS_OF_THE_APPLICATION))
    env = environment(tmp_path)
    done = run_python("-m", "script", directory=tmp_path, env=env, timeout=ENDING)
    assert done.code != 0
    assert "no models for workers" in done.output
    assert "reentrant" not in done.output


SLOW = """
    import pathlib
    import time

    from django.apps import AppConfig


    class Shop(AppConfig):
        name = "shop"

        def ready(self):
            site = pathlib.Path(__file__).parents[1]
            (site / "loading").touch()
            while not (site / "go").exists():
                time.sleep(0.01)
"""
CANCELLING = """
    import pathlib

    import gevent

    import gtaskman


    def main():
        from shop.tasks import double

        with gtaskman.TaskManager(config=gtaskman.Configuration(max_processes=1)) as manager:
            first = manager.submit(double, 1)
            site = pathlib.Path(__file__).parent
            while not (site / "loading").exists():
                gevent.sleep(0.01)
            first.cancel()
            gevent.sleep(0.2)  # a cancel that interrupts anything does so now
            (site / "go").touch()
            first.wait(40)
            for number in range(3):
                assert manager.submit(double, number).get(40)[0] == 2 * number
        print("as it should be")


    if __name__ == "__main__":
        main()
"""


def test_a_cancel_while_a_worker_sets_django_up_breaks_no_later_task(tmp_path):
    write_site(tmp_path, "gtaskman", "", "nobody", first=True)
    (tmp_path / "shop" / "apps.py").write_text(textwrap.dedent(SLOW))
    (tmp_path / "script.py").write_text(textwrap.dedent(CANCELLING))
    env = environment(tmp_path)
    done = run_python("-m", "script", directory=tmp_path, env=env, timeout=ENDING)
    assert done.code == 0, done.output
    assert "as it should be" in done.output


LOGGING = """LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"short": {"format": "%(process)d %(levelname)s %(message)s"}},
    "handlers": {
        "file": {"class": "logging.FileHandler", "filename": "tasks.log", "formatter": "short"}
    },
    "loggers": {"django.tasks": {"handlers": ["file"], "level": "DEBUG"}},
}"""


@pytest.mark.skipif("django" not in KINDS, reason="django.tasks came with Django 6.0")
def test_the_records_of_a_task_are_written_as_the_site_wants_them(tmp_path):
    where = str(tmp_path / "tasks.log")
    write_site(tmp_path, "django", "", "nobody", first=True)
    with open(tmp_path / "settings.py", "a") as file:
        file.write(LOGGING.replace("tasks.log", where))
    env = environment(tmp_path)
    done = run_python("-m", "script", directory=tmp_path, env=env, timeout=ENDING)
    assert done.code == 0, done.output
    told = [line.split(maxsplit=2) for line in (tmp_path / "tasks.log").read_text().splitlines()]
    (enqueued,) = (pid for pid, _, text in told if "enqueued" in text)
    (started,) = (pid for pid, _, text in told if "state=RUNNING" in text)
    (finished,) = (pid for pid, _, text in told if "state=SUCCESSFUL" in text)
    assert started == finished != enqueued
