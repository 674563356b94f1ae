"""A service of these tests, which gives what JSON has no form for."""

from __future__ import annotations

from datetime import date
from pathlib import PurePosixPath

import gevent
from gevent.event import Event

import gtaskman

# What Python makes of a file's name that is no UTF-8.
UNSAYABLE = "caf\udce9"


class Unsayable(gtaskman.ServiceTask):
    """Fails with what no encoding has."""

    def run(self, _progress):
        raise ValueError(UNSAYABLE)


class Leisurely(gtaskman.ServiceTask, notify=True):
    """Is not ready at once."""

    def run(self, _progress):
        gevent.sleep(0.2)
        self.ready()
        Event().wait()


class Asked(gtaskman.ServiceTask):
    """Is asked for values."""

    def run(self, _progress):
        Event().wait()

    @gtaskman.remote
    def unsayable(self, fail):
        if fail:
            raise ValueError(UNSAYABLE)
        return {UNSAYABLE: [UNSAYABLE, 1]}

    @gtaskman.remote
    def objects(self):
        return {"at": PurePosixPath("/srv"), "on": date(2026, 1, 2), "of": {3}, "raw": b"\0\1"}
