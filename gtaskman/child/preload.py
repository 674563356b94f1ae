"""Importing the application into a template, and whether the template can still be forked.

A fork copies one thread and no hub. A module that starts a thread or a hub while it is imported
makes the template useless; the parent then leaves that module to the workers.
"""

from __future__ import annotations

import importlib
import os
import traceback

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
    if get_hub_if_exists() is not None:
        return "it makes a gevent hub (it spawns a greenlet or opens a gevent socket)"
    if len(os.listdir("/proc/self/task")) > 1:
        return "it starts a native thread"
    return None
