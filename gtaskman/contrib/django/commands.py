"""``manage.py gtaskman``: the commands of ``gtaskman``, with the URL and settings of the site.

They are those of :mod:`gtaskman.cli`, imported when one is called.
"""

from __future__ import annotations

import copy
import functools
import importlib
import os
from typing import Any

import click

from gtaskman.contrib.django.settings import SITE, default_place, queues

# What the site says itself: what is served, and that patching comes before Django is imported.
_SAID = {"application": f"{SITE}:configuration", "monkey": False}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return _main().list_commands(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        found = _main().get_command(ctx, cmd_name)
        return _serving(found) if found is not None and cmd_name == "run" else found


commands = _Commands(
    "gtaskman",
    help="Run tasks of this site, send some, and see how they stand.\n\nThe server is named by"
    " 'url' in the setting GTASKMAN (or in OPTIONS of TASKS), by --url, or by the environment"
    " variable GTASKMAN_URL.",
)


def main(words: list[str], program: str, *, standalone: bool = True) -> Any:
    """Call a command of ``gtaskman``; ``words`` are what follows its name on the command line."""
    place = default_place()
    if not place.is_embedded:
        os.environ["GTASKMAN_URL"] = place.url
    served = ",".join(queues())
    return commands.main(
        words,
        program,
        standalone_mode=standalone,
        default_map={"run": {"queues": served}} if served else None,
    )


def _main() -> click.Group:
    found: click.Group = importlib.import_module("gtaskman.cli.main").main
    return found


def _serving(run: click.Command) -> click.Command:
    """``run`` for the site, instead of for a module that is named."""
    assert run.callback is not None
    found = copy.copy(run)
    found.params = [each for each in run.params if each.name not in _SAID]
    found.help = (
        "Serve the tasks of this site until told to stop.\n\nThose in the modules 'tasks' of its"
        " applications, and in modules that 'preload' names. What the options leave open is as its"
        " settings say.\n\n" + "\n\n".join((run.help or "").split("\n\n")[2:])
    )
    found.callback = functools.partial(run.callback, **_SAID)
    return found
