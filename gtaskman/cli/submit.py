"""``gtaskman submit``: send a task by its name, and wait for its result."""

from __future__ import annotations

import click

from gtaskman.cli import show
from gtaskman.cli.access import Access, Command
from gtaskman.cli.follow import follow
from gtaskman.cli.values import keywords_of, value_of
from gtaskman.terms import DEFAULT


@click.command(cls=Command)
@click.argument("name")
@click.argument("words", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--arg", "args", multiple=True, metavar="VALUE", help="An argument by its place.")
@click.option("--queue", default="default", show_default=True, metavar="NAME")
@click.option("--delay", type=click.FloatRange(0), default=0.0, metavar="SECONDS",
              help="How long it waits before it may begin.")  # fmt: skip
@click.option("--priority", type=click.IntRange(-100, 100), default=0, metavar="-100..100",
              help="The higher ones go first.")  # fmt: skip
@click.option("--kind", type=click.Choice(["sync", "async"]),
              help="Its kind, if no manager has served it yet: it is sent unchecked.")  # fmt: skip
@click.option("--wait/--no-wait", default=True, help="Wait for its result, or write its id.")
@click.option("--timeout", type=click.FloatRange(0), metavar="SECONDS",
              help="How long to wait for its result.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Write the result as JSON.")
@click.pass_obj
def submit(
    access: Access,
    name: str,
    words: tuple[str, ...],
    args: tuple[str, ...],
    queue: str,
    delay: float,
    priority: int,
    kind: str | None,
    wait: bool,
    timeout: float | None,
    as_json: bool,
) -> None:
    """Send the task NAME, with arguments, and write its result.

    A VALUE is JSON where it can be read as such, else a text: n=3, deep=true, sizes=[1,2],
    who=world. Some manager must have served a task of that name before, unless --kind is given.
    """
    keywords = keywords_of(words)
    terms = DEFAULT.replace(queue=queue, delay=delay, priority=priority)
    with access.client(queue) as client:
        if kind is None:
            handle = client.send_under(terms, name, *map(value_of, args), **keywords)
        else:
            handle = client.send_as(kind, terms, name, *map(value_of, args), **keywords)
        if wait:
            follow(handle, timeout, as_json)
        elif as_json:
            show.document({"id": handle.id})
        else:
            click.echo(handle.id)
