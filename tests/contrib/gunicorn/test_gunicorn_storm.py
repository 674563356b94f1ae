"""A short storm, as one runs a long one; see ``storm``."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from worlds import run_python

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("mode", ["embedded", "host"])
def test_nothing_stays_behind_and_nobody_else_answers(tmp_path, mode):
    words = ("--seconds", "3", "--signals", "45", "--seed", "7", "--mode", mode)
    done = run_python(
        *("-m", "tests.contrib.gunicorn.storm", *words),
        directory=tmp_path,
        timeout=100,
        env={"PYTHONPATH": str(ROOT)},
    )

    assert done.code == 0, done.output
    counts = {
        what: int(count) for count, what in re.findall(r"^ *(\d+) (.+?) *$", done.output, re.M)
    }
    assert counts["orphans"] == counts["strangers"] == 0
    assert done.output.endswith("serves afterwards\n")
    assert sum(count for what, count in counts.items() if what.startswith("SIG")) > 20
