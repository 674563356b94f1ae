"""A manager that a host shares, by its Unix socket, beside the same manager embedded.

    python -m benchmarks host

Each contestant is a process of its own. That of the socket has started `gtaskman run --bind`,
whose workers are as many as those that the embedded manager has.
"""
