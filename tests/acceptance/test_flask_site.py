"""The Flask example as a user runs it: real gunicorn, real HTTP, tasks in workers."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from servers import RunningServer, any_kind, free_port
from worlds import Program, wait_until

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "flask_site"
ENDING = 60.0  # seconds, on a machine that others use as well
NAMES = ("ada", "bob", "cyd", "dan", "eve", "fay")


class Site:
    """The example, served."""

    def __init__(self, program: Program, port: int) -> None:
        self.program = program
        self.root = f"http://127.0.0.1:{port}"

    def ask(self, path: str, **form: str) -> tuple[int, Any]:
        """A status, and what was said in JSON; with a form it is a POST."""
        data = urllib.parse.urlencode(form).encode() if form else None
        try:
            answer = urllib.request.urlopen(self.root + path, data, timeout=ENDING)
        except urllib.error.HTTPError as refusal:
            answer = refusal
        with answer:
            text = answer.read().decode()
        assert answer.status < 500, f"{text}\n{self.program.story()}"
        return answer.status, json.loads(text)

    def is_up(self) -> bool:
        assert self.program.processes(), self.program.story()
        with contextlib.suppress(urllib.error.URLError):
            return self.ask("/")[0] == 200
        return False


@contextlib.contextmanager
def served(directory: Path, workers: int, **env: str) -> Iterator[Site]:
    port = free_port()
    command = ["-m", "gunicorn", "-c", str(EXAMPLE / "gunicorn.conf.py"), "--chdir", str(EXAMPLE)]
    command += ["-b", f"127.0.0.1:{port}", "-w", str(workers), "accounts:create_app()"]
    database = {"ACCOUNTS_DATABASE": str(directory / "accounts.sqlite")}
    program = Program([sys.executable, *command], directory, {**database, **env})
    try:
        site = Site(program, port)
        wait_until(site.is_up, ENDING, "the site is up")
        yield site
        program.signal(signal.SIGTERM)
        assert program.wait(ENDING) == 0, program.story()
        program.assert_nothing_left(ENDING)
    finally:
        program.kill()


def of_gunicorn(program: Program) -> set[int]:
    """The arbiter and its children: whoever answers requests."""
    leader = program.leader
    return {each.pid for each in program.processes() if leader in (each.pid, each.parent)}


def test_accounts_are_made_by_workers_of_the_pool(tmp_path):
    with served(tmp_path, workers=2) as site, ThreadPoolExecutor(len(NAMES)) as threads:
        # If accounts are made at once, then each is there,
        made = threads.map(lambda name: site.ask("/accounts", name=name, password=name), NAMES)
        assert [status for status, _ in made] == [201] * len(NAMES)
        status, makers = site.ask("/accounts")
        assert (status, list(makers)) == (200, sorted(NAMES))
        # by a process that answers no requests, in the database of its application's context.
        assert not set(makers.values()) & of_gunicorn(site.program)
        assert set(makers.values()) <= {each.pid for each in site.program.processes()}
        # And its password opens it, no other does, and there are no two of one name.
        assert site.ask("/login", name="ada", password="ada")[0] == 200
        assert site.ask("/login", name="ada", password="bob")[0] == 403
        assert site.ask("/login", name="nobody", password="ada")[0] == 403
        assert site.ask("/accounts", name="ada", password="other")[0] == 409


def test_others_are_answered_while_passwords_are_hashed(tmp_path):
    with served(tmp_path, workers=1) as site, ThreadPoolExecutor(len(NAMES)) as threads:
        made = [threads.submit(site.ask, "/accounts", name=name, password=name) for name in NAMES]
        wait_until(lambda: site.ask("/accounts")[1], ENDING, "the first one is made")
        answers = [site.ask("/") for _ in range(20)]

        assert not all(each.done() for each in made)
        assert {status for status, _ in answers} == {200}
        assert [each.result(ENDING)[0] for each in made] == [201] * len(NAMES)


def test_a_manager_of_its_own_does_the_work_of_the_same_site(tmp_path):
    with RunningServer(any_kind()) as server:
        env = {
            "ACCOUNTS_DATABASE": str(tmp_path / "accounts.sqlite"),
            "ACCOUNTS_GTASKMAN_URL": server.url,
            "PYTHONPATH": str(EXAMPLE),
        }
        command = ["-m", "flask", "--app", "accounts", "gtaskman", "run"]
        manager = Program([sys.executable, *command], tmp_path, env)
        try:
            with served(tmp_path, workers=1, **env) as site:
                assert site.ask("/accounts", name="ada", password="ada")[0] == 201
                assert site.ask("/login", name="ada", password="ada")[0] == 200
                (maker,) = site.ask("/accounts")[1].values()
                assert maker in {each.pid for each in manager.processes()}
            manager.signal(signal.SIGTERM)
            assert manager.wait(ENDING) == 0, manager.story()
        finally:
            manager.kill()


@pytest.mark.quick
def test_the_example_leaves_nothing_where_it_is():
    assert not (EXAMPLE / "instance").exists()
