"""Tasks that need Django, as `gtaskman.contrib.django` makes them, and a plain one."""

import os

import gevent
from django.db import connection, connections, transaction

import gtaskman
from django_site.library.models import Author, Book
from gtaskman.contrib.django import connections as care
from gtaskman.contrib.django import offload, task


def held():
    """The open connections of this thread or greenlet, by alias."""
    return sorted(
        each.alias for each in connections.all(initialized_only=True) if each.connection is not None
    )


@task
def titles(most: int = 10) -> list:
    return list(Book.objects.values_list("title", flat=True)[:most])


@task
def add(title: str, lines: int = 0) -> int:
    return Book.objects.create(title=title, lines=lines).pk


@task
def look() -> dict:
    """What it finds, and which connection it then uses."""
    before = held()
    Book.objects.count()
    return {"before": before, "after": held(), "pid": os.getpid(), "is": id(connection.connection)}


@task(kind="async")
def look_together() -> dict:
    before = held()
    Book.objects.count()
    mine = id(connection.connection)
    gevent.sleep(0.05)
    Book.objects.count()
    return {"before": before, "same": mine == id(connection.connection), "is": mine}


@task
def nested() -> list:
    """Call a task as a function in a transaction: the connection stays."""
    with transaction.atomic():
        Author.objects.create(name="nested")
        look()
        inside = connection.in_atomic_block, connection.connection is not None
        transaction.set_rollback(True)
    return list(inside)


@task
def leave_open() -> None:
    transaction.atomic().__enter__()
    Book.objects.count()


@task
def is_atomic() -> bool:
    return connection.in_atomic_block


@task
def fail() -> None:
    Book.objects.count()
    raise ValueError(13)


@task
class Count(gtaskman.Task, timeout=20):
    title: str

    def run(self, progress):
        progress.update(50, message="counting")
        return Book.objects.filter(title__contains=self.title).count(), held()


@gtaskman.task
def plain(title: str) -> int:
    """It knows nothing of Django but its models."""
    return Book.objects.get(title=title).lines


@task
def offloading() -> list:
    """What is offloaded in a worker, in a transaction of its own as well."""
    with transaction.atomic():
        return [offload(Book).count(), offload(os.getpid) == os.getpid()]


@task(kind="async")
def hold(seconds: float) -> list:
    """Stay in a transaction while others come and go."""
    with transaction.atomic():
        author = Author.objects.create(name="held")
        gevent.sleep(seconds)
        found = Author.objects.filter(pk=author.pk).exists(), connection.in_atomic_block
        transaction.set_rollback(True)
    return list(found)


@task(kind="async")
def come_and_go() -> int:
    return Book.objects.count()


@task
def inherited() -> tuple:
    """Connections that were found here and belong to another process; what is open."""
    return [each.alias for each in care._inherited], held(), Book.objects.count()
