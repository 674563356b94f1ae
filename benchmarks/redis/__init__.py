"""gtaskman over Redis beside Celery, RQ, Dramatiq, Huey, arq and taskiq, in one run.

    python -m benchmarks redis                  # everything, about a quarter of an hour
    python -m benchmarks redis --quick          # smaller sizes, one round
    python -m benchmarks redis --only noop,round_trip --peers gtaskman,huey --plot out.png

The way of one number is that of `benchmarks`, with three things more:

    environments   each peer is installed into a virtual environment of its own, once
    server         each measurement has a private server: empty, in memory only, on loopback
    team           the peer's own worker processes, started by its own command

The peers are given every advantage that their documentation offers. Each has hiredis, two worker
processes, and for each scenario the configuration that was the fastest when it was tried; what
that is, and why, stands in its module in `benchmarks.redis.peers`. All carry the same tasks, and
all keep their results on the server, which are compared one by one.

`bare scripts` is no contestant but a measure: what the server allows a client that settles and
claims by the batch and does nothing else.
"""
