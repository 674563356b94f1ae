"""The blocks of the pages, and the files that they tell the reader to write."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
_FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?:^ {4,}\S.*\n)+", re.MULTILINE)
_FILE = re.compile(r"^# (?P<path>[\w./]+\.(?:py|toml))\b")
_COMMANDS = (
    "cd", "curl", "export", "flask", "gtaskman", "gunicorn", "mkdir", "pip", "pytest", "python",
    "python3",
)  # fmt: skip


class Block(NamedTuple):
    """A block of code on a page; ``language`` is empty where the page does not say it."""

    page: str
    line: int
    language: str
    text: str


def pages() -> list[Path]:
    """All pages that speak to a user."""
    return [ROOT / "README.md", ROOT / "examples" / "README.md", *sorted(ROOT.glob("docs/*.md"))]


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, then those that are blocks by their indentation."""
    text = page.read_text()
    name = str(page.relative_to(ROOT))
    found = [
        Block(name, _line(text, match), match["language"], match["text"])
        for match in _FENCE.finditer(text)
    ]
    prose = _FENCE.sub(lambda match: "\n" * match[0].count("\n"), text)
    return found + [
        Block(name, _line(prose, match), "", match[0]) for match in _INDENTED.finditer(prose)
    ]


def _line(text: str, match: re.Match[str]) -> int:
    return text.count("\n", 0, match.start()) + 1


def files(page: str) -> dict[str, str]:
    """What the reader is to write: blocks whose first line is a comment with the file's name."""
    found = {}
    for block in blocks(ROOT / page):
        match = _FILE.match(block.text)
        if match:
            found[match["path"]] = block.text
    return found


def commands(page: Path) -> list[tuple[int, str]]:
    """The lines of a page that are typed into a shell, without what follows a ``#``."""
    found = []
    for block in blocks(page):
        if block.language:
            continue
        for number, line in enumerate(block.text.splitlines(), block.line + bool(block.language)):
            typed = re.sub(r"\s#.*", "", line).strip().removeprefix("$ ")
            found += [(number, part) for part in _parts(typed) if part.split()[0] in _COMMANDS]
    return found


def _parts(line: str) -> list[str]:
    """The commands of one line."""
    parts = re.split(r"\s*(?:&&|;)\s*", line)
    return [re.sub(r"^\w+=\$\((.*)\)$", r"\1", part) for part in parts if part]
