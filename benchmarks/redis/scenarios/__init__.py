"""One module per scenario, each with `run(contestant, **size) -> Measurement`.

They run in the peers' environments: only what is for gtaskman alone may import gtaskman or gevent.
"""
