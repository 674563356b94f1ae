"""Tasks in class form: options that are checked, ids, events, numbers, crashes and retries.

Run it::

    python examples/class_task.py

It compresses sources of the standard library with three algorithms in worker processes, shows how
wrong options are refused before anything is queued, lets fifty async tasks meet in one worker,
loses one worker on purpose (which costs only the task that ran in it), and tries one task until
it succeeds. All the while the manager's events are counted; its own numbers come out the same.
"""

import bz2
import collections
import contextlib
import logging
import lzma
import os
import sys
import sysconfig
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from gevent import socket
from gevent.event import Event
from gevent.server import StreamServer
from msgspec import Meta
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

import gtaskman

LIBRARY = Path(sysconfig.get_path("stdlib"))
console = Console(highlight=False)


# --- the tasks -----------------------------------------------------------------------------------


class Compress(gtaskman.Task, timeout=60):
    """A sync task. Its annotated fields are its options; those with a value may be left out."""

    path: Path
    method: Literal["zlib", "bz2", "lzma"] = "zlib"
    level: Annotated[int, Meta(ge=1, le=9)] = 6

    def run(self, progress: gtaskman.Progress) -> tuple[int, int]:
        """The file's size before and after."""
        data = self.path.read_bytes()
        progress.update(50, message=f"{len(data):,} bytes read")
        packed = getattr(self, f"_{self.method}")(data)
        return len(data), len(packed)

    def _zlib(self, data: bytes) -> bytes:
        return zlib.compress(data, self.level)

    def _bz2(self, data: bytes) -> bytes:
        return bz2.compress(data, self.level)

    def _lzma(self, data: bytes) -> bytes:
        return lzma.compress(data, preset=self.level)


class Call(gtaskman.AsyncTask, timeout=30):
    """An async task: it mostly waits, so that many of them share one worker."""

    port: int

    def run(self, progress: gtaskman.Progress) -> int:
        """Call the meeting, wait for its answer; gives the worker's pid."""
        progress.update(message="calling")
        # A socket of gevent's: waiting for it leaves the worker to the others.
        with socket.create_connection(("127.0.0.1", self.port)) as line:
            assert line.recv(100) == b"all are here"
        return os.getpid()


class Vanish(gtaskman.Task):
    """A task that takes its process with it, as a fault in a C extension would."""

    def run(self, progress: gtaskman.Progress) -> None:
        """Never returns."""
        progress.update(message="about to vanish")
        os._exit(42)


class ThirdTimeLucky(gtaskman.Task, retries=2):
    """A task that fails twice: two further attempts are allowed."""

    def run(self, progress: gtaskman.Progress) -> str:
        """Which attempt it was."""
        attempt = gtaskman.current().attempt
        progress.update(message=f"attempt {attempt}")
        if attempt < 3:
            raise ConnectionError(f"attempt {attempt} found nobody at home")
        return f"attempt {attempt} got through"


# --- the program ---------------------------------------------------------------------------------


def main() -> None:
    """One manager, one chapter after the other."""
    # What gtaskman logs, such as the death of a worker, shall be seen where it happens.
    logging.basicConfig(stream=sys.stdout, format=" (logged by %(name)s) %(message)s")
    config = gtaskman.Configuration(max_processes=2, max_jobs_per_process=100)
    with gtaskman.TaskManager(config=config) as manager:
        counts = collections.Counter()
        for event in ("task-progress", "task-completed", "task-failed", "task-cancelled"):
            manager.on(event, lambda _, event=event: counts.update([event]))

        options()
        ids_and_events(manager)
        async_tasks(manager)
        crash(manager)
        retries(manager)
    show_numbers(manager.stats()["pool"], counts)


def options() -> None:
    """Wrong ones are refused where the task is built, and the message names the option."""
    chapter("Options are checked when a task is built")
    path = LIBRARY / "ast.py"
    for wrong in (
        {"path": path, "level": "high"},
        {"path": path, "level": 10},
        {"path": path, "method": "rar"},
        {"path": path, "speed": 9},
        {"level": 9},
    ):
        try:
            Compress(**wrong)
        except gtaskman.TaskOptionError as error:
            say(f"TaskOptionError in {error.field!r}: {error}")


