"""What gunicorn reads. The last line is all that gtaskman needs."""

from gtaskman.contrib.gunicorn import install

bind = "127.0.0.1:0"  # any free port: run.py asks for it
worker_class = "gevent"
workers = 3
graceful_timeout = 10
wsgi_app = "pages:app"


install(globals(), mode="host", max_processes=2)
