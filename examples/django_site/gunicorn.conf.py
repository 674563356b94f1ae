"""gunicorn's settings: greenlets that answer, beside processes that query and compute."""

import gtaskman

bind = "127.0.0.1:8000"
worker_class = "gevent"
workers = 2


def post_worker_init(_worker):
    """The workers of the tasks are there before the first request needs them."""
    gtaskman.start()
