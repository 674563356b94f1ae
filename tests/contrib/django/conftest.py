"""Django set up once, for the site of these tests; and the default manager as each test has it."""

from __future__ import annotations

import atexit
import shutil
import sys
import tempfile
from pathlib import Path

import django
import pytest

import gtaskman
from gtaskman import default

HERE = str(Path(__file__).resolve().parent)
if HERE not in sys.path:
    sys.path.insert(0, HERE)
SITE = {
    "DJANGO_SETTINGS_MODULE": "django_site.settings",
    "DJANGO_SITE_DIRECTORY": tempfile.mkdtemp(prefix="gtaskman-django-"),
}
atexit.register(shutil.rmtree, SITE["DJANGO_SITE_DIRECTORY"], ignore_errors=True)

with pytest.MonkeyPatch.context() as patch:
    for key, value in SITE.items():
        patch.setenv(key, value)
    django.setup()
default.configure()  # other tests know nothing of Django
default._may_block = False

from django.core.management import call_command  # noqa: E402 - only now
from django.db import connections  # noqa: E402

from gtaskman.contrib.django import managers, settings  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def site():
    """The site in the environment, and its managers, which last for the tests of a module."""
    with pytest.MonkeyPatch.context() as patch:
        for key, value in SITE.items():
            patch.setenv(key, value)
        patch.delenv("GTASKMAN_URL", raising=False)
        renew()
        yield SITE
        forget()
        default.configure()
        default._may_block = False


@pytest.fixture
def fresh(site, monkeypatch):
    """Gives what changes the environment of the site; no manager is there before and after."""
    forget()

    def change(**env: str) -> None:
        for key, value in env.items():
            monkeypatch.setenv(key, value)
        renew()

    change()
    yield change
    monkeypatch.undo()
    forget()
    renew()


def renew() -> None:
    """Have the default manager made as the settings say."""
    settings.default_place.cache_clear()
    managers.configure()


def forget() -> None:
    """Stop all managers."""
    managers._stop_all()
    gtaskman.shutdown(0)


@pytest.fixture(autouse=True)
def closed():
    """No connection is left open."""
    yield
    connections.close_all()


@pytest.fixture(scope="session")
def tables():
    """Both databases have their tables."""
    for alias in connections:
        call_command("migrate", database=alias, run_syncdb=True, verbosity=0)


@pytest.fixture
def books(tables):
    """Some books in the default database, nothing in the other one; gives the model."""
    from django_site.library.models import Author, Book

    for alias in connections:
        Book.objects.using(alias).delete()
        Author.objects.using(alias).delete()
    ada = Author.objects.create(name="ada")
    Book.objects.create(title="abacus", lines=1200, author=ada)
    Book.objects.create(title="basics", lines=300, author=ada)
    Book.objects.create(title="codes", lines=5000)
    return Book
