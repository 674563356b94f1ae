"""The benchmark of services runs, and its answers are right."""

from __future__ import annotations

import json

from worlds import TESTS, run_python


def test_the_benchmark_tells_its_figures(tmp_path):
    found = tmp_path / "figures.json"
    ran = run_python(
        *("-m", "benchmarks", "services", "--quick", "--only", "restart", "--only", "calls"),
        *("--json", str(found)),
        directory=tmp_path,
        env={"PYTHONPATH": str(TESTS.parent)},
    )
    assert ran.code == 0, ran.output
    figures = {each["name"]: each for each in json.loads(found.read_text())["figures"]}
    assert {each["unit"] for each in figures.values()} == {"ms", "calls/s"}
    assert all(each["value"] > 0 for each in figures.values())
    assert all(name in " ".join(ran.output.split()) for name in figures)
