"""What this process is to gtaskman: the application, a template, or a worker.

A template and a worker import the application's modules to find its tasks. While they do, code at
the top of a module must not start work, or each of them would start more of the same.
"""

from __future__ import annotations

import _thread
import contextlib
import contextvars
import os
import re
import sys
from collections.abc import Iterator

from gtaskman.errors import MainGuardError, StartMethodError

# The environment variable that marks a child until it runs our program: an executable that is no
# interpreter runs the application instead.
CHILD_OF = "GTASKMAN_CHILD_OF"

# What is being imported here. A greenlet that the module spawns inherits it; greenlets of tasks
# that run beside the import, because it waits, do not.
_here: contextvars.ContextVar[str | None] = contextvars.ContextVar("gtaskman.import", default=None)
_importing: str | None = None  # the same for native threads, which a module may start as well


def in_main_thread() -> bool:
    """Whether this is the main native thread, whichever greenlet of it."""
    return _thread.get_native_id() == os.getpid()


def is_patched() -> bool:
    """Whether the waits of this process's standard library let other greenlets run."""
    from gevent import monkey  # a module that only defines tasks need not have it imported

    return bool(monkey.is_module_patched("threading"))


@contextlib.contextmanager
def importing(module: str) -> Iterator[None]:
    """While this lasts, :func:`refuse_at_import` refuses."""
    global _importing
    before, _importing = _importing, module
    token = _here.set(module)
    try:
        yield
    finally:
        _importing = before
        _here.reset(token)


def refuse_at_import() -> None:
    """Raise :class:`MainGuardError` if a worker or its template is importing a module.

    :class:`StartMethodError` if this process was to be a worker or a template, and is the
    application once more.
    """
    if CHILD_OF in os.environ:
        raise StartMethodError(
            f"process {os.environ[CHILD_OF]} started {sys.executable!r} as a Python interpreter for"
            " its workers, and it is an application: set the environment variable GTASKMAN_PYTHON"
            " to the path of an interpreter, or use start_method='fork'"
        )
    module = _here.get() if in_main_thread() else _importing
    if module is None:
        return
    raise MainGuardError(
        f"{module} starts a gtaskman manager or submits a task while it is imported, and every"
        " worker imports it to find its tasks. Put that code into a function, and in a script"
        " under:\n\n    if __name__ == '__main__':\n        main()\n"
    )


def failed_preload(module: str, trace: str) -> str:
    """A log line: the ``module`` to preload was not imported; ``trace`` says why."""
    error = trace.strip().rpartition("\n")[2]
    missing = re.search(r"No module named '([^']+)'", error)
    misspelled = missing is not None and f"{module}.".startswith(f"{missing[1]}.")
    return f"the module {module!r} in Configuration(preload=...) cannot be imported: {error}" + (
        "; its name is probably misspelled" if misspelled else ""
    )
