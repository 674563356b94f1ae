"""The command line: `python -m benchmarks local`."""

import sys
from pathlib import Path

import click
from rich.console import Console

from benchmarks import machine, record, rounds, table
from benchmarks.catalog import PEERS, SCENARIOS
from benchmarks.rounds import Plan
from benchmarks.summary import summarise

ROUNDS = 5
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
    sys.exit(measure(plan, json_path, plot_path))


def measure(plan: Plan, json_path: Path | None, plot_path: Path | None) -> int:
    """Run the plan and tell about it in every way that was asked for; the exit status."""
    console, errors = _console(), Console(stderr=True)
    facts = machine.facts()
    console.print(machine.line(facts), highlight=False)
    if warning := machine.noise():
        errors.print(warning, style="yellow", soft_wrap=True)
    runs = []
    for run in rounds.run(plan):
        runs.append(run)
        errors.print(table.describe(run), style="dim", soft_wrap=True)
    summary = summarise(plan, runs)
    table.show(console, summary)
    if json_path:
        record.write(json_path, facts, plan, runs, summary)
    if plot_path:
        from benchmarks import plot  # matplotlib takes long to import, and only a plot needs it

        plot.draw(plot_path, machine.line(facts), summary)
    return 1 if summary.failures else 0


def _console() -> Console:
    """Wide enough for the tables where there is no terminal that says how wide it is."""
    console = Console()
    return console if console.is_terminal else Console(width=PLAIN_WIDTH)


if __name__ == "__main__":
    cli(prog_name="python -m benchmarks")
