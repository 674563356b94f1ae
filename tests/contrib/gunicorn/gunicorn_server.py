"""``Gunicorn``: a real one that serves ``served``, and what one asks it and does to it."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from worlds import PATIENCE, Process, Program, alive, children_of, wait_until

HERE = Path(__file__).resolve().parent
CONFIGURATION = str(HERE / "served" / "gunicorn.conf.py")
# Not by ``python -m``: under USR2 that would find gunicorn's own ``http`` first.
GUNICORN = str(Path(sys.executable).with_name("gunicorn"))


class Gunicorn(Program):
    """``gunicorn -k gevent`` in a directory of its own."""

    def __init__(self, directory: Path, install: dict[str, Any], settings: dict[str, Any]) -> None:
        self.directory = directory
        self.write_version("1")
        super().__init__(
            [sys.executable, GUNICORN, "-c", CONFIGURATION, "served.app:app"],
            directory,
            {
                "SERVED_DIRECTORY": str(directory),
                "SERVED": json.dumps({"install": install, "settings": settings}),
                "PYTHONPATH": f"{HERE}:{HERE.parents[2]}",
                # Sockets have short names, and a test's directory has a long one.
                "XDG_RUNTIME_DIR": "",
            },
        )

    def write_version(self, version: str) -> None:
        """Change the code."""
        (self.directory / "version").write_text(version)

    def until(self, predicate: Callable[[], Any], what: str, timeout: float = PATIENCE) -> Any:
        """What ``predicate`` gives once that is true; else what gunicorn has said."""
        try:
            return wait_until(predicate, timeout, what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.story()}") from None

    # --- its processes

    def start(self) -> Gunicorn:
        """Wait until it serves."""
        self.wait_told("post_worker_init")
        return self

    @property
    def port(self) -> int:
        return int((self.directory / "port").read_text())

    def workers(self, master: int | None = None) -> set[int]:
        """Those of the master's children that gunicorn has forked and that are up."""
        children = {each.pid for each in children_of(master or self.leader) if each.state != "Z"}
        return children & set(self.told("post_worker_init"))

    def others(self) -> list[Process]:
        """All that is not gunicorn's own."""
        return [each for each in self.processes() if each.pid not in self.of_gunicorn()]

    def of_gunicorn(self) -> set[int]:
        return {self.leader, *self.told("pre_fork"), *self.told("post_worker_init")}

    # --- what its hooks say

    def told(self, hook: str) -> list[int]:
        """The pids of the processes in which this hook of the user's was called."""
        return [pid for name, pid in self.news() if name == hook]

    def news(self) -> list[tuple[str, int]]:
        path = self.directory / "news"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(name, int(pid)) for name, pid in (line.split() for line in lines)]

    def wait_told(self, hook: str, count: int = 1) -> list[int]:
        """Wait until this hook has been called so often."""

        def look() -> list[int]:
            code = self._popen.poll()
            assert code is None, f"gunicorn has ended ({code})\n{self.story()}"
            return self.told(hook) if len(self.told(hook)) >= count else []

        found: list[int] = self.until(look, f"{hook} called")
        return found

    # --- what one asks it

    def get(self, path: str = "/", timeout: float = PATIENCE) -> Any:
        """The value of an :meth:`answer`."""
        return self.answer(path, timeout)["value"]

    def answer(self, path: str = "/", timeout: float = PATIENCE) -> dict[str, Any]:
        """The answer, which must come from a process that gunicorn has forked."""
        answer = self.ask(path, timeout)
        assert answer["lineage"][0] in self.told("post_worker_init"), f"who is that? {answer}"
        return answer

    def ask(self, path: str, timeout: float) -> dict[str, Any]:
        """The answer, whoever gives it; waits without a hub."""
        url = f"http://127.0.0.1:{self.port}{path}"
        try:
            with urllib.request.urlopen(url, timeout=timeout) as got:
                answer: dict[str, Any] = json.load(got)
        except urllib.error.HTTPError as error:
            answer = json.load(error)
        return answer

    def wait_for(self, name: str, timeout: float = PATIENCE) -> int:
        """The pid that a task has left in a file of this name, once it is there."""
        path = self.directory / name
        return int(self.until(lambda: path.exists() and path.read_text(), name, timeout))

    def release(self, name: str) -> None:
        """Let a held task of this name end."""
        (self.directory / f"{name}.released").touch()

    def has(self, name: str) -> bool:
        return (self.directory / name).exists()

    def wait_served(self, master: int | None = None, version: str | None = None) -> int:
        """Wait until a worker of this master, or of this version, answers; its pid."""

        def look() -> int:
            with contextlib.suppress(OSError):
                answer = self.answer(timeout=2)
                pid, parent, *_ = answer["lineage"]
                if master in (None, parent) and version in (None, answer["version"]):
                    return pid
            return 0

        return int(self.until(look, "served"))

    def wait_gone(self, *pids: int, timeout: float = PATIENCE) -> None:
        self.until(lambda: not any(map(alive, pids)), f"{pids} gone", timeout)

    def stop(self, number: int = signal.SIGTERM, timeout: float = PATIENCE) -> None:
        """End it, and see that nothing is left."""
        self.signal(number)
        assert self.wait(timeout) == 0, self.story()
        self.assert_nothing_left()
