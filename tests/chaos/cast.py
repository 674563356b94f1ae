"""The processes of a run: starts them, ends them in every bad way, and lets none survive."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
from worlds import TESTS, alive, descendants_of, wait_until

from chaos import journal
from chaos.settings import Settings

_PATIENCE = 30.0


class Player:
    """One process, a sender or a runner (a manager with workers)."""

    def __init__(self, role: str, settings: Settings, output: Path) -> None:
        self.role = role
        self.settings = settings
        path = os.pathsep.join(str(each) for each in (TESTS, TESTS.parent))
        with open(output, "ab") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", f"chaos.{role}"],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": path, **settings.environment()},
            )
        self.wakes_at = 0.0  # when it is continued; 0: it is not stopped

    @property
    def pid(self) -> int:
        """Of the process itself."""
        return self.process.pid

    @property
    def alive(self) -> bool:
        """Whether it lives, stopped or not."""
        return self.process.poll() is None

    def offspring(self) -> list[int]:
        """Its template and workers."""
        return [each.pid for each in descendants_of(self.pid) if each.state not in "ZX"]

    def kill(self) -> None:
        """SIGKILL; returns when it is gone, and with it all that it had started."""
        offspring = self.offspring()
        self.process.kill()
        self.process.wait()
        wait_until(lambda: not any(map(alive, offspring)), _PATIENCE, "its workers end with it")

    def stop(self, seconds: float) -> None:
        """SIGSTOP, for so long at least."""
        self.process.send_signal(signal.SIGSTOP)
        self.wakes_at = time.monotonic() + seconds

    def go_on(self) -> None:
        """SIGCONT."""
        self.process.send_signal(signal.SIGCONT)
        self.wakes_at = 0.0

    def end(self) -> str:
        """SIGTERM; gives what was wrong with its end, "" if it was a good one."""
        self.go_on()
        self.process.terminate()
        try:
            wait_until(lambda: not self.alive, 2 * _PATIENCE, "ends")
        except AssertionError:
            self.kill()
            return f"a {self.role} did not end"
        code = self.process.returncode
        return f"a {self.role} ended with status {code}" if code else ""


class Cast:
    """All processes of a run but the server; a context manager that leaves none behind."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.players: list[Player] = []
        self._output = folder / "output"
        self._dice = random.Random(settings.seed)

    def start(self, *roles: str, **own: Any) -> list[Player]:
        """Start some, under ``own`` settings, and wait until the managers among them are up."""
        started = []
        for role in roles:
            chosen = {"seed": self._dice.getrandbits(32), **own}
            settings = msgspec.structs.replace(self.settings, **chosen)
            started.append(Player(role, settings, self._output))
        self.players += started
        runners = [each for each in started if each.role == "runner"]
        wait_until(lambda: self._are_up(runners), _PATIENCE, "managers start", every=0.02)
        return started

    def _are_up(self, runners: list[Player]) -> bool:
        for each in runners:
            assert each.alive, f"a manager did not start:\n{self.output}"
        events = journal.read(Path(self.settings.journal)) if runners else []
        return {each.pid for each in runners} <= {each.pid for each in events if each.what == "up"}

    def all(self, role: str, awake: bool = True) -> list[Player]:
        """Those of one role that live, and are not stopped."""
        found = [each for each in self.players if each.role == role and each.alive]
        return [each for each in found if not (awake and each.wakes_at)]

    def continue_those_due(self, whatever: bool = False) -> None:
        """SIGCONT for those whose time has come, or for all that are stopped."""
        for each in self.players:
            if each.wakes_at and (whatever or each.wakes_at <= time.monotonic()):
                each.go_on()

    @property
    def output(self) -> str:
        """What they have printed."""
        return self._output.read_text(errors="replace") if self._output.exists() else ""

    def __enter__(self) -> Cast:
        return self

    def __exit__(self, *_: object) -> None:
        for each in self.players:
            if each.alive:
                with contextlib.suppress(AssertionError):
                    each.kill()
