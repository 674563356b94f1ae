"""A gunicorn for one measurement, on a free port of loopback."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import Self

START_TIMEOUT = 20.0
END_TIMEOUT = 20.0
ROOT = Path(__file__).resolve().parents[2]


class ServerFailed(Exception):
    """Raised when gunicorn does not start, or does not end well; the text is what it wrote."""


def environment(**more: str) -> dict[str, str]:
    """Ours, with the directory of this package on the path of whoever is started."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return os.environ | {"PYTHONPATH": path} | more


class Gunicorn:
    """Serves `benchmarks.gunicorn.site` at `url` inside the `with` block."""

    def __init__(self, peer: str, workers: int, pool: int) -> None:
        self._workers = workers
        self._site = {"BENCHMARK_PEER": peer, "BENCHMARK_POOL": str(pool)}

    def __enter__(self) -> Self:
        self._errors = TemporaryFile()
        self._process = subprocess.Popen(
            [
                sys.executable, "-m", "gunicorn", "-c", "python:benchmarks.gunicorn.conf",
                "-w", str(self._workers), "benchmarks.gunicorn.site:app",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment(**self._site),
            # So that whatever it leaves behind can be ended with it.
            start_new_session=True,
        )  # fmt: skip
        port = self._port()
        if not port:
            self._kill()
            raise ServerFailed(f"gunicorn does not start: {self.errors()}")
        self.url = f"http://127.0.0.1:{port}"
        return self

    def _port(self) -> str:
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(START_TIMEOUT):
                return ""
        return self._process.stdout.readline().decode().strip()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(END_TIMEOUT)
        status = self._process.poll()
        self._kill()
        if status != 0 and error is None:
            raise ServerFailed(f"gunicorn ended with {status}: {self.errors()}")

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def errors(self) -> str:
        """What it has complained about."""
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace").strip()
