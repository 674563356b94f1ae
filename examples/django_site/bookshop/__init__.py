"""A legacy site on gevent: its database's driver blocks, and nobody notices.

Serve it, in this directory, then ask it::

    python manage.py migrate
    python manage.py load_books                # the standard library's sources are the books
    gunicorn bookshop.wsgi                     # reads gunicorn.conf.py
    curl 'localhost:8000/search?pattern=(\\w%2b)+\\1+\\1'
    curl -X POST localhost:8000/books/1/count; curl localhost:8000/books/1

``/search`` has a worker run a query that takes its time, ``/search-inline`` does it the old way,
in the hub, and ``/`` says how that is for everybody else. Counting the words of a book is a task,
which writes them into the database: one of ``django.tasks`` where Django has that (6.0), else one
of gtaskman. With ``BOOKSHOP_GTASKMAN_URL=redis://...`` tasks go to a server, and
``python manage.py gtaskman run``, here or on other hosts, works them off.
"""
