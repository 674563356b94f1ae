"""The run as JSON: machine, options, raw numbers of every round, and what was made of them."""

import json
from dataclasses import asdict
from pathlib import Path

from benchmarks.catalog import SCENARIOS
from benchmarks.rounds import Plan, Run
from benchmarks.summary import Standing, Summary, Verdict

FORMAT = 1


def write(
    path: Path, machine: dict[str, object], plan: Plan, runs: list[Run], summary: Summary
) -> None:
    """Write everything that is known to `path`."""
    document = {
        "format": FORMAT,
        "machine": machine,
        "plan": asdict(plan),
        "scenarios": {name: _scenario(name, plan, summary.standings) for name in plan.scenarios},
        "targets": [_target(verdict) for verdict in summary.verdicts],
        "checked": summary.checked,
        "failures": [asdict(run) for run in summary.failures],
        "runs": [asdict(run) for run in runs],
    }
    path.write_text(json.dumps(document, indent=2) + "\n")


def _scenario(name: str, plan: Plan, standings: list[Standing]) -> dict[str, object]:
    return {
        "title": SCENARIOS[name].title,
        "size": plan.size(name),
        "contestants": {
            standing.peer: {
                "status": standing.status,
                "metrics": {key: asdict(spread) for key, spread in standing.metrics.items()},
                "gtaskman_to_it": standing.ours_to_it,
            }
            for standing in standings
            if standing.scenario == name
        },
    }


def _target(verdict: Verdict) -> dict[str, object]:
    return {
        "scenario": verdict.scenario,
        **asdict(verdict.target),
        "wanted": verdict.wanted,
        "measured": verdict.measured,
        "outcome": verdict.outcome,
    }
