"""Imported by the template before it forks a worker; in the application it does nothing."""

from __future__ import annotations

import sys

from tests.faults import faults

if "gtaskman.child.zygote" in sys.modules:
    faults.install_in_template()
