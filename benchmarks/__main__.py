"""The command line: `python -m benchmarks local`, `redis`, `services`, `gunicorn` or `host`."""

import importlib
import sys
from collections.abc import Iterable
from pathlib import Path

import click
from rich.console import Console

from benchmarks import machine, record, table
from benchmarks.catalog import PEERS, SCENARIOS
from benchmarks.gunicorn import catalog as gunicorn_catalog
from benchmarks.gunicorn import rounds as gunicorn_rounds
from benchmarks.host import catalog as host_catalog
from benchmarks.redis import catalog as redis_catalog
from benchmarks.redis import rounds as redis_rounds
from benchmarks.redis import server as redis_server
from benchmarks.redis.environments import DEFAULT_DIRECTORY
from benchmarks.rounds import Plan, Run
from benchmarks.rounds import run as run_local
from benchmarks.services.command import services
from benchmarks.summary import summarise

ROUNDS = 5
REDIS_ROUNDS = 3
GUNICORN_ROUNDS = 3
QUICK_ROUNDS = 1
PLAIN_WIDTH = 110


class Names(click.ParamType[list[str]]):
    """A comma-separated choice of known names."""

    name = "NAME,..."

    def __init__(self, known: list[str]) -> None:
        self.known = known

    def convert(
        self,
        value: str | list[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> list[str]:
        chosen = value.split(",") if isinstance(value, str) else value
        for name in chosen:
            if name not in self.known:
                self.fail(f"{name!r} is none of {', '.join(self.known)}", param, ctx)
        return [name for name in self.known if name in chosen]


@click.group(help="Benchmarks of gtaskman and of what else one could use.")
def cli() -> None:
    pass


@cli.command()
@click.option("--rounds", type=click.IntRange(min=1), help=f"How many rounds. [{ROUNDS}]")
@click.option("--seconds", type=click.FloatRange(min=0.2), help="Computing time of cpu, a round.")
@click.option("--quick", is_flag=True, help="Smaller sizes; one round unless --rounds says more.")
@click.option("--only", type=Names(list(SCENARIOS)), help="These scenarios.")
@click.option("--peers", type=Names(list(PEERS)), help="These contestants.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write all numbers.")
@click.option("--plot", "plot_path", type=click.Path(path_type=Path), help="Draw a PNG.")
def local(
    rounds: int | None,
    seconds: float | None,
    quick: bool,
    only: list[str] | None,
    peers: list[str] | None,
    json_path: Path | None,
    plot_path: Path | None,
) -> None:
    """Measure on this machine, in one process tree, without any server.

    Exit status 0: all results were right, whatever the targets say. 1: one was wrong or missing.
    """
    plan = Plan(
        scenarios=only or list(SCENARIOS),
        peers=peers or list(PEERS),
        rounds=rounds or (QUICK_ROUNDS if quick else ROUNDS),
        quick=quick,
        seconds=seconds,
    )
    steps = run_local(plan)
    sys.exit(measure(plan, machine.facts(), steps, json_path, plot_path, "plot"))


@cli.command()
@click.option("--rounds", type=click.IntRange(min=1), help=f"How many rounds. [{REDIS_ROUNDS}]")
@click.option("--quick", is_flag=True, help="Smaller sizes; one round unless --rounds says more.")
@click.option("--only", type=Names(list(redis_catalog.SCENARIOS)), help="These scenarios.")
@click.option("--peers", type=Names(list(redis_catalog.PEERS)), help="These contestants.")
@click.option(
    "--venvs",
    type=click.Path(path_type=Path),
    default=DEFAULT_DIRECTORY,
    help=f"Where the peers are installed, once. [{DEFAULT_DIRECTORY}]",
)
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write all numbers.")
@click.option("--plot", "plot_path", type=click.Path(path_type=Path), help="Draw a PNG.")
def redis(
    rounds: int | None,
    quick: bool,
    only: list[str] | None,
    peers: list[str] | None,
    venvs: Path,
    json_path: Path | None,
    plot_path: Path | None,
) -> None:
    """Measure over a private Redis server, beside Celery, RQ, Dramatiq, Huey, arq and taskiq.

    Each peer is installed into a virtual environment of its own, which the next run finds again.

    Exit status 0: all results were right, whatever the targets say. 1: one was wrong or missing,
    or a peer could not be installed.
    """
    plan = Plan(
        scenarios=only or list(redis_catalog.SCENARIOS),
        peers=peers or list(redis_catalog.PEERS),
        rounds=rounds or (QUICK_ROUNDS if quick else REDIS_ROUNDS),
        quick=quick,
    )
    redis_catalog.enter()
    interpreters = redis_rounds.Environments(venvs.absolute())
    facts = machine.facts() | {
        "server": redis_server.version(),
        "environments": interpreters.versions(plan.peers),
    }
    runs = redis_rounds.run(plan, interpreters)
    sys.exit(measure(plan, facts, runs, json_path, plot_path, "redis.plot"))


@cli.command()
@click.option("--rounds", type=click.IntRange(min=1), help=f"How many rounds. [{GUNICORN_ROUNDS}]")
@click.option("--quick", is_flag=True, help="Smaller sizes; one round unless --rounds says more.")
@click.option("--only", type=Names(list(gunicorn_catalog.SCENARIOS)), help="These scenarios.")
@click.option("--peers", type=Names(list(gunicorn_catalog.PEERS)), help="These contestants.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write all numbers.")
def gunicorn(
    rounds: int | None,
    quick: bool,
    only: list[str] | None,
    peers: list[str] | None,
    json_path: Path | None,
) -> None:
    """Measure a Flask site under gunicorn's gevent workers that hashes passwords, beside the same
    site that hashes in its requests.

    Exit status 0: all answers were right, whatever the targets say. 1: one was wrong or missing.
    """
    plan = Plan(
        scenarios=only or list(gunicorn_catalog.SCENARIOS),
        peers=peers or list(gunicorn_catalog.PEERS),
        rounds=rounds or (QUICK_ROUNDS if quick else GUNICORN_ROUNDS),
        quick=quick,
    )
    gunicorn_catalog.enter()
    runs = gunicorn_rounds.run(plan)
    sys.exit(measure(plan, machine.facts(), runs, json_path, None, ""))


@cli.command()
@click.option("--rounds", type=click.IntRange(min=1), help=f"How many rounds. [{ROUNDS}]")
@click.option("--quick", is_flag=True, help="Smaller sizes; one round unless --rounds says more.")
@click.option("--only", type=Names(list(host_catalog.SCENARIOS)), help="These scenarios.")
@click.option("--peers", type=Names(list(host_catalog.PEERS)), help="These contestants.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write all numbers.")
def host(
    rounds: int | None,
    quick: bool,
    only: list[str] | None,
    peers: list[str] | None,
    json_path: Path | None,
) -> None:
    """Measure a manager that a host shares, over its Unix socket, beside an embedded one.

    Exit status 0: all results were right, whatever the targets say. 1: one was wrong or missing.
    """
    plan = Plan(
        scenarios=only or list(host_catalog.SCENARIOS),
        peers=peers or list(host_catalog.PEERS),
        rounds=rounds or (QUICK_ROUNDS if quick else ROUNDS),
        quick=quick,
    )
    host_catalog.enter()
    runs = run_local(plan, "benchmarks.host.contestant")
    sys.exit(measure(plan, machine.facts(), runs, json_path, None, ""))


cli.add_command(services)


def measure(
    plan: Plan,
    facts: dict[str, object],
    steps: Iterable[Run],
    json_path: Path | None,
    plot_path: Path | None,
    plotter: str,
) -> int:
    """Run the steps and tell about them in every way that was asked for; the exit status."""
    console, errors = _console(), Console(stderr=True)
    console.print(machine.line(facts), highlight=False)
    if warning := machine.noise():
        errors.print(warning, style="yellow", soft_wrap=True)
    runs = []
    for run in steps:
        runs.append(run)
        errors.print(table.describe(run), style="dim", soft_wrap=True)
    summary = summarise(plan, runs)
    table.show(console, summary)
    if json_path:
        record.write(json_path, facts, plan, runs, summary)
    if plot_path:
        # matplotlib takes long to import, and only a plot needs it
        importlib.import_module(f"benchmarks.{plotter}").draw(
            plot_path, machine.line(facts), summary
        )
    return 1 if summary.failures else 0


def _console() -> Console:
    """Wide enough for the tables where there is no terminal that says how wide it is."""
    console = Console()
    return console if console.is_terminal else Console(width=PLAIN_WIDTH)


if __name__ == "__main__":
    cli(prog_name="python -m benchmarks")
