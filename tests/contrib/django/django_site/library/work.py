"""Functions that are no tasks, to be offloaded."""

import os
import signal
import time

from django.db import transaction

from django_site.library.models import Book


def add(title, lines=0):
    return Book.objects.create(title=title, lines=lines)


def count():
    return Book.objects.count()


def longest(most):
    return Book.objects.order_by("-lines")[:most]


def add_two_and_fail():
    with transaction.atomic():
        add("first")
        add("second")
        raise RuntimeError("half way")


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def forever():
    while True:
        time.sleep(0.01)


def mark_after(seconds, path):
    time.sleep(seconds)
    open(path, "w").close()
