"""`gtaskman run --bind`, as a host would have it, for as long as a measurement lasts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

WORKERS = 2
STARTING = 20.0  # seconds


class Shared:
    """A manager in a process of its own, which serves `benchmarks.host.served`."""

    def __enter__(self) -> Self:
        self._directory = TemporaryDirectory(prefix="gtm")
        socket = Path(self._directory.name) / "bench" / "manager.sock"
        self.url = f"unix://{socket}"
        workers = ["--min", str(WORKERS), "--max", str(WORKERS)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "gtaskman", "run", "--bind", self.url, *workers,
             "--log-level", "warning", "benchmarks.host.served"],
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.terminate()
        self._process.wait(STARTING)
        self._directory.cleanup()
