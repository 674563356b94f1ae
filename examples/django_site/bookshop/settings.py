"""Django's settings; where there is a choice, the environment has it."""

import os
from pathlib import Path

SECRET_KEY = os.environ.get("BOOKSHOP_SECRET_KEY", "an example has no secrets")
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
ROOT_URLCONF = "bookshop.urls"
USE_TZ = True
INSTALLED_APPS = ["gtaskman.contrib.django", "books"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("BOOKSHOP_DATABASE", Path(__file__).parent.parent / "books.sqlite"),
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

GTASKMAN = {
    "url": os.environ.get("BOOKSHOP_GTASKMAN_URL", "memory://"),
    "max_processes": 2,
    "nice": 5,
}
TASKS = {  # since Django 6.0
    "default": {
        "BACKEND": "gtaskman.contrib.django.TaskBackend",
        "OPTIONS": {"enqueue_on_commit": True, "timeout": 60},
    }
}
