"""``python -m benchmarks services``: measure, show, write."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from benchmarks import machine
from benchmarks.services.figures import FIGURES, Figure


@click.command()
@click.option("--quick", is_flag=True, help="Smaller sizes.")
@click.option("--only", type=click.Choice(list(FIGURES)), multiple=True, help="These figures.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write all numbers.")
def services(quick: bool, only: tuple[str, ...], json_path: Path | None) -> None:
    """Measure services: restarts, calls, a hundred of them, reloads under load.

    Exit status 0: all answers were right, whatever the targets say. 1: one was wrong, or a request
    was lost.
    """
    facts = machine.facts()
    print(machine.line(facts))
    if warning := machine.noise():
        print(warning, file=sys.stderr)
    figures = [
        figure
        for name, measure in FIGURES.items()
        if not only or name in only
        for figure in measure(quick)
    ]
    _show(figures)
    if json_path:
        found = [{**asdict(each), "reached": each.reached} for each in figures]
        document = {"machine": facts, "quick": quick, "figures": found}
        json_path.write_text(json.dumps(document, indent=2) + "\n")
    lost = [each for each in figures if each.name.startswith("requests lost") and each.value]
    sys.exit(1 if lost else 0)


def _show(figures: list[Figure]) -> None:
    table = Table(show_edge=False, header_style="dim")
    for title, justify in (("figure", "left"), ("measured", "right"), ("target", "right")):
        table.add_column(title, justify=justify)  # type: ignore[arg-type] # a literal
    table.add_column("")
    for each in figures:
        sign = "at least" if each.at_least else "at most"
        target = f"{sign} {each.target:,g} {each.unit}" if each.target is not None else ""
        word = {None: "", True: "reached", False: "short"}[each.reached]
        table.add_row(each.name, f"{each.value:,.4g} {each.unit}", target, word)
    console = Console()
    (console if console.is_terminal else Console(width=110)).print(table)
