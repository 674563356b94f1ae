"""Its settings; a test says in the environment what is to be different."""

import json
import os

DIRECTORY = os.environ["DJANGO_SITE_DIRECTORY"]

SECRET_KEY = "for tests only"
USE_TZ = True
INSTALLED_APPS = ["gtaskman.contrib.django", "django_site.library"]
DATABASES = {
    alias: {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.path.join(DIRECTORY, f"{alias}.sqlite3"),
        "CONN_MAX_AGE": int(os.environ.get("DJANGO_SITE_MAX_AGE", "0")),
    }
    for alias in ("default", "other")
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
GTASKMAN = {"max_processes": 2, **json.loads(os.environ.get("DJANGO_SITE_GTASKMAN", "{}"))}
BACKEND = "gtaskman.contrib.django.TaskBackend"
TASKS = {
    "default": {"BACKEND": BACKEND, "QUEUES": ["default", "slow"]},
    "any": {"BACKEND": BACKEND, "QUEUES": []},
    "upon_commit": {"BACKEND": BACKEND, "OPTIONS": {"enqueue_on_commit": True}},
    "brief": {"BACKEND": BACKEND, "OPTIONS": {"timeout": 0.5}},
    "asynchronous": {"BACKEND": BACKEND, "OPTIONS": {"kind": "async"}},
    "apart": {"BACKEND": BACKEND, "OPTIONS": {"max_processes": 1, "keep_finished": 2}},
}
