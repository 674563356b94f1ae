"""The Django example as a user runs it: real gunicorn, real HTTP, and queries in workers."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sys
import sysconfig
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from servers import RunningServer, any_kind, free_port
from worlds import Program, run_python, wait_until

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "django_site"
LIBRARY = Path(sysconfig.get_path("stdlib"))
BOOKS = 120
SLOW = r"(\w+) \1 \1"  # some tenths of a second of regular expressions
ENDING = 60.0  # seconds, on a machine that others use as well


class Site:
    """The example, served."""

    def __init__(self, program: Program, port: int) -> None:
        self.program = program
        self.root = f"http://127.0.0.1:{port}"

    def ask(self, path: str, post: bool = False, **query: str) -> tuple[int, Any]:
        """A status, and what was said in JSON."""
        url = f"{self.root}{path}?{urllib.parse.urlencode(query)}"
        request = urllib.request.Request(url, b"" if post else None)
        try:
            answer = urllib.request.urlopen(request, timeout=ENDING)
        except urllib.error.HTTPError as refusal:
            answer = refusal
        with answer:
            text = answer.read().decode()
        assert answer.status < 500, f"{text}\n{self.program.story()}"
        return answer.status, json.loads(text) if answer.status < 400 else text

    def is_up(self) -> bool:
        assert self.program.processes(), self.program.story()
        with contextlib.suppress(urllib.error.URLError):
            return self.ask("/")[0] == 200
        return False

    def of_gunicorn(self) -> set[int]:
        """The arbiter and its children: whoever answers requests."""
        leader = self.program.leader
        return {each.pid for each in self.program.processes() if leader in (each.pid, each.parent)}

    def counted(self, number: int) -> dict[str, Any]:
        """The book once its words are counted."""

        def look() -> dict[str, Any] | None:
            found = self.ask(f"/books/{number}")[1]
            return found if found["words"] is not None else None

        return wait_until(look, ENDING, "its words are counted")


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """A database with the first books of the library, as the commands of the site make it."""
    directory = tmp_path_factory.mktemp("bookshop")
    env = {"BOOKSHOP_DATABASE": str(directory / "books.sqlite"), "PYTHONPATH": str(EXAMPLE)}
    for words in (["migrate", "-v", "0"], ["load_books", "--most", str(BOOKS)]):
        done = run_python(
            str(EXAMPLE / "manage.py"), *words, directory=directory, env=env, timeout=ENDING
        )
        assert done.code == 0, done.output
    assert f"{BOOKS} books" in done.output
    return env


@contextlib.contextmanager
def served(directory: Path, env: dict[str, str], workers: int) -> Iterator[Site]:
    port = free_port()
    command = ["-m", "gunicorn", "-c", str(EXAMPLE / "gunicorn.conf.py"), "--chdir", str(EXAMPLE)]
    command += ["-b", f"127.0.0.1:{port}", "-w", str(workers), "bookshop.wsgi"]
    program = Program([sys.executable, *command], directory, env)
    try:
        site = Site(program, port)
        wait_until(site.is_up, ENDING, "the site is up")
        yield site
        program.signal(signal.SIGTERM)
        assert program.wait(ENDING) == 0, program.story()
        program.assert_nothing_left(ENDING)
    finally:
        program.kill()


def source(number: int) -> str:
    """The text of a book, from where it came."""
    path = sorted(LIBRARY.glob("*.py"))[number - 1]
    return path.read_text(encoding="utf-8", errors="replace")


def test_books_are_searched_and_counted_by_workers(database, tmp_path):
    with served(tmp_path, database, workers=2) as site:
        # A query runs in a process that answers no requests, and finds what it finds inline.
        found, inline = (
            site.ask(path, pattern=r"import socket\b")[1] for path in ("/search", "/search-inline")
        )
        assert found["titles"] == inline["titles"]
        assert "asyncore.py" in found["titles"] or "ftplib.py" in found["titles"]
        assert inline["by"] in site.of_gunicorn()
        assert found["by"] not in site.of_gunicorn()
        # The template of the workers has Django already: none of them imports it.
        assert "by themselves" not in site.program.output
        # Words are counted by a task, which writes them into the database.
        status, said = site.ask("/books/2/count", post=True)
        assert (status, bool(said["task"])) == (202, True)
        book = site.counted(2)
        assert book["words"] == len(re.findall(r"\w+", source(2)))
        assert book["counted_by"] not in {*site.of_gunicorn(), os.getpid()}
        # What Django raises in a worker is what it raises here.
        assert site.ask("/books/99999")[0] == 404
        assert site.ask("/books/99999/count", post=True)[0] == 404
        assert site.ask("/books/1/count")[0] == 405
        assert site.ask("/search")[0] == 400


def test_others_are_answered_while_a_query_takes_its_time(database, tmp_path):
    with served(tmp_path, database, workers=1) as site, ThreadPoolExecutor(8) as threads:
        site.ask("/search", pattern="x")
        searches = [threads.submit(site.ask, "/search", pattern=SLOW) for _ in range(8)]
        answers = [site.ask("/") for _ in range(10)]

        assert not all(each.done() for each in searches)
        assert {status for status, _ in answers} == {200}
        assert len({tuple(each.result(ENDING)[1]["titles"]) for each in searches}) == 1


def test_a_manager_of_its_own_counts_for_the_same_site(database, tmp_path):
    with RunningServer(any_kind()) as server:
        env = {**database, "BOOKSHOP_GTASKMAN_URL": server.url}
        command = [str(EXAMPLE / "manage.py"), "gtaskman", "run"]
        manager = Program([sys.executable, *command], tmp_path, env)
        try:
            with served(tmp_path, env, workers=1) as site:
                assert site.ask("/books/5/count", post=True)[0] == 202
                assert site.counted(5)["counted_by"] in {each.pid for each in manager.processes()}
                # Queries need not go so far.
                searched = site.ask("/search", pattern="socket")[1]["by"]
                assert searched in {each.pid for each in site.program.processes()}
            manager.signal(signal.SIGTERM)
            assert manager.wait(ENDING) == 0, manager.story()
        finally:
            manager.kill()


def test_the_example_leaves_nothing_where_it_is():
    assert not list(EXAMPLE.glob("*.sqlite"))
