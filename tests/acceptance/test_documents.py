"""What the pages tell the reader to type exists: modules, names, commands, options, extras."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
import sys
from pathlib import Path

import click
import pytest
from extras import documents, environment

from gtaskman.cli.main import main as cli

pytestmark = pytest.mark.quick
ROOT = documents.ROOT
PAGES = [str(page.relative_to(ROOT)) for page in documents.pages()]
with_pages = pytest.mark.parametrize("page", PAGES)
BLOCKS = [block for page in documents.pages() for block in documents.blocks(page)]
PYTHON = [block for block in BLOCKS if block.language == "python"]
with_python = pytest.mark.parametrize(
    "block", PYTHON, ids=[f"{block.page}:{block.line}" for block in PYTHON]
)
COMMANDS = [
    (str(page.relative_to(ROOT)), line, command)
    for page in documents.pages()
    for line, command in documents.commands(page)
]
with_commands = pytest.mark.parametrize(
    "command", [command for *_, command in COMMANDS], ids=[f"{p}:{n}" for p, n, _ in COMMANDS]
)

# --- Python --------------------------------------------------------------------------------------


@with_python
def test_python_compiles(block):
    ast.parse(block.text)


@with_python
def test_what_is_imported_of_gtaskman_is_there(block):
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gtaskman"):
            for alias in node.names:
                resolve(f"{node.module}.{alias.name}")
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("gtaskman"):
                    importlib.import_module(alias.name)


@with_pages
def test_names_in_the_text_are_there(page):
    text = (ROOT / page).read_text()
    for name in set(re.findall(r"`(gtaskman(?:\.[A-Za-z_]\w*)+)[`(]", text)):
        resolve(name)


def resolve(path: str) -> object:
    """What a dotted path of the package leads to."""
    if path == "gtaskman.contrib.django.TaskBackend" and not has_django_tasks():
        return None
    names = path.split(".")
    found: object = importlib.import_module(names[0])
    for number, name in enumerate(names[1:], 2):
        if not hasattr(found, name):
            importlib.import_module(".".join(names[:number]))
        found = getattr(found, name)
    return found


def has_django_tasks() -> bool:
    import django

    return django.VERSION >= (6,)


# --- modules of the reader -----------------------------------------------------------------------

_MODULES = (
    r"--app (\w+)",
    r"\bgtaskman run (?:--bind \S+ )?(\w+)",
    r"\btask = \"(\w+)",
    r"\bfactory=\"(\w+)",
    r"\bgunicorn (?:-\S+ \S+ )*'?(\w+)",
)


@with_pages
def test_no_module_of_the_reader_has_the_name_of_one_that_is_there(page):
    text = (ROOT / page).read_text()
    names = {name for pattern in _MODULES for name in re.findall(pattern, text)}
    assert not names & sys.stdlib_module_names


@with_pages
def test_a_page_that_has_files_written_names_them_once(page):
    first = re.findall(r"^```python\n# ([\w./]+\.py)\b", (ROOT / page).read_text(), re.MULTILINE)
    assert len(first) == len(set(first))


# --- commands ------------------------------------------------------------------------------------


@with_commands
def test_a_command_is_one(command):
    words = shlex.split(command)
    if "gtaskman" in words:
        check_gtaskman(words[words.index("gtaskman") + 1 :])
    elif words[:2] == ["pip", "install"]:
        check_extras(words[2:])
    elif words[0] == "python" and words[1].startswith("examples/"):
        assert (ROOT / words[1]).exists()
    elif words[:3] == ["python", "-m", "benchmarks"]:
        check_words(importlib.import_module("benchmarks.__main__").main, words[3:])


def check_gtaskman(words: list[str]) -> None:
    check_words(cli, words)


def check_words(command: click.Command, words: list[str]) -> None:
    """The command has subcommands and options of these names."""
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(click.Context(command), words[0])
        assert found is not None, f"no command {words[0]!r}"
        command, words = found, words[1:]
    known = {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
    asked = {word.split("=")[0] for word in words if re.match(r"--\w", word)}
    assert asked <= {*known, "--help"}, f"no options {asked - known}"


def check_extras(words: list[str]) -> None:
    for word in words:
        for named in re.findall(r"\[([\w,]+)\]", word):
            assert set(named.split(",")) <= set(environment.extras())


@with_pages
def test_options_of_commands_in_tables_and_text_are_there(page):
    text = (ROOT / page).read_text()
    for words in re.findall(r"`gtaskman ((?:[\w-]+ ?)+(?:[^`\n]*))`", text):
        check_gtaskman(shlex.split(words.replace("...", "")))


@with_pages
def test_extras_in_the_text_are_there(page):
    for named in re.findall(r"gtaskman\[([\w,]+)\]", (ROOT / page).read_text()):
        assert set(named.split(",")) <= set(environment.extras())


# --- links ---------------------------------------------------------------------------------------


@with_pages
def test_links_lead_somewhere(page):
    here = ROOT / page
    for target, anchor in re.findall(r"\]\(([\w./-]*)(?:#([\w-]+))?\)", here.read_text()):
        path = (here.parent / target) if target else here
        assert path.exists(), target
        if anchor:
            assert anchor in anchors(path), f"{target}#{anchor}"


@with_pages
def test_examples_that_are_named_are_there(page):
    for path in re.findall(r"`(examples/[\w./]+)`", (ROOT / page).read_text()):
        assert (ROOT / path).exists(), path


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    plain = (re.sub(r"[^\w\s-]", "", title.lower()) for title in titles)
    return {title.strip().replace(" ", "-") for title in plain}
