"""Fetch four hundred files over HTTP, parse each of them, and never let the hub wait.

Run it, after ``pip install -e .`` in the repository::

    python examples/quickstart.py             # the 400 largest files of the standard library
    python examples/quickstart.py --files 50

A gevent web server in this very process hands out the standard library's own source files.
*Async* tasks fetch them: waiting is cheap, so many share one worker. *Sync* tasks parse them:
that takes a core, so each has a worker to itself. Two bars show both at work, then come the
longest functions found, the totals (checked against the same work done right here), and how long
this process's hub stood still at most: through gtaskman, and for the same parsing done in the hub.
"""

# ruff: noqa: E402 - patching comes first, as in most gevent programs: the workers of a patched
# program are patched too, and so urllib waits cooperatively in the async tasks.
from gevent import monkey

monkey.patch_all()

import argparse
import ast
import contextlib
import dataclasses
import os
import sys
import sysconfig
import time
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path

import gevent
from gevent.pywsgi import WSGIServer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import gtaskman

LIBRARY = Path(sysconfig.get_path("stdlib"))
NOT_THE_LIBRARY = {"site-packages", "dist-packages", "test", "tests", "idle_test"}
VERSION = sys.version.split()[0]
console = Console()


# --- the tasks: plain functions, which still can be called as such -------------------------------


@gtaskman.task(kind="async", timeout=30, retries=2)
def fetch(url: str) -> tuple[str, bytes]:
    """A file's name and its bytes. It waits most of the time: many of these share a worker."""
    with urllib.request.urlopen(url) as response:
        return url.rpartition("/files/")[2], response.read()


@dataclasses.dataclass(frozen=True)
class Module:
    """What was found in one source file."""

    name: str
    lines: int
    functions: int
    classes: int
    deepest: int  # blocks within blocks, at most
    longest: int  # lines of its longest function
    longest_name: str


@gtaskman.task
def measure(page: tuple[str, bytes]) -> Module:
    """Parse a file and measure it. It computes all the time: each has a worker to itself."""
    name, source = page
    nodes = list(walk(ast.parse(source)))
    functions = [node for node, _ in nodes if isinstance(node, FUNCTIONS)]
    longest = max(functions, key=length, default=None)
    return Module(
        name=name,
        lines=len(source.splitlines()),
        functions=len(functions),
        classes=sum(isinstance(node, ast.ClassDef) for node, _ in nodes),
        deepest=max(depth for _, depth in nodes),
        longest=length(longest) if longest else 0,
        longest_name=longest.name if longest else "",
    )


FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
BLOCKS = (*FUNCTIONS, ast.ClassDef, ast.If, ast.For, ast.While, ast.With, ast.Try)


def walk(node: ast.AST, depth: int = 0) -> Iterator[tuple[ast.AST, int]]:
    """This node and all below it, each with the number of blocks around it."""
    yield node, depth
    for child in ast.iter_child_nodes(node):
        # An elif is an if within an if to the parser, and beside it to the reader.
        beside = isinstance(child, ast.If) and getattr(node, "orelse", None) == [child]
        yield from walk(child, depth + (isinstance(node, BLOCKS) and not beside))


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Its lines of source."""
    return function.end_lineno - function.lineno + 1


# --- the program ---------------------------------------------------------------------------------


def main() -> None:
    """Serve, fetch and parse; then show what was found, and what it cost this process."""
    paths = largest(arguments().files)
    # Workers give way to this process, which has a server to run.
    gtaskman.configure(max_processes=1 + cores(), nice=10)
    gtaskman.start()  # or the first submit does it, which then takes a moment longer

    with serving(paths) as root, Lag() as lag:
        modules = pipeline([f"{root}/files/{name}" for name in paths])
    gtaskman.shutdown()

    sample = list(paths)[::8]
    with Lag() as inline_lag:
        inline = [measure((name, paths[name].read_bytes())) for name in sample]
    check(modules, inline)

    show_longest(modules)
    show_totals(modules, inline)
    show_lag(lag, len(modules), inline_lag, len(inline))


def pipeline(urls: list[str]) -> dict[str, Module]:
    """Fetch all, parse all, both at once.

    A map asks for its next item only when it has room for it, so that few files are on their way
    at any time, however many there are.
    """
    with bars() as show:
        pages = show("fetched by async tasks", gtaskman.map(fetch, urls, ordered=False), len(urls))
        found = show("parsed by sync tasks", gtaskman.map(measure, pages, ordered=False), len(urls))
        return {module.name: module for module in found}


def check(modules: dict[str, Module], inline: list[Module]) -> None:
    """What came out of the workers is what this process finds itself."""
    for module in inline:
        if modules[module.name] != module:
            sys.exit(f"{module.name}: {modules[module.name]} is not {module}")


# --- around it: the files, a server, a clock -----------------------------------------------------


def arguments() -> argparse.Namespace:
    """What the user wants."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--files", type=int, default=400, help="how many (default: 400)")
    return parser.parse_args()


