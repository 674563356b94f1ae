"""The command line of the site: ``python manage.py migrate``, ``load_books``, ``gtaskman`` ..."""

# ruff: noqa: E402 - patching comes first, as gunicorn does it
from gevent import monkey

monkey.patch_all()

import os
import sys

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "bookshop.settings")
    execute_from_command_line(sys.argv)
