"""Exit codes, and how errors become one clear line and one of them."""

from __future__ import annotations

import enum
from typing import IO, Any

import click

from gtaskman.cli.printable import printable
from gtaskman.errors import (
    ConfigurationError,
    GTaskmanError,
    ServerUnavailable,
    TaskCancelled,
    TaskOptionError,
    WaitTimeout,
)


class Exit(enum.IntEnum):
    """With which number a command ends, for scripts."""

    DONE = 0
    FAILED = 1  # the task failed, or the command did
    USAGE = 2  # the command line, or a configuration, is wrong
    AWAY = 3  # the server did not answer within --patience
    CANCELLED = 4  # the task was
    TIMED_OUT = 5  # the wait for the task is over, the task goes on
    UNKNOWN = 6  # the server knows no such task (any more), or it is not as it must be
    INTERRUPTED = 130  # by Ctrl-C, as shells have it


_CODES: tuple[tuple[type[GTaskmanError], Exit], ...] = (
    (ServerUnavailable, Exit.AWAY),
    (ConfigurationError, Exit.USAGE),
    (TaskOptionError, Exit.USAGE),
    (TaskCancelled, Exit.CANCELLED),
    (WaitTimeout, Exit.TIMED_OUT),
)


class Failure(click.ClickException):
    """Ends the command with one line on standard error."""

    def __init__(self, message: str, code: Exit = Exit.FAILED) -> None:
        super().__init__(message)
        self.exit_code = int(code)  # type: ignore[misc, unused-ignore] # as click's own do

    def show(self, file: IO[Any] | None = None) -> None:
        """Write the line."""
        click.echo(f"gtaskman: {printable(self.message)}", file, err=file is None)


def failure(error: GTaskmanError) -> Failure:
    """What an error of gtaskman's comes to."""
    for kind, code in _CODES:
        if isinstance(error, kind):
            return Failure(str(error), code)
    return Failure(str(error))
