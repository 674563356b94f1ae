"""A service of these tests, which gives what JSON has no form for."""

from __future__ import annotations

from datetime import date
from pathlib import PurePosixPath

from gevent.event import Event

import gtaskman


class Asked(gtaskman.ServiceTask):
    """Is asked for values."""

    def run(self, _progress):
        Event().wait()

    @gtaskman.remote
    def objects(self):
        return {"at": PurePosixPath("/srv"), "on": date(2026, 1, 2), "of": {3}, "raw": b"\0\1"}
