"""Counting the calls of a clean run, and running the scenario once for each that may fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.faults.faults import CALLS, COUNTS, TEMPLATE, Fault

ROOT = Path(__file__).resolve().parents[2]
LONGEST = 120.0  # seconds after which a run hangs
START_METHODS = ("zygote", "fork")
# The calls of a template that may fail.
IN_TEMPLATE = ("fork", "pidfd_open", "recvmsg", "descriptors")


class Run(NamedTuple):
    """How one run went: what was wrong, what it printed, which calls were made."""

    wrong: list[str]
    output: str
    counts: dict[str, int]
    counts_in_template: dict[str, int]


def run(start_method: str, fault: Fault | None = None, mutant: str | None = None) -> Run:
    """Run the scenario in a fresh process."""
    spec = json.dumps({"start_method": start_method, "fault": fault, "mutant": mutant})
    with tempfile.TemporaryDirectory() as directory:
        counts = Path(directory, "counts")
        env = {**os.environ, COUNTS: str(counts)}
        if fault is not None and fault.in_template:
            env[TEMPLATE] = json.dumps(fault)
        try:
            done = subprocess.run(
                [sys.executable, "-m", "tests.faults.scenario", spec],
                cwd=ROOT,
                env=env,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=LONGEST,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            output = (error.output or b"").decode(errors="replace")
            return Run([f"hangs for {LONGEST:.0f} s"], output, {}, {})
        told = _last_line(done.stdout)
        in_template = json.loads(counts.read_text()) if counts.exists() else {}
        return Run(told["wrong"], done.stdout, told["counts"], in_template)


def _last_line(output: str) -> dict[str, Any]:
    try:
        return dict(json.loads(output.splitlines()[-1]))
    except (IndexError, ValueError):
        return {"wrong": ["it has died"], "counts": {}}


def faults(start_method: str, clean: Run) -> Iterator[Fault]:
    """Every fault that a clean run gives occasion for."""
    for call, (_, _, ways) in CALLS.items():
        for how in ways:
            for at in range(1, clean.counts.get(call, 0) + 1):
                yield Fault(call, how, at)
            if start_method == "zygote" and call in IN_TEMPLATE:
                for at in range(1, clean.counts_in_template.get(call, 0) + 1):
                    yield Fault(call, how, at, in_template=True)
