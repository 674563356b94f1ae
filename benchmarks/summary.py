"""Medians, ratios and targets, computed from the raw runs.

A ratio is taken within a round, where both sides ran within seconds of each other, and the
median of those ratios is what counts; a ratio of two medians would mix fast and slow minutes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.catalog import OURS, PEERS, SCENARIOS, Target
from benchmarks.rounds import Plan, Run, missing_package


@dataclass(frozen=True)
class Spread:
    """The median of one metric over the rounds, and the lowest and highest of them."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Standing:
    """How a contestant came out of a scenario."""

    scenario: str
    peer: str
    status: str
    metrics: dict[str, Spread]
    ours_to_it: float | None = None


@dataclass(frozen=True)
class Verdict:
    """A target beside what was measured; `measured` is None when nothing was."""

    scenario: str
    target: Target
    measured: float | None

    @property
    def at_least(self) -> bool:
        """Whether the target is a lower bound."""
        metric = SCENARIOS[self.scenario].metrics[self.target.metric]
        return metric.higher_is_better

    @property
    def outcome(self) -> str:
        if self.measured is None:
            return "not measured"
        return "reached" if self.margin >= 1 else "short"

    @property
    def margin(self) -> float:
        """How far the target is met: 1 is just so, 2 twice as well, 0.5 half of it."""
        if self.measured is None:
            raise ValueError("nothing was measured")
        bound = self.target.bound
        measured = max(self.measured, 1e-9)
        return measured / bound if self.at_least else bound / measured

    @property
    def wanted(self) -> str:
        """The target in words, such as `>= 8x ProcessPoolExecutor`."""
        sign = ">=" if self.at_least else "<="
        if self.target.against:
            return f"{sign} {self.target.bound:g}x {PEERS[self.target.against].label}"
        return f"{sign} {self.text(self.target.bound)}"

    def text(self, value: float) -> str:
        """A value of the target's kind, with its unit."""
        if self.target.against:
            return f"{value:.2f}x"
        return SCENARIOS[self.scenario].metrics[self.target.metric].text(value)


@dataclass(frozen=True)
class Summary:
    """Everything that is told at the end."""

    standings: list[Standing]
    verdicts: list[Verdict]
    failures: list[Run]
    checked: int


def summarise(plan: Plan, runs: Sequence[Run]) -> Summary:
    """Turn raw runs into what is told about them."""
    standings = [
        _standing(name, peer, runs) for name in plan.scenarios for peer in plan.contestants(name)
    ]
    verdicts = [
        Verdict(name, target, _measured(name, target, runs))
        for name in plan.scenarios
        for target in SCENARIOS[name].targets
    ]
    failures = [run for run in runs if run.error is not None]
    return Summary(standings, verdicts, failures, sum(run.checked for run in runs))


def _standing(name: str, peer: str, runs: Sequence[Run]) -> Standing:
    main = next(iter(SCENARIOS[name].metrics))
    metrics = {metric: _values(name, peer, metric, runs) for metric in SCENARIOS[name].metrics}
    return Standing(
        scenario=name,
        peer=peer,
        status=_status(name, peer, runs),
        metrics={metric: _spread(values) for metric, values in metrics.items() if values},
        ours_to_it=None if peer == OURS else _ratio(name, main, peer, runs),
    )


def _status(name: str, peer: str, runs: Sequence[Run]) -> str:
    if package := missing_package(peer):
        return f"not installed ({package})"
    mine = [run for run in runs if (run.scenario, run.peer) == (name, peer)]
    failed = sum(run.error is not None for run in mine)
    return f"failed in {failed} of {len(mine)} rounds" if failed else "measured"


def _values(name: str, peer: str, metric: str, runs: Sequence[Run]) -> dict[int, float]:
    """A metric by the number of the round."""
    return {
        run.round: run.metrics[metric]
        for run in runs
        if (run.scenario, run.peer) == (name, peer) and metric in run.metrics
    }


def _spread(values: dict[int, float]) -> Spread:
    return Spread(median(values.values()), min(values.values()), max(values.values()))


def _ratio(name: str, metric: str, peer: str, runs: Sequence[Run]) -> float | None:
    ours, its = _values(name, OURS, metric, runs), _values(name, peer, metric, runs)
    ratios = [ours[number] / its[number] for number in ours.keys() & its.keys()]
    return median(ratios) if ratios else None


def _measured(name: str, target: Target, runs: Sequence[Run]) -> float | None:
    if target.against:
        return _ratio(name, target.metric, target.against, runs)
    values = _values(name, OURS, target.metric, runs)
    return median(values.values()) if values else None
