"""`python -m benchmarks host`, as one runs it: every contestant answers, and rightly."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_contestant_answers(tmp_path):
    path = tmp_path / "numbers.json"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "host", "--quick", "--json", str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "over the socket" in done.stdout
    runs = json.loads(path.read_text())["runs"]
    assert {(each["scenario"], each["peer"]) for each in runs} == {
        (scenario, peer)
        for scenario in ("round_trip", "burst", "big")
        for peer in ("gtaskman", "embedded")
    }
    assert not any(each["error"] for each in runs)