def ids_and_events(manager: gtaskman.TaskManager) -> None:
    """An id of one's own: for events of that one task, and to ask for its report later."""
    chapter("Ids and events")
    said: list[str] = []
    manager.on("task-progress-argparse", lambda report: said.append(report.message))
    done = Event()
    manager.once("task-completed-argparse", lambda _: done.set())

    task = Compress(id="argparse", path=LIBRARY / "argparse.py", method="lzma", level=9)
    manager.submit(task)
    try:
        manager.submit(task)
    except gtaskman.DuplicateTaskError as error:
        say(f"DuplicateTaskError: {error}")
    done.wait()
    report = manager.report("argparse")
    say(f"on 'task-progress-argparse': {said[0]}")
    say(f"report('argparse'): {report.status.value}, result {report.result}")

    methods = {each: sizes(manager, each) for each in ("zlib", "bz2", "lzma")}
    table = new_table("Sixteen sources, compressed", "method", "bytes before", "after", "share")
    for method, (before, after) in methods.items():
        table.add_row(method, f"{before:,}", f"{after:,}", f"{after / before:.1%}")
    console.print(table)


def sizes(manager: gtaskman.TaskManager, method: str) -> tuple[int, int]:
    """Sixteen files, each in a task of its own."""
    paths = sorted(LIBRARY.glob("[a-c]*.py"))[:16]
    handles = [manager.submit(Compress(path=path, method=method)) for path in paths]
    before, after = zip(*(handle.get() for handle in handles), strict=True)
    return sum(before), sum(after)


def async_tasks(manager: gtaskman.TaskManager, count: int = 50) -> None:
    """They run side by side: nobody is answered before the last one has called."""
    chapter("Async tasks share a worker")
    with meeting(count) as port:
        pids = [handle.get() for handle in [manager.submit(Call(port=port)) for _ in range(count)]]
    say(f"{len(pids)} were on the line at once; worker processes they ran in: {len(set(pids))}")


@contextlib.contextmanager
def meeting(count: int) -> Iterator[int]:
    """A server that answers when ``count`` callers are there; gives its port."""
    callers: list[socket.socket] = []
    complete = Event()

    def welcome(line: socket.socket, _address: object) -> None:
        callers.append(line)
        if len(callers) == count:
            complete.set()
        complete.wait()
        line.sendall(b"all are here")

    server = StreamServer(("127.0.0.1", 0), welcome)
    server.start()
    yield server.server_port
    server.stop()


def crash(manager: gtaskman.TaskManager) -> None:
    """A worker dies: the task that ran in it fails, and no other."""
    chapter("A crash costs one task")
    before = set(manager.pids())
    tasks = [Compress(path=LIBRARY / "ast.py", method="bz2") for _ in range(20)]
    tasks.insert(10, Vanish())
    handles = [manager.submit(task) for task in tasks]
    for handle in handles:
        handle.wait()
    lost = [handle for handle in handles if not handle.successful()]
    error = lost[0].exception
    say(f"{len(handles) - len(lost)} of {len(handles)} completed, {len(lost)} failed")
    say(f"{type(error).__name__}: exitcode {error.exitcode}; {error.reason}")
    say(f"workers that lived before and still do: {len(before & set(manager.pids()))}")


def retries(manager: gtaskman.TaskManager) -> None:
    """A failure is final only when no attempt is left."""
    chapter("Retries")
    handle = manager.submit(ThirdTimeLucky())
    say(f"{handle.get()}; the report says attempt {handle.report.attempt}")


# --- what one sees -------------------------------------------------------------------------------


def show_numbers(numbers: dict[str, int], counts: collections.Counter) -> None:
    """What the manager counted, and what its events came to."""
    table = new_table("The manager's numbers", "", "stats()", "events")
    for status in ("completed", "failed", "cancelled"):
        table.add_row(status, f"{numbers[f'{status}_tasks']}", f"{counts[f'task-{status}']}")
    finished = sum(counts.values()) - counts["task-progress"]
    table.add_row("total", f"{numbers['total_tasks']}", f"{finished}")
    table.add_row("progress", "", f"{counts['task-progress']}")
    console.print()
    console.print(table)


def chapter(title: str) -> None:
    """A heading."""
    console.print(f"\n[bold]{title}[/bold]")


def say(text: str) -> None:
    """A line below it, indented however long it is."""
    console.print(Padding(Text(text), (0, 0, 0, 1), expand=False))


def new_table(title: str, name: str, *numbers: str) -> Table:
    """A table of numbers."""
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    table.add_column(name)
    for heading in numbers:
        table.add_column(heading, justify="right")
    return table


if __name__ == "__main__":
    main()
