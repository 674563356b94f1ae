"""``flask gtaskman``: the commands of ``gtaskman``, with the URL and settings of the application.

They are those of :mod:`gtaskman.cli`, imported when one is called.
"""

from __future__ import annotations

import copy
import functools
import importlib
import inspect
import os
from typing import Any

import click
from flask import Flask
from flask.cli import ScriptInfo

from gtaskman.config import Configuration
from gtaskman.contrib.flask.settings import APP, URL, Settings
from gtaskman.errors import ConfigurationError
from gtaskman.task import registry

_CONFIGURATION = f"{__name__}:configuration"
_APPLICATION = "application"  # the argument of `run` that says what to serve


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return _main().list_commands(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        found = _main().get_command(ctx, cmd_name)
        if found is None:
            return None
        url = _info(ctx).load_app().config.get(URL)
        if url:
            found = _going_to(url, found)
        return _serving(found) if cmd_name == "run" else found


commands = _Commands(
    "gtaskman",
    short_help="Run tasks, send some, and see how they stand.",
    help="Run tasks of this application, send some, and see how they stand.\n\n"
    "The server is named by GTASKMAN_URL in the application's configuration, by --url, or by the"
    " environment variable GTASKMAN_URL.",
)


def _main() -> click.Group:
    main: click.Group = importlib.import_module("gtaskman.cli.main").main
    return main


def _info(ctx: click.Context) -> ScriptInfo:
    """What the ``flask`` command knows of the application, which it has loaded by now."""
    found = ctx.find_object(ScriptInfo)
    assert found is not None, "this is a command of flask"
    return found


# --- the commands as they are for an application -------------------------------------------------


def _going_to(url: str, command: click.Command) -> click.Command:
    """The command, with the application's URL instead of the environment's."""
    found = copy.copy(command)
    found.params = [_set_to(url, each) if each.name == "url" else each for each in command.params]
    return found


def _set_to(value: str, option: click.Parameter) -> click.Parameter:
    found = copy.copy(option)
    found.default, found.envvar = value, None
    return found


def _serving(run: click.Command) -> click.Command:
    """``run`` for the application, instead of for a module that is named."""
    assert run.callback is not None
    found = copy.copy(run)
    found.params = [each for each in run.params if each.name != _APPLICATION]
    _, _, signals = inspect.cleandoc(run.help or "").partition("\b")
    found.help = (
        "Serve the tasks of this application until told to stop.\n\nWhat the options leave open is"
        f" as its GTASKMAN_* settings say.\n\n\b{signals}"
    )
    found.callback = functools.partial(_serve, run.callback)
    return found


# --- serving -------------------------------------------------------------------------------------


def _serve(run: Any, **options: Any) -> Any:
    _prepare(_info(click.get_current_context()))
    return run(**{_APPLICATION: _CONFIGURATION}, **options)


def _prepare(info: ScriptInfo) -> None:
    """Know all tasks, and have each run inside the context."""
    app = info.load_app()
    # The workers look for the application there, unless the extension says where it is.
    os.environ.setdefault(APP, info.app_import_path or app.import_name)
    for module in Settings.of(app).config.preload:
        importlib.import_module(module)
    _contain(app)


def _contain(app: Flask) -> None:
    served = {name: each for name, each in registry.items() if each.kind != "service"}
    if not served:
        raise ConfigurationError(
            f"the application {app.name!r} imports no module that defines a task: name those that"
            " do in GTASKMAN_PRELOAD"
        )
    for name, known in served.items():
        registry[name] = app.extensions["gtaskman"].contained(known)


def configuration() -> Configuration:
    """The configuration of the application that the ``flask`` command serves."""
    return Settings.of(_info(click.get_current_context()).load_app()).config
