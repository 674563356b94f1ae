"""The application of the shared manager: `gtaskman run` serves modules that have tasks."""

import gtaskman
from benchmarks import tasks

noop = gtaskman.task(name="noop")(tasks.noop)
