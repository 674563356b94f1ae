"""``Room``: a directory and an environment, in which commands are run as a reader types them."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from servers import free_port
from worlds import Program, wait_until

from extras import documents
from extras.environment import ROOT, Environment

ENDING = 100.0  # seconds for whatever is run here, on a machine that others use as well


class Room:
    """``directory`` is empty at first, and nowhere in the checkout."""

    def __init__(self, directory: Path, environment: Environment) -> None:
        self.directory = directory
        self._environment = environment
        self._env = {
            "PATH": f"{environment.bin}:{os.environ['PATH']}",
            "VIRTUAL_ENV": str(environment.directory),
            "PYTHONPATH": "",
            "GTASKMAN_URL": "",
            "GTASKMAN_SERVICES": "",
            "XDG_RUNTIME_DIR": str(directory),
        }

    # --- what is there

    def write_page(self, page: str, changes: dict[str, str] | None = None) -> None:
        """Write the files of a page, with some texts changed in them."""
        for name, text in documents.files(page).items():
            for before, after in (changes or {}).items():
                text = text.replace(before, after)
            path = self.directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def copy(self, path: str) -> Path:
        """Copy something of the checkout, under its own name."""
        target = self.directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / path).is_dir():
            shutil.copytree(ROOT / path, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / path, target)
        return target

    # --- what is typed

    def run(self, command: str, under: str = ".", **env: str) -> str:
        """Run a command to its end, which is a good one; gives what it has written."""
        program = self._program(command, under, env)
        try:
            code = program.wait(ENDING)
            assert code == 0, f"{command}: exit code {code}\n{program.story()}"
            program.assert_nothing_left()
            return program.output
        finally:
            program.kill()

    @contextlib.contextmanager
    def serving(self, command: str, said: str, under: str = ".", **env: str) -> Iterator[Program]:
        """Run a command that goes on: it has said this much; afterwards TERM ends it."""
        program = self._program(command, under, env)
        try:
            self._until(program, said)
            yield program
            program.signal(signal.SIGTERM)
            program.wait(ENDING)
            program.assert_nothing_left()
        finally:
            program.kill()

    def _until(self, program: Program, said: str) -> None:
        def look() -> bool:
            assert program.processes(), program.story()
            return said in program.output

        try:
            wait_until(look, ENDING, f"{said!r} is said")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{program.story()}") from None

    def _program(self, command: str, under: str, env: dict[str, str]) -> Program:
        place = shlex.quote(str(self.directory / under))
        words = ["bash", "-c", f"cd {place} && exec {command}"]
        return Program(words, self.directory, {**self._env, **env})


def ask(port: int, path: str, data: bytes | None = None) -> str:
    """What a server of this host answers, as soon as it does."""

    def look() -> str | None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", data, ENDING) as answer:
                return f"{answer.read().decode()} "
        except ConnectionError:
            return None
        except urllib.error.URLError as error:
            if isinstance(error.reason, ConnectionError):
                return None
            raise

    return str(wait_until(look, ENDING, f"an answer to {path}")).strip()


__all__ = ["Room", "ask", "free_port"]
