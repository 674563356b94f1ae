"""What an executor raises beside the errors of its tasks.

What is broken is caught by whoever catches ``BrokenProcessPool``, and all of it is a
:class:`gtaskman.GTaskmanError`.
"""

from __future__ import annotations

import pickle
from concurrent.futures.process import BrokenProcessPool

from gtaskman.errors import GTaskmanError, ManagerStopped, PayloadError


class Unpicklable(PayloadError, pickle.PicklingError):
    """Raised by ``Future.result`` when the call's arguments, or its result, cannot travel."""


class WorkerLost(BrokenProcessPool, GTaskmanError):
    """Raised by ``Future.result`` when the worker died under this call; no other is affected.

    The cause, a :class:`gtaskman.WorkerCrashed`, has the exit code or the signal.
    """


class InitializerFailed(BrokenProcessPool, GTaskmanError):
    """Raised when the initializer failed in a worker: by all open futures, and by ``submit``.

    The cause prints the traceback that it had there.
    """


class ExecutorShutDown(ManagerStopped, RuntimeError):
    """Raised by ``submit`` and ``map`` after a shutdown, and at the end of the interpreter."""
