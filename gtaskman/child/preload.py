"""Importing the application into a template, and whether the template can still be forked.

A fork copies one thread, and a hub only if nothing goes on in it. A module that starts a thread or
a greenlet while it is imported makes the template useless; the parent then leaves that module to
the workers. Many modules make a hub that nothing uses yet (a lock of urllib3's does): workers have
that one too, renewed, and whatever refers to it works.
"""

from __future__ import annotations

import importlib
import os
import traceback
from typing import Any

import gevent
from gevent._hub_local import get_hub_if_exists

from gtaskman.process import importing
from gtaskman.reference import MAIN, Main, import_main


def warm() -> None:
    """Import what the first hub of each worker would import: READY comes in 4 ms, not in 19."""
    for lazily_imported in ("loop", "resolver", "threadpool"):
        getattr(gevent.config, lazily_imported)
    importlib.import_module("gevent.event")


def load(module: str, main: Main | None) -> str | None:
    """Import one module of the application; gives the traceback if that fails.

    A failure is no reason to stop: the worker that needs the module meets it again, and tells the
    task that needs it.
    """
    try:
        if module == MAIN:
            import_main(main)
        else:
            with importing(f"module {module!r}"):
                importlib.import_module(module)
    except BaseException:
        return traceback.format_exc()
    return None


def unfit() -> str | None:
    """Why this process cannot serve as a template, or None if it can."""
    if len(os.listdir("/proc/self/task")) > 1:
        return (
            "it starts a native thread, which each worker then has as well. If it is numpy's (of"
            " OpenBLAS or another library of its), set OPENBLAS_NUM_THREADS=1 (OMP_NUM_THREADS=1,"
            " MKL_NUM_THREADS=1) in the environment before the application starts"
        )
    if _is_used(get_hub_if_exists()):
        return (
            "it spawns a greenlet, or waits for a gevent socket or timer, which each worker then"
            " does as well. Put what it starts into a function"
        )
    return None


def _is_used(hub: Any) -> bool:
    """Whether anything has gone on in a hub, or is to."""
    if hub is None:
        return False
    if hub:
        return (
            True  # it has run: greenlets may wait for each other, of which the loop knows nothing
        )
    loop = hub.loop
    parts = (hub._threadpool, hub._resolver)
    return bool(loop.activecnt or loop.pendingcnt or loop._callbacks or any(parts))


def renew_hub() -> None:
    """In a fork: have the hub that was made at import, if any, wait for what is this process's."""
    hub = get_hub_if_exists()
    if hub is not None:
        hub.loop.reinit()
