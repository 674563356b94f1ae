"""The run as one picture: above who is how fast, below how far each target is met."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # before pyplot: no window system is needed to write a file

from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure
from matplotlib.ticker import MaxNLocator

from benchmarks.catalog import OURS, PEERS, SCENARIOS
from benchmarks.summary import Standing, Summary, Verdict

COLOURS = {OURS: "#2a7f62", "declared": "#8cc0ad"}
PEER_COLOUR = "#b8c0c8"
REACHED_COLOUR, SHORT_COLOUR, MISSING_COLOUR = "#2a7f62", "#c8553d", "#9aa0a6"
COMPARED = ("burst", "round_trips", "mapping")
FARTHEST = 16.0  # margins beyond are drawn here, so that one of them does not squeeze the rest


def draw(path: Path, machine: str, summary: Summary) -> None:
    """Write the picture of a run to `path`, as PNG."""
    compared = [name for name in COMPARED if _standings(name, summary)]
    figure = pyplot.figure(figsize=(14, 4.6 + 0.42 * len(summary.verdicts)), layout="constrained")
    grid = figure.add_gridspec(2, 1, height_ratios=[3.6, 1 + 0.42 * len(summary.verdicts)])
    _draw_rates(figure.add_subfigure(grid[0]), compared, summary)
    _draw_targets(figure.add_subfigure(grid[1]), summary.verdicts)
    figure.suptitle(f"gtaskman and its peers, 2 workers, medians\n{machine}", fontsize=11)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _standings(name: str, summary: Summary) -> list[Standing]:
    return [each for each in summary.standings if each.scenario == name]


def _draw_rates(figure: SubFigure, names: list[str], summary: Summary) -> None:
    if not names:
        return
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        _draw_bars(axes, name, _standings(name, summary))


def _draw_bars(axes: Axes, name: str, standings: list[Standing]) -> None:
    """One bar for each contestant, with the whole spread of the rounds as its whisker."""
    metric, about = next(iter(SCENARIOS[name].metrics.items()))
    labels = [PEERS[standing.peer].label for standing in standings]
    axes.set_yticks(range(len(standings)), labels)
    axes.set_ylim(len(standings) - 0.4, -0.6)
    axes.set_title(SCENARIOS[name].title, fontsize=10)
    axes.set_xlabel(f"{about.label} per second")
    axes.margins(x=1.05)  # room for the numbers beside the bars
    axes.xaxis.set_major_formatter(lambda value, _: _short(value))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.spines[["top", "right"]].set_visible(False)
    for place, standing in enumerate(standings):
        _draw_bar(axes, place, metric, standing)


def _short(value: float) -> str:
    if value >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value / 1e3:g}k" if value else "0"


def _draw_bar(axes: Axes, place: int, metric: str, standing: Standing) -> None:
    spread = standing.metrics.get(metric)
    if spread is None:
        axes.text(0, place, f"  {standing.status}", va="center", color=MISSING_COLOUR)
        return
    whisker = [[spread.median - spread.low], [spread.high - spread.median]]
    colour = COLOURS.get(standing.peer, PEER_COLOUR)
    axes.barh(place, spread.median, 0.62, xerr=whisker, color=colour, ecolor="#555555")
    ratio = f"  (gtaskman {standing.ours_to_it:.1f}x)" if standing.ours_to_it else ""
    axes.annotate(
        f"{spread.median:,.0f}{ratio}",
        (spread.high, place),
        xytext=(5, 0),
        textcoords="offset points",
        va="center",
        fontsize=9,
    )


def _draw_targets(figure: SubFigure, verdicts: list[Verdict]) -> None:
    """One dot for each target on a common scale: at the line it is just reached."""
    axes = figure.subplots()
    axes.set_xscale("log", base=2)
    axes.set_xlim(1 / FARTHEST, FARTHEST)
    axes.set_ylim(len(verdicts) - 0.4, -0.6)
    axes.set_yticks(range(len(verdicts)), [_name(verdict) for verdict in verdicts], fontsize=9)
    axes.axvline(1, color="#333333", linewidth=1.2)
    axes.axvspan(1, FARTHEST, color=REACHED_COLOUR, alpha=0.06)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}x")
    axes.set_xlabel("how far the target is met (1x: just reached; to the right: better)")
    axes.grid(axis="y", color="#e6e6e6")
    axes.spines[["top", "right"]].set_visible(False)
    for place, verdict in enumerate(verdicts):
        _draw_verdict(axes, place, verdict)


def _name(verdict: Verdict) -> str:
    about = SCENARIOS[verdict.scenario].metrics[verdict.target.metric]
    return f"{verdict.scenario}: {about.label} {verdict.wanted}"


def _draw_verdict(axes: Axes, place: int, verdict: Verdict) -> None:
    if verdict.measured is None:
        axes.annotate(
            verdict.outcome,
            (1, place),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            color=MISSING_COLOUR,
        )
        return
    colour = REACHED_COLOUR if verdict.outcome == "reached" else SHORT_COLOUR
    where = min(max(verdict.margin, 1.05 / FARTHEST), FARTHEST / 1.05)
    axes.hlines(place, min(1, where), max(1, where), color=colour, linewidth=2.5)
    axes.plot(where, place, "o", color=colour, markersize=8)
    _draw_value(axes, place, where, verdict, colour)


def _draw_value(axes: Axes, place: int, where: float, verdict: Verdict, colour: str) -> None:
    """The measured value beyond the dot, or above its line where the picture ends."""
    reached = verdict.outcome == "reached"
    outward = 1 if reached else -1
    at_edge = max(where, 1 / where) > FARTHEST / 2
    axes.annotate(
        verdict.text(verdict.measured or 0) + ("" if reached else ", short"),
        (where, place),
        xytext=(-9 * outward, 9) if at_edge else (9 * outward, 0),
        textcoords="offset points",
        ha="left" if reached != at_edge else "right",
        va="center",
        color=colour,
        fontsize=9,
    )
