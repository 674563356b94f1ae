"""Tasks of ``django.tasks``; only where Django has that."""

import asyncio
import os
import signal
import time

from django.db import connections
from django.tasks import TaskContext, task
from django.tasks.signals import task_enqueued, task_finished, task_started

from django_site.library.models import Book


@task
def nothing(*args, **kwargs):
    return None


@task
def meaning_of_life():
    return 42


@task
def echo(*args, **kwargs):
    return {"args": args, "kwargs": kwargs}


@task
def titles():
    return [book.title for book in Book.objects.all()]


@task
async def coroutine(number):
    await asyncio.sleep(0.01)
    return number * 2


@task
async def titles_of_coroutine():
    return [book.title async for book in Book.objects.all()]


@task(takes_context=True)
def context(context, attempt):
    assert isinstance(context, TaskContext)
    assert context.attempt == attempt
    result = context.task_result
    return [result.id, str(result.status), result.args, result.worker_ids, os.getpid()]


@task
def fail():
    raise ValueError("This task failed due to ValueError")


@task
def leave():
    raise SystemExit("This task failed due to SystemExit")


@task
def complex_exception():
    raise ValueError(ValueError("This task failed"))


@task
def complex_return_value():
    return lambda: True


@task
def die():
    os.kill(os.getpid(), signal.SIGKILL)


@task
def hang():
    while True:
        time.sleep(0.01)


@task
def held():
    return [each.alias for each in connections.all(initialized_only=True)]


@task
def flaky(marker):
    """Fail once, then not."""
    if not os.path.exists(marker):
        open(marker, "w").close()
        raise OSError("not yet")
    return "in the end"


def hidden():
    return None


visible = task(hidden)


def _impostor():
    return None


impostor = task(_impostor)
_impostor = None


def note(signal, sender, task_result, **_more):
    """Whoever hears a signal writes it down."""
    path = os.path.join(os.environ["DJANGO_SITE_DIRECTORY"], "signals")
    words = [task_result.id, signal.name, str(task_result.status), sender.__name__, os.getpid()]
    with open(path, "a") as file:
        print(*words, file=file)


for name, each in (
    ("enqueued", task_enqueued),
    ("started", task_started),
    ("finished", task_finished),
):
    each.name = name
    each.connect(note)
