"""Commands about tasks that were sent: how they stand, to cancel them, to send them again."""

from __future__ import annotations

import click

from gtaskman.cli import show
from gtaskman.cli.access import Access, Command
from gtaskman.cli.exits import Exit, Failure
from gtaskman.cli.follow import follow
from gtaskman.client import Client
from gtaskman.report import Report, TaskStatus

_as_json = click.option("--json", "as_json", is_flag=True, help="Write JSON.")
_queue = click.option("--queue", metavar="NAME", help="Only those of this queue.")
_offset = click.option("--offset", type=click.IntRange(0), default=0, help="How many to skip.")
_limit = click.option(
    "--limit", type=click.IntRange(0), default=50, show_default=True, help="How many at most."
)
_CODES = {TaskStatus.FAILED: Exit.FAILED, TaskStatus.CANCELLED: Exit.CANCELLED}


def _known(client: Client, task_id: str) -> Report:
    found = client.report(task_id)
    if found is None:
        raise Failure(f"the server knows no task {task_id!r} (any more)", Exit.UNKNOWN)
    return found


@click.command(cls=Command)
@click.argument("task_id", metavar="ID")
@click.option("--wait", is_flag=True, help="Wait for its end, then write its result.")
@click.option("--timeout", type=click.FloatRange(0), metavar="SECONDS",
              help="How long to wait for that.")  # fmt: skip
@_as_json
@click.pass_obj
def status(access: Access, task_id: str, wait: bool, timeout: float | None, as_json: bool) -> None:
    """Write how the task ID stands.

    The exit code is 1 if it failed, 4 if it was cancelled, and 0 otherwise.
    """
    with access.client() as client:
        found = _known(client, task_id)
        handle = client.handle(task_id) if wait else None
        if handle is not None:
            follow(handle, timeout, as_json)
            return
    show.report(found, as_json)
    raise click.exceptions.Exit(_CODES.get(found.status, Exit.DONE))


@click.command(cls=Command)
@click.option("--status", type=click.Choice([each.value for each in TaskStatus]))
@click.option("--finished/--unfinished", default=None, help="Only those that have ended, or not.")
@_queue
@_offset
@_limit
@_as_json
@click.pass_obj
def tasks(
    access: Access,
    status: str | None,
    finished: bool | None,
    queue: str | None,
    offset: int,
    limit: int,
    as_json: bool,
) -> None:
    """List tasks in the order in which they were sent."""
    if status is not None and finished is not None:
        raise click.UsageError("--status says already whether they have ended")
    wanted = None if status is None else TaskStatus(status)
    with access.client() as client:
        show.reports(client.find(wanted, finished, offset, limit, queue=queue), as_json)


@click.command(cls=Command)
@click.argument("task_id", metavar="ID")
@click.option("--reason", metavar="TEXT", help="Why; whoever waits for it is told.")
@_as_json
@click.pass_obj
def cancel(access: Access, task_id: str, reason: str | None, as_json: bool) -> None:
    """Cancel the task ID, whether it waits or runs."""
    with access.client() as client:
        asked = client.cancel(task_id, reason)
        found = _known(client, task_id)
    if not asked:
        raise Failure(f"task {task_id} has ended already: {found.status.value}", Exit.UNKNOWN)
    if as_json:
        show.document({"id": task_id, "status": found.status})
    elif found.finished:
        click.echo("cancelled")
    else:
        click.echo("its worker is asked to stop")


@click.command(cls=Command)
@click.argument("task_id", metavar="ID")
@_as_json
@click.pass_obj
def retry(access: Access, task_id: str, as_json: bool) -> None:
    """Send the task ID, which has failed, once more.

    It waits under its id, as if it were new."""
    with access.client() as client:
        handle = client.retry(task_id)
        if handle is None:
            found = _known(client, task_id)
            raise Failure(
                f"task {task_id} has not failed, or another has its unique key: it is"
                f" {found.status.value}",
                Exit.UNKNOWN,
            )
    if as_json:
        show.document({"id": task_id})
    else:
        click.echo("it waits again")


@click.command(cls=Command)
@_queue
@_offset
@_limit
@_as_json
@click.pass_obj
def dead(access: Access, queue: str | None, offset: int, limit: int, as_json: bool) -> None:
    """List the dead letters: tasks that have failed for good. See also: retry."""
    with access.client() as client:
        show.reports(client.dead(offset, limit, queue=queue), as_json)
