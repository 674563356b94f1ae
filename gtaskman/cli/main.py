"""``gtaskman``: one group of commands. Each is in the module of the noun that it is about."""

from __future__ import annotations

import importlib

import click

from gtaskman._version import __version__

# In which module each is: whoever only sends and asks does without all that runs tasks.
_HOMES = {
    "run": "run",
    "submit": "submit",
    "status": "tasks",
    "tasks": "tasks",
    "cancel": "tasks",
    "retry": "tasks",
    "dead": "tasks",
    "stats": "queues",
    "pause": "queues",
    "resume": "queues",
    "services": "services",
}
_EPILOG = """\b
Exit codes: 0 done; 1 it failed; 2 the command line or a configuration is wrong;
3 the server is away; 4 the task was cancelled; 5 the wait is over; 6 no such task."""

_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_HOMES)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002 - likewise
        cmd_name: str,
    ) -> click.Command | None:
        home = _HOMES.get(cmd_name)
        if home is None:
            return None
        found: click.Command = getattr(importlib.import_module(f"gtaskman.cli.{home}"), cmd_name)
        return found


@click.group(cls=_Commands, epilog=_EPILOG, context_settings=_SETTINGS)
@click.version_option(__version__, prog_name="gtaskman")
def main() -> None:
    """Run tasks, send some, and see how they stand; keep services alive.

    Where they wait is named by --url, or by the environment variable GTASKMAN_URL: a Redis or
    Valkey server, or the Unix socket of a manager on this host.
    """
