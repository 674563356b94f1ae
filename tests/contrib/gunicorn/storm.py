"""Reloads, ends and kills without end: does anything stay behind, does a wrong process answer?

::

    python -m tests.contrib.gunicorn.storm --seconds 60 --seed 7 --signals 1000 --mode host

A gunicorn serves visitors who run tasks, while at random moments HUPs, TERMs and kill -9s hit its
master, its workers, the workers of tasks, their templates and managers. A master that was ended
is followed by another one, once nothing of it is left: what is, is an *orphan*. Each answer says
who gave it: one that gunicorn has not made a worker is a *stranger*. There may be neither, and when
all is calm again, the server must answer as before.
"""

from __future__ import annotations

import collections
import contextlib
import http.client
import itertools
import os
import random
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1]), str(HERE.parents[2])]

import click  # noqa: E402 - the path comes first
import gevent  # noqa: E402 - likewise
from gunicorn_server import Gunicorn  # noqa: E402 - likewise
from worlds import wait_until  # noqa: E402 - likewise

VISITORS = 4
PAUSE = 0.02  # seconds that a visitor waits between two requests
LONGER = 2  # times as long as it was to last, it may last
FEWEST = 21  # signals that it sends however long that takes
CALM = 40  # answers after the storm
PATHS = ("/", "/run?task=where", "/submit?task=compute&name=done&seconds=0")
PATIENCE = 15.0  # seconds after which what is left of a server is an orphan
SETTINGS = {"workers": 2, "graceful_timeout": 2, "loglevel": "critical", "timeout": 10}
INSTALL = {"max_processes": 2, "kill_grace": 0.5}
# Whom a signal hits, which one, and how often among a hundred.
BLOWS = (
    ("master", signal.SIGHUP, 30),
    ("worker", signal.SIGTERM, 25),
    ("worker", signal.SIGKILL, 22),
    ("other", signal.SIGKILL, 20),
    ("master", signal.SIGTERM, 1.5),
    ("master", signal.SIGKILL, 1.5),
)


class Visitor(threading.Thread):
    """Asks for tasks, and notes who answers."""

    def __init__(self, storm: Storm) -> None:
        super().__init__(daemon=True)
        self._storm = storm
        self._known: set[int] = set()

    def run(self) -> None:
        for number in itertools.count():
            gunicorn = self._storm.gunicorn
            if self._storm.over:
                return
            try:
                lineage = gunicorn.ask(PATHS[number % len(PATHS)], 10)["lineage"]
            except (OSError, http.client.HTTPException, ValueError):
                self._storm.count["unanswered"] += 1
            else:
                self._storm.count["answered"] += 1
                self._check(gunicorn, lineage)
            time.sleep(PAUSE)  # gunicorn is to have the processors, not its visitors

    def _check(self, gunicorn: Gunicorn, lineage: list[int]) -> None:
        if lineage[0] not in self._known:
            self._known.update(gunicorn.told("post_worker_init"))
            if lineage[0] not in self._known:
                self._storm.strangers.append(lineage)


class Storm:
    """One storm over servers that follow each other."""

    def __init__(self, mode: str, seed: int, directory: Path) -> None:
        self.count: collections.Counter[str] = collections.Counter()
        self.orphans: list[Any] = []
        self.strangers: list[list[int]] = []
        self.over = False
        self.serves = False  # after the storm
        self._install = {"mode": mode, **INSTALL}
        if mode == "host":
            self._install["directory"] = str(directory)
        self._random = random.Random(seed)
        self._directory = directory
        self._servers = itertools.count()
        self.gunicorn = self._begin()

    def _begin(self) -> Gunicorn:
        self._reloads = 0
        directory = self._directory / str(next(self._servers))
        directory.mkdir()
        return Gunicorn(directory, self._install, SETTINGS).start()

    def rage(self, seconds: float, signals: int) -> None:
        """Send so many signals, spread over the time; each new master adds to that."""
        begun = time.monotonic()
        visitors = [Visitor(self) for _ in range(VISITORS)]
        for each in visitors:
            each.start()
        for number in range(signals):
            gevent.sleep(max(0.0, begun + seconds * number / signals - time.monotonic()))
            if number >= FEWEST and time.monotonic() - begun > LONGER * seconds:
                break
            self._strike()
        self._await_calm()
        self.over = True
        for each in visitors:
            each.join(30)
        self._end(signal.SIGTERM)

    def _await_calm(self) -> None:
        """What is left must serve again: visitors are answered as if nothing had been."""
        wanted = self.count["answered"] + CALM
        with contextlib.suppress(AssertionError):
            wait_until(lambda: self.count["answered"] >= wanted, 2 * PATIENCE)
        self.serves = self.count["answered"] >= wanted

    def _strike(self) -> None:
        whom, number = self._choose()
        self.count[f"{signal.Signals(number).name} {whom}"] += 1
        if whom == "master":
            if number == signal.SIGHUP:
                self.gunicorn.signal(number)
            else:
                self._end(number)
                self.gunicorn = self._begin()
            return
        own = self.gunicorn.workers()
        others = {each.pid for each in self.gunicorn.others()}
        pids = sorted(own if whom == "worker" else others)
        if pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._random.choice(pids), number)

    def _choose(self) -> tuple[str, int]:
        """Whom to hit, and how; no reload while gunicorn has not begun with the last one."""
        while True:
            whom, number, _ = self._random.choices(BLOWS, [weight for *_, weight in BLOWS])[0]
            if number != signal.SIGHUP:
                return whom, number
            if len(self.gunicorn.told("on_reload")) == self._reloads:
                self._reloads += 1
                return whom, number

    def _end(self, number: int) -> None:
        """End the server; what is left of it after a while is an orphan."""
        gunicorn = self.gunicorn
        gunicorn.signal(number)
        with contextlib.suppress(AssertionError):
            gunicorn.wait(2 * PATIENCE)  # it may be at a reload
        with contextlib.suppress(AssertionError):
            gunicorn.assert_nothing_left(PATIENCE)
        self.orphans += gunicorn.processes()
        gunicorn.kill()


@click.command(help=__doc__)
@click.option("--seconds", default=60.0, help="How long it rages, new masters apart.")
@click.option("--seed", default=1, help="From which all that is random follows.")
@click.option("--signals", default=1000, help="How many are sent in that time.")
@click.option("--mode", type=click.Choice(["embedded", "host"]), default="embedded")
def main(seconds: float, seed: int, signals: int, mode: str) -> None:
    with tempfile.TemporaryDirectory(prefix="g", dir="/tmp") as directory:
        storm = Storm(mode, seed, Path(directory))
        try:
            storm.rage(seconds, signals)
        finally:
            storm.gunicorn.kill()
    for what, count in sorted(storm.count.items()):
        click.echo(f"{count:6} {what}")
    click.echo(f"{len(storm.orphans):6} orphans {storm.orphans or ''}")
    click.echo(f"{len(storm.strangers):6} strangers {storm.strangers or ''}")
    click.echo(f"{'serves' if storm.serves else 'does not serve'} afterwards")
    sys.exit(bool(storm.orphans or storm.strangers or not storm.serves))


if __name__ == "__main__":
    main()
