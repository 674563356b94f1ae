"""What is written: documents for programs, tables and words for people.

Where the output is no terminal there are no colours, and lines are as long as they are.
"""

from __future__ import annotations

import datetime
import json
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.text import Text

from gtaskman.cli.printable import printable, printable_line
from gtaskman.report import Report, TaskStatus

_GAP = 2  # columns between two of a table
_ENDLESS = 100_000  # columns of what is no terminal
_COLOURS = {
    TaskStatus.WAITING: "yellow",
    TaskStatus.PROCESSING: "cyan",
    TaskStatus.COMPLETED: "green",
    TaskStatus.FAILED: "red",
    TaskStatus.CANCELLED: "magenta",
}


def document(value: Any) -> None:
    """Write a value as JSON; characters that would steer a terminal are escaped in it."""
    try:
        encoded = msgspec.json.encode(value, enc_hook=str)
    except UnicodeEncodeError:  # a lone surrogate, which JSON can escape
        plain = msgspec.to_builtins(value, str_keys=True, enc_hook=str)
        encoded = json.dumps(plain).encode()
    lines = msgspec.json.format(encoded, indent=2).decode()
    click.echo(_OUTSIDE_ASCII.sub(_json_escape, lines))


# Beyond ASCII they are in strings only, and as escapes they mean the same. (JSON itself demands
# that those of ASCII are escaped, but for DEL.)
_OUTSIDE_ASCII = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def _json_escape(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def result(value: Any) -> None:
    """Write what a task has returned: a text as it is, nothing for None, else its ``repr``.

    On a terminal characters that would steer it are escaped.
    """
    if value is None:
        return
    words = value if isinstance(value, str) else repr(value)
    if sys.stdout.isatty():
        words = printable(words)
    click.echo(words.encode(errors="backslashreplace"))


def text(words: str) -> None:
    """Write text that came from elsewhere."""
    click.echo(printable(words))


def note(words: str) -> None:
    """Say something that is no part of the output."""
    click.echo(printable(words), err=True)


def table(titles: Sequence[str], rows: Iterable[Sequence[Text | str]]) -> None:
    """Write rows under titles. On a terminal the last column is cut where it is too long."""
    lines = [[Text(title, "bold") for title in titles]]
    lines += [[_text(cell) for cell in row] for row in rows]
    widths = [max(line[at].cell_len for line in lines) for at in range(len(titles) - 1)]
    console = _console()
    room = max(len(titles[-1]), console.width - sum(widths) - _GAP * len(widths))
    for *cells, last in lines:
        for cell, width in zip(cells, widths, strict=True):
            cell.pad_right(width - cell.cell_len + _GAP)
        last.truncate(room if console.is_terminal else _ENDLESS, overflow="ellipsis")
        _write(console, Text().join([*cells, last]))


def facts(pairs: Iterable[tuple[str, Text | str]]) -> None:
    """Write names and what they stand for, one a line."""
    lines = list(pairs)
    width = max(len(name) for name, _ in lines) + _GAP
    for name, what in lines:
        _write(_console(), Text(name.ljust(width), "bold") + _fact(what, width))


def _text(what: Text | str) -> Text:
    return Text(printable_line(what)) if isinstance(what, str) else what


def _fact(what: Text | str, width: int) -> Text:
    """What stands behind a name; further lines are indented, so that none looks like a fact."""
    if not isinstance(what, str):
        return what
    return Text(printable(what).replace("\n", "\n" + " " * width))


def _console() -> Console:
    return Console(markup=False, highlight=False, emoji=False)


def _write(console: Console, line: Text) -> None:
    line.rstrip()
    console.print(line, soft_wrap=True)


# --- reports -------------------------------------------------------------------------------------


def reports(found: Sequence[Report], as_json: bool) -> None:
    """Write a list of them."""
    if as_json:
        document(found)
    elif not found:
        note("no tasks")
    else:
        titles = ("ID", "TASK", "STATUS", "SUBMITTED", "TOOK", "TRY", "MESSAGE")
        table(titles, map(_row, found))


def _row(report: Report) -> tuple[Text | str, ...]:
    return (
        report.id,
        report.name,
        status(report),
        moment(report.created_at),
        seconds(report.duration),
        str(report.attempt),
        _message(report),
    )


def _message(report: Report) -> str:
    words = report.error.message if report.error else report.message
    return " ".join(words.split())


def report(found: Report, as_json: bool) -> None:
    """Write one, with all that is known of it."""
    if as_json:
        document(found)
        return
    facts((name, what) for name, what in _facts(found) if what)
    if found.traceback:
        text(f"\n{found.traceback.rstrip()}")


def _facts(found: Report) -> Iterable[tuple[str, Text | str]]:
    yield "id", found.id
    yield "task", f"{found.name} ({found.kind})"
    yield "status", status(found)
    yield "message", found.message if found.error is None else ""
    yield "error", _error(found)
    if found.status is TaskStatus.COMPLETED:
        yield "result", repr(found.result)
    yield "submitted", moment(found.created_at)
    yield "started", moment(found.started_at)
    yield "ended", moment(found.finished_at)
    yield "took", seconds(found.duration)
    yield "attempt", str(found.attempt)
    yield "worker", str(found.worker or "")


def _error(found: Report) -> str:
    if found.error is None:
        return ""
    kind = found.error.exc_type
    return f"{kind}: {found.error.message}" if kind else found.error.message


def status(found: Report) -> Text:
    """The status in its colour, with the progress of what is running."""
    words = found.status.value
    if found.status is TaskStatus.PROCESSING and found.completed and found.target:
        words += f" {100 * found.completed / found.target:.0f}%"
    return Text(words, _COLOURS[found.status])


def moment(epoch: float | None) -> str:
    """A time of this place; the day is left out if it is today."""
    if epoch is None:
        return ""
    when = datetime.datetime.fromtimestamp(epoch)
    today = when.date() == datetime.date.today()
    return when.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M:%S")


def seconds(duration: float | None) -> str:
    """A duration."""
    if duration is None:
        return ""
    if duration < 1:
        return f"{duration * 1000:.3g} ms"
    return f"{duration:.1f} s" if duration < 120 else str(datetime.timedelta(seconds=int(duration)))
