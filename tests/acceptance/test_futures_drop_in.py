"""The program for a ProcessPoolExecutor, as it is, on the original, and monkey-patched."""

from __future__ import annotations

import collections
import re
import sysconfig
import tokenize
from pathlib import Path

import pytest
from worlds import run_python

PROGRAM = Path(__file__).resolve().parents[2] / "examples" / "futures_drop_in" / "names.py"
OURS = "from gtaskman.futures import Executor as ProcessPoolExecutor  # the line\n"
THEIRS = "# from concurrent.futures import ProcessPoolExecutor  # and what stood there\n"
PATCH = "from gevent import monkey; monkey.patch_all()\n"
FILES = 60


def run(directory: Path, text: str) -> list[str]:
    """What the program prints, but for who did it and how long it took."""
    script = directory / "names.py"
    script.write_text(text)
    done = run_python(str(script), "--files", str(FILES), "--workers", "2", directory=directory)
    assert done.code == 0, done.output
    *lines, last = done.output.splitlines()
    return [*lines, re.sub(r"[\d.]+ s$", "", last)]


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """What it prints on the original, by the change of one line."""
    text = PROGRAM.read_text()
    assert text.count(OURS) == text.count(THEIRS) == 1
    on_theirs = text.replace(OURS, "").replace(THEIRS, THEIRS.removeprefix("# "))
    return run(tmp_path_factory.mktemp("original"), on_theirs)


@pytest.mark.parametrize("patched", [False, True])
def test_it_finds_the_same_on_either(original, patched, tmp_path):
    text = PROGRAM.read_text()
    if patched:
        line = "from __future__ import annotations\n"
        text = text.replace(line, line + PATCH, 1)

    found = run(tmp_path, text)

    assert found[:-1] == original[:-1]
    assert found[-1] == "by gtaskman.futures.executor, in "
    assert original[-1] == "by concurrent.futures.process, in "


def test_what_it_finds_is_in_the_files(original):
    names: collections.Counter[str] = collections.Counter()
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:FILES]:
        with tokenize.open(path) as file:
            tokens = tokenize.generate_tokens(file.readline)
            names.update(each.string for each in tokens if each.type == tokenize.NAME)
    rows = re.findall(r"^ +([\d,]+)  (\w+) +defined +\d+ times", "\n".join(original), re.M)

    assert len(rows) == 8
    assert [(name, int(many.replace(",", ""))) for many, name in rows] == [
        (name, names[name]) for _, name in rows
    ]
    assert "a file that is not there: FileNotFoundError" in "\n".join(original)
