"""Two processes that burn their cores with no library at all: the ideal of the "cpu" scenario.

The child side is `python -m benchmarks.bare`: for each line `SECONDS LOOPS` on stdin it runs
`burn(LOOPS)` again and again for that long, and answers with `UNITS ELAPSED`.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import IO, Self

from benchmarks.check import same
from benchmarks.tasks import burn


class BareProcesses:
    """Two of them, waiting on their stdin: idle until told, so both may stay up all the time."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __enter__(self) -> Self:
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-m", "benchmarks.bare"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(self.count)
        ]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for process in self._processes:
            process.communicate()

    def start(self, seconds: float, loops: int) -> None:
        """Let all of them burn, at the same time, from now."""
        for process in self._processes:
            _pipe(process.stdin).write(f"{seconds} {loops}\n")
            _pipe(process.stdin).flush()

    def rate(self) -> float:
        """Units of work per second, all processes together; waits until they are done."""
        answers = [_pipe(process.stdout).readline().split() for process in self._processes]
        return sum(int(units) / float(elapsed) for units, elapsed in answers)

    def run(self, seconds: float, loops: int, pause: Callable[[float], None] = time.sleep) -> float:
        """Start, let `pause` spend the time, and give back the rate."""
        self.start(seconds, loops)
        pause(seconds)
        return self.rate()


def _pipe(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream


def serve(commands: IO[str], answers: IO[str]) -> None:
    """The child: burn as told until the parent closes the pipe."""
    for command in commands:
        seconds, loops = command.split()
        units, elapsed = _burn_for(float(seconds), int(loops))
        print(units, elapsed, file=answers, flush=True)


def _burn_for(seconds: float, loops: int) -> tuple[int, float]:
    numbers = []
    start = time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        numbers.append(burn(loops))
    same("bare process", numbers, [burn(loops)] * len(numbers))
    return len(numbers), elapsed


if __name__ == "__main__":
    serve(sys.stdin, sys.stdout)