def largest(count: int) -> dict[str, Path]:
    """The largest source files of the standard library, by name."""
    paths = [
        path for path in LIBRARY.rglob("*.py")
        if not NOT_THE_LIBRARY.intersection(path.relative_to(LIBRARY).parts)
    ]  # fmt: skip
    paths.sort(key=lambda path: (-path.stat().st_size, path))
    return {path.relative_to(LIBRARY).as_posix(): path for path in paths[:count]}


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))


@contextlib.contextmanager
def serving(paths: dict[str, Path]) -> Iterator[str]:
    """A web server for these files, on a free port of this machine; gives its address."""

    def application(environ, start_response):
        path = paths[environ["PATH_INFO"].removeprefix("/files/")]
        start_response("200 OK", [("Content-Type", "text/x-python")])
        return [path.read_bytes()]

    server = WSGIServer(("127.0.0.1", 0), application, log=None)
    server.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.stop()


class Lag:
    """How late a greenlet comes that wants to run each millisecond: ``worst``, in seconds."""

    def __enter__(self) -> "Lag":
        self.worst = 0.0
        self._ticker = gevent.spawn(self._tick)
        gevent.sleep(0)  # it begins
        return self

    def _tick(self) -> None:
        while True:
            before = time.perf_counter()
            gevent.sleep(0.001)
            self.worst = max(self.worst, time.perf_counter() - before - 0.001)

    def __exit__(self, *_: object) -> None:
        gevent.sleep(0.002)  # it comes once more, perhaps late
        self._ticker.kill()


# --- what one sees -------------------------------------------------------------------------------


@contextlib.contextmanager
def bars():
    """Gives ``show(title, items, total)``, which passes items on and moves a bar for each."""
    columns = (TextColumn("{task.description:<22}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:

        def show(title: str, items: Iterable, total: int) -> Iterator:
            bar = progress.add_task(title, total=total)

            def passing() -> Iterator:
                for item in items:
                    progress.advance(bar)
                    yield item

            return passing()

        yield show


def show_longest(modules: dict[str, Module], count: int = 8) -> None:
    """The files with the longest functions."""
    ranking = sorted(modules.values(), key=lambda module: (-module.longest, module.name))
    table = new_table(f"The longest functions of Python {VERSION}", "lines", "function")
    table.add_column("in the file")
    table.add_column("of lines", justify="right")
    table.add_column("nested", justify="right")
    for each in ranking[:count]:
        table.add_row(
            f"{each.longest:,}", each.longest_name, each.name, f"{each.lines:,}", f"{each.deepest}"
        )
    console.print(table)


def show_totals(modules: dict[str, Module], inline: list[Module]) -> None:
    """The sums, and that they are right."""
    table = new_table("Totals", "files", "parsed")
    for heading in ("lines", "functions", "classes"):
        table.add_column(heading, justify="right")
    for title, found in (
        ("by the workers", list(modules.values())),
        ("every 8th, by the workers", [modules[module.name] for module in inline]),
        ("every 8th, again by this process", inline),
    ):
        sums = (sum(getattr(m, what) for m in found) for what in ("lines", "functions", "classes"))
        table.add_row(f"{len(found):,}", title, *(f"{value:,}" for value in sums))
    console.print(table)
    console.print(f" Checked: {len(inline)} files parsed again here, all {len(inline)} the same.\n")


def show_lag(lag: Lag, files: int, inline_lag: Lag, inline_files: int) -> None:
    """How long nothing else could run here."""
    table = new_table("How long the hub stood still, at most", "ms", "while")
    table.add_row(f"{lag.worst * 1000:,.1f}", f"gtaskman fetched and parsed {files} files")
    table.add_row(f"{inline_lag.worst * 1000:,.1f}", f"it parsed {inline_files} of them itself")
    console.print(table)


def new_table(title: str, number: str, text: str) -> Table:
    """A table that begins with a number and a text."""
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    table.add_column(number, justify="right")
    table.add_column(text)
    return table


if __name__ == "__main__":
    main()
