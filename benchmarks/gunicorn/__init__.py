"""Flask under `gunicorn -k gevent`, with work that computes in it: through gtaskman and inline.

    python -m benchmarks gunicorn

The server is started for each contestant and round, the load comes from a process of its own, and
requests for the trivial route are due at a fixed rate: one client that waited for its answers
would ask less while the server is slow, and so hide how slow it is. A latency runs from when the
request was due.
"""
