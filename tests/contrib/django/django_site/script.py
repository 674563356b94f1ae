"""A script that uses workers, patched by gevent or not."""

import json
import sys

from gevent import monkey

if sys.argv[1] == "patched":
    monkey.patch_all()

import django


def main():
    django.setup()
    import gevent

    from django_site.library import tasks, work
    from django_site.library.models import Book
    from gtaskman.contrib.django import offload

    titles = [gevent.spawn(lambda: [book.title for book in offload(Book)]) for _ in range(5)]
    together = [tasks.look_together.submit() for _ in range(5)]
    holding = tasks.hold.submit(0.2)
    going = [tasks.come_and_go.submit().get(30) for _ in range(3)]
    told = {
        "titles": [each.get() for each in titles],
        "together": [handle.get(30) for handle in together],
        "hold": holding.get(30),
        "going": going,
        "look": [tasks.look.submit().get(30) for _ in range(2)],
        "held here": tasks.held(),
        "written": offload(work.add, "by a script").title,
        "jobs": jobs() if django.VERSION >= (6,) else None,
    }
    print(json.dumps(told))


def jobs():
    from django_site.library import jobs
    from gtaskman import default

    results = [job.enqueue(*args) for job, *args in ((jobs.titles,), (jobs.coroutine, 21))]
    for result in results:
        handle = default.manager().handle(result.id)
        if handle is not None:  # else it has ended already
            handle.wait(30)
        result.refresh()
    return [result.return_value for result in results]


if __name__ == "__main__":
    main()
