"""The run as one picture: a panel for each scenario with peers, all on a logarithmic scale.

Bars cannot stand on such a scale, so each contestant is a dot, with the spread of its rounds.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # before pyplot: no window system is needed to write a file

from matplotlib import pyplot
from matplotlib.axes import Axes

from benchmarks.catalog import OURS, PEERS, SCENARIOS
from benchmarks.redis.catalog import BARE
from benchmarks.summary import Standing, Summary

COLOURS = {OURS: "#2a7f62", BARE: "#8cc0ad"}
PEER_COLOUR, MISSING_COLOUR = "#7d8893", "#9aa0a6"
COLUMNS = 2


def draw(path: Path, machine: str, summary: Summary) -> None:
    """Write the picture of a run to `path`, as PNG."""
    names = list(dict.fromkeys(each.scenario for each in summary.standings))
    panels = {name: [each for each in summary.standings if each.scenario == name] for name in names}
    compared = {name: panel for name, panel in panels.items() if len(panel) > 1} or panels
    rows = -(-len(compared) // COLUMNS)
    figure, grid = pyplot.subplots(
        rows, COLUMNS, figsize=(14, 1.2 + 3.0 * rows), squeeze=False, layout="constrained"
    )
    for axes in grid.flat:
        axes.set_visible(False)
    for axes, (name, panel) in zip(grid.flat, compared.items(), strict=False):
        _draw_panel(axes, name, panel)
    figure.suptitle(f"gtaskman and its peers over Redis, 2 worker processes, medians\n{machine}")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _draw_panel(axes: Axes, name: str, panel: list[Standing]) -> None:
    metric, about = next(iter(SCENARIOS[name].metrics.items()))
    axes.set_visible(True)
    axes.set_yticks(range(len(panel)), [PEERS[standing.peer].label for standing in panel])
    axes.set_ylim(len(panel) - 0.4, -0.6)
    axes.set_title(f"{name}: {SCENARIOS[name].title}", fontsize=10)
    better = "to the right: better" if about.higher_is_better else "to the left: better"
    axes.set_xlabel(f"{about.label} ({about.unit}); {better}", fontsize=9)
    axes.grid(axis="both", color="#e6e6e6")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlim(*_limits(metric, panel))
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    for place, standing in enumerate(panel):
        _draw_dot(axes, place, metric, standing)


def _limits(metric: str, panel: list[Standing]) -> tuple[float, float]:
    """From below the lowest to far enough above the highest for the words beside it."""
    spreads = [standing.metrics[metric] for standing in panel if metric in standing.metrics]
    lowest = min((spread.low for spread in spreads if spread.low > 0), default=1.0)
    highest = max((spread.high for spread in spreads), default=1.0)
    return lowest / 2, max(highest, lowest) * 2 * max(highest / lowest, 2) ** 0.6


def _draw_dot(axes: Axes, place: int, metric: str, standing: Standing) -> None:
    spread = standing.metrics.get(metric)
    left, _ = axes.get_xlim()
    if spread is None:
        axes.text(left * 1.1, place, standing.status, va="center", color=MISSING_COLOUR, fontsize=9)
        return
    colour = COLOURS.get(standing.peer, PEER_COLOUR)
    where = max(spread.median, left)  # nothing at all has no place on this scale
    axes.hlines(place, max(spread.low, left), max(spread.high, left), color=colour, linewidth=2)
    axes.plot(where, place, "o", color=colour, markersize=8)
    about = SCENARIOS[standing.scenario].metrics[metric]
    ratio = f"  (gtaskman {standing.ours_to_it:.2g}x)" if standing.ours_to_it else ""
    axes.annotate(
        f"{about.number(spread.median)}{ratio}",
        (max(spread.high, where), place),
        xytext=(8, 0),
        textcoords="offset points",
        va="center",
        fontsize=9,
    )
