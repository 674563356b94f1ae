"""What is told in the terminal: who did what, and which targets were reached."""

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from benchmarks.catalog import PEERS, SCENARIOS
from benchmarks.rounds import Run
from benchmarks.summary import Spread, Standing, Summary, Verdict

COLOURS = {"reached": "green", "short": "red", "not measured": "yellow"}


def show(console: Console, summary: Summary) -> None:
    """Print the contestants, the targets, and what went wrong."""
    for name in dict.fromkeys(standing.scenario for standing in summary.standings):
        _show_scenario(console, name, summary.standings)
    console.print("\n[bold]targets[/bold]", _targets(summary.verdicts), sep="\n")
    console.print(f"\n{summary.checked:,} results checked, {len(summary.failures)} runs failed")
    for failure in summary.failures:
        console.print(f"[red]failed:[/red] {describe(failure)}", highlight=False, soft_wrap=True)


def describe(run: Run) -> str:
    """A run in one line, for whoever watches."""
    who = f"{run.scenario}, round {run.round + 1}, {PEERS[run.peer].label}"
    if run.error:
        return f"{who}: {run.error}"
    name, metric = next(iter(SCENARIOS[run.scenario].metrics.items()))
    return f"{who}: {metric.text(run.metrics[name])}"


def _show_scenario(console: Console, name: str, standings: list[Standing]) -> None:
    scenario = SCENARIOS[name]
    console.print(f"\n[bold]{name}[/bold]: {scenario.title}", highlight=False)
    if scenario.note:
        console.print(f"[dim]{scenario.note}[/dim]", highlight=False)
    console.print(_contestants([each for each in standings if each.scenario == name]))


def _contestants(standings: list[Standing]) -> Table:
    compared = len(standings) > 1
    table = Table(show_edge=False, header_style="dim")
    table.add_column("contestant", min_width=20)
    table.add_column("measured", min_width=20)
    table.add_column("median", justify="right", min_width=12)
    table.add_column("lowest to highest", justify="right", style="dim")
    table.add_column("gtaskman to it" if compared else "", justify="right")
    for standing in standings:
        for row in _rows(standing):
            table.add_row(*row)
    return table


def _rows(standing: Standing) -> Iterator[tuple[str, ...]]:
    """One row for each metric, and one that says why there are none or fewer."""
    label = PEERS[standing.peer].label
    ratio = f"{standing.ours_to_it:.2f}x" if standing.ours_to_it is not None else ""
    for name, spread in standing.metrics.items():
        yield (label, *_cells(standing.scenario, name, spread), ratio)
        label = ratio = ""
    if standing.status != "measured":
        yield (label, f"[yellow]{standing.status}[/yellow]")


def _cells(scenario: str, name: str, spread: Spread) -> tuple[str, str, str]:
    metric = SCENARIOS[scenario].metrics[name]
    span = f"{metric.number(spread.low)} to {metric.number(spread.high)}"
    return metric.label, metric.text(spread.median), span


def _targets(verdicts: list[Verdict]) -> Table:
    table = Table(show_edge=False, header_style="dim")
    for heading in ("scenario", "what", "target", "measured", ""):
        table.add_column(heading)
    for verdict in verdicts:
        metric = SCENARIOS[verdict.scenario].metrics[verdict.target.metric]
        measured = "" if verdict.measured is None else verdict.text(verdict.measured)
        colour = COLOURS[verdict.outcome]
        outcome = f"[{colour}]{verdict.outcome}[/{colour}]"
        table.add_row(verdict.scenario, metric.label, verdict.wanted, measured, outcome)
    return table
