"""Logging of ``gtaskman run``. Importing this sets it up, in the manager and in its workers.

The workers' template imports it before the application: what tasks log is seen like all the rest.
The level is that of the environment variable ``GTASKMAN_LOG_LEVEL``.
"""

from __future__ import annotations

import logging
import os

LEVEL = "GTASKMAN_LOG_LEVEL"

logging.basicConfig(
    level=os.environ.get(LEVEL, "info").upper(),
    format="%(asctime)s %(levelname)s %(process)d %(name)s: %(message)s",
)
