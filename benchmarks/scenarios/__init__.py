"""One module per scenario, each with `run(contestant, **size) -> Measurement`.

A scenario times, checks and counts; what is compared with what, and which value is wanted,
stands in `benchmarks.catalog`. Modules that need gevent or gtaskman are for gtaskman alone.
"""
