"""The work that every peer is given, one argument each; nothing here imports a peer or gevent."""

from __future__ import annotations

from benchmarks.tasks import echo, nap, where

__all__ = ["FUNCTIONS", "echo", "nap", "weigh", "where"]


def weigh(text: str) -> int:
    """Take a text; say how long it is."""
    return len(text)


FUNCTIONS = (echo, nap, where, weigh)
