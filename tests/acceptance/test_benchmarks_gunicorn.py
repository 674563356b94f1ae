"""The benchmark under gunicorn as a user runs it: what it leaves behind, never how fast it was."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# In the site alone: whoever makes the load knows what is right.
WRONG_HASHES = """
import hashlib, os
if "BENCHMARK_PEER" in os.environ:
    hashlib.scrypt = lambda password, **options: password
"""
FAILING_HASHES = WRONG_HASHES.replace("password\n", "1 / 0\n")


def run(where: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it in an empty directory whose modules come before the installed ones."""
    path = os.pathsep.join(filter(None, (str(where), str(ROOT), os.environ.get("PYTHONPATH", ""))))
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", "gunicorn", "--quick", "--json", "out.json",
         *arguments],
        cwd=where,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=110,
    )  # fmt: skip


def document(where: Path) -> dict:
    return json.loads((where / "out.json").read_text())


def test_all_answers_are_right_and_the_ratios_are_told(tmp_path):
    done = run(tmp_path, "--peers", "gtaskman,inline")

    assert done.returncode == 0, done.stderr + done.stdout
    told = document(tmp_path)
    assert {(run["scenario"], run["peer"]) for run in told["runs"]} == {
        (scenario, peer) for scenario in ("hashing", "greenlets") for peer in ("gtaskman", "inline")
    }
    assert all(run["checked"] > 0 for run in told["runs"])
    assert all(target["measured"] is not None for target in told["targets"])


@pytest.mark.parametrize(
    ("spoiled", "words"),
    [
        pytest.param(WRONG_HASHES, "/hash: result 0 is", id="wrong"),
        pytest.param(FAILING_HASHES, "500", id="failing"),
    ],
)
def test_a_wrong_or_missing_answer_fails_the_run(tmp_path, spoiled, words):
    (tmp_path / "sitecustomize.py").write_text(spoiled)

    done = run(tmp_path, "--only", "hashing", "--peers", "inline")

    assert done.returncode == 1, done.stderr + done.stdout
    assert words in json.dumps(document(tmp_path)["failures"])
