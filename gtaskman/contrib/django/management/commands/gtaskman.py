"""``manage.py gtaskman``: see :mod:`gtaskman.contrib.django.commands`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import click
from django.core.management.base import BaseCommand, CommandError

from gtaskman.contrib.django import commands
from gtaskman.errors import GTaskmanError


class Command(BaseCommand):
    """All that comes after its name is for the commands of gtaskman."""

    help = "Run tasks of this site, send some, and see how they stand."

    def run_from_argv(self, argv: list[str]) -> None:
        """From the command line: exit codes are those of ``gtaskman``."""
        try:
            commands.main(_without_django(argv[2:]), f"{Path(argv[0]).name} {argv[1]}")
        except GTaskmanError as error:
            self.stderr.write(f"gtaskman: {error}")
            raise SystemExit(2) from None

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """For ``call_command``: words as on the command line."""
        parser.add_argument("words", nargs=argparse.REMAINDER)

    def handle(self, *_args: Any, words: list[str], **_options: Any) -> None:
        """Called by ``call_command``. Raises ``CommandError``."""
        try:
            code = commands.main(words, "manage.py gtaskman", standalone=False)
        except click.ClickException as error:
            raise CommandError(error.format_message(), returncode=error.exit_code) from error
        except GTaskmanError as error:
            raise CommandError(str(error), returncode=2) from error
        if isinstance(code, int) and code:
            raise CommandError(f"gtaskman has ended with the exit code {code}", returncode=code)


def _without_django(words: list[str]) -> list[str]:
    """Without the two options that all commands of Django have, and that it has heeded by now."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--settings")
    parser.add_argument("--pythonpath")
    return parser.parse_known_args(words)[1]
