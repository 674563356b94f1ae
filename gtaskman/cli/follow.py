"""Following a task to its end: a progress bar where there is a terminal, then its result."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import click
import gevent
from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from gtaskman.cli import show
from gtaskman.cli.exits import Exit
from gtaskman.cli.printable import printable_line
from gtaskman.errors import TaskFailed, WaitTimeout
from gtaskman.handle import TaskHandle
from gtaskman.report import Report

_BAR = 30  # columns of a progress bar
_NUMBERS = 16  # those of what is right of it, and of the gaps


def follow(handle: TaskHandle, timeout: float | None, as_json: bool) -> None:
    """Wait for the task and write its result; ends the command otherwise if it has none.

    Raises :class:`WaitTimeout` after ``timeout`` seconds (None: never), :class:`TaskCancelled`,
    and :class:`click.exceptions.Exit` after having told of a failure, or of a Ctrl-C.
    """
    try:
        _await(handle, timeout)
        result = handle.get()
    except TaskFailed as failed:
        _tell_failure(failed)
        raise click.exceptions.Exit(Exit.FAILED) from None
    except KeyboardInterrupt:
        show.note(f"task {handle.id} goes on; see: gtaskman status, gtaskman cancel")
        raise click.exceptions.Exit(Exit.INTERRUPTED) from None
    if as_json:
        show.document(result)
    else:
        show.result(result)


def _await(handle: TaskHandle, timeout: float | None) -> None:
    late = WaitTimeout(f"task {handle.id} has not ended within {timeout} s; it goes on")
    with gevent.Timeout(timeout, late), _bar(handle.report.name) as tell:
        for report in handle.progress():
            tell(report)


@contextlib.contextmanager
def _bar(name: str) -> Iterator[Callable[[Report], None]]:
    """A progress bar on standard error, if that is a terminal; it leaves nothing behind."""
    console = Console(stderr=True, markup=False, highlight=False, emoji=False)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(_BAR),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[message]}", markup=False),
    )
    room = max(0, console.width - cell_len(name) - _BAR - _NUMBERS)
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        bar = progress.add_task(printable_line(name), total=None, message="")

        def tell(report: Report) -> None:
            progress.update(
                bar,
                total=report.target,
                completed=report.completed,
                message=_cut(report.message, room),
            )

        yield tell


def _cut(message: str, room: int) -> str:
    """As much of it as there is room for: beside a longer one, the bar would be nothing."""
    text = Text(printable_line(" ".join(message.split())))
    text.truncate(room, overflow="ellipsis")
    return text.plain


def _tell_failure(failed: TaskFailed) -> None:
    show.note(f"gtaskman: {failed}")
    # An error of gtaskman's own says it all, such as an argument that does not fit: where in
    # gtaskman it was found helps nobody.
    if failed.traceback and not (failed.exc_type or "").startswith("gtaskman."):
        show.note(failed.traceback.rstrip())
