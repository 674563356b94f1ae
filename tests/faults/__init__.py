"""System calls that fail: each call that a deployment makes fails once, and nothing is lost.

``python -m tests.faults --all`` goes through them all; see :mod:`tests.faults.__main__`.
"""
