"""The command line: ``python -m tests.extras [EXTRA...] [--pip]``."""

from __future__ import annotations

import sys
import tempfile
import time
import traceback
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS)]

import click  # noqa: E402 - the path comes first

from extras.catalog import CATALOG, Check  # noqa: E402 - likewise
from extras.environment import Environment, wheel  # noqa: E402 - likewise
from extras.room import Room  # noqa: E402 - likewise


@click.command(help=__doc__)
@click.argument("names", nargs=-1, metavar="[EXTRA]...")
@click.option(
    "--pip", is_flag=True, help="Install a wheel by pip, instead of linking what is here."
)
def main(names: tuple[str, ...], pip: bool) -> None:
    unknown = [name for name in names if name not in (*CATALOG, "none")]
    if unknown:
        raise click.BadParameter(
            f"{unknown[0]!r}: choose from none, {', '.join(filter(None, CATALOG))}"
        )
    failed = 0
    with tempfile.TemporaryDirectory(prefix="gtaskman-extras-") as place:
        made = wheel(Path(place)) if pip else None
        for number, (extras, checks) in enumerate(CATALOG.items()):
            if not names or (extras or "none") in names:
                failed += _try(Path(place) / str(number), extras, checks, made)
    sys.exit(bool(failed))


def _try(directory: Path, extras: str, checks: list[Check], made: Path | None) -> int:
    """Run the checks of one set of extras; gives how many of them failed."""
    named = list(filter(None, extras.split(",")))
    begin = time.monotonic()
    if made is None:
        environment = Environment.linked(directory / "venv", named)
    else:
        environment = Environment.installed(directory / "venv", named, made)
    click.echo(f"[{extras}]: an environment after {time.monotonic() - begin:.1f} s")
    return sum(not _holds(directory / check.__name__, environment, check) for check in checks)


def _holds(directory: Path, environment: Environment, check: Check) -> bool:
    directory.mkdir()
    begin = time.monotonic()
    try:
        check(Room(directory, environment))
    except Exception:
        click.echo(f"  {check.__name__}: FAILED\n{traceback.format_exc()}")
        return False
    click.echo(f"  {check.__name__}: holds, {time.monotonic() - begin:.1f} s")
    return True


if __name__ == "__main__":
    main()
