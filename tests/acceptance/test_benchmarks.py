"""The benchmarks as a user runs them: what they leave behind, never how fast anything was."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

HIDE = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Hidden())
"""

# An executor that runs the work at once, in this process, and is wrong about one number.
LYING_LOKY = """
import itertools

class Future:
    def __init__(self, value):
        self.value = value

    def result(self):
        return self.value

class Executor:
    def __init__(self):
        self.pids = itertools.count()

    def submit(self, function, argument=None):
        if function.__name__ == "where":
            return Future(next(self.pids))
        return Future(argument if argument is None else {answer})

    def shutdown(self, **options):
        pass

def get_reusable_executor(max_workers):
    return Executor()
"""
RIGHT, WRONG, CRASH = "argument", "argument + (argument == 3000)", "1 / 0"


def run(
    where: Path, *arguments: str, suite: str = "local", **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run the benchmarks in an empty directory whose modules come before the installed ones."""
    path = os.pathsep.join(filter(None, (str(where), str(ROOT), os.environ.get("PYTHONPATH", ""))))
    command = [sys.executable, "-m", "benchmarks", suite, "--quick", *arguments]
    return subprocess.run(
        command,
        cwd=where,
        env=os.environ | {"PYTHONPATH": path} | variables,
        capture_output=True,
        text=True,
        timeout=110,
    )


# A Huey that has lost what was sent to it, or has not.
FORGETFUL_HUEY = """
class RedisHuey:
    def __init__(self, name, **options):
        self.storage = self.pool = self
        self.sent = 0

    def task(self):
        return lambda function: self.send

    def send(self, argument):
        self.sent += 1

    def pending_count(self):
        return self.sent - {lost}

    def disconnect(self):
        pass
"""

TELL_STAMP = """
from benchmarks.redis.catalog import REQUIREMENTS
from benchmarks.redis.environments import stamp
print(stamp(REQUIREMENTS[{peer!r}]), end="")
"""


def pretend_installed(where: Path, peer: str) -> None:
    """An environment as the benchmarks make it, whose interpreter is this one."""
    python = where / "venvs" / peer / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    told = subprocess.run(
        [sys.executable, "-c", TELL_STAMP.format(peer=peer)],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    (python.parents[1] / "installed.json").write_text(told.stdout)


def document(where: Path) -> dict:
    return json.loads((where / "out.json").read_text())


def test_a_run_leaves_a_table_a_json_file_and_a_picture(tmp_path):
    peers = "executor,pool,gipc"

    done = run(
        tmp_path, "--only", "burst,round_trips,mapping", "--peers", peers, "--rounds", "2",
        "--json", "out.json", "--plot", "out.png",
    )  # fmt: skip

    assert done.returncode == 0, done.stderr + done.stdout
    assert "ProcessPoolExecutor" in done.stdout
    assert (tmp_path / "out.png").read_bytes().startswith(PNG_SIGNATURE)
    told = document(tmp_path)
    assert told["machine"]["cores"] >= 1
    assert {"kernel", "python", "gevent"} <= told["machine"].keys()
    assert list(told["scenarios"]) == ["burst", "round_trips", "mapping"]
    assert told["failures"] == []


def test_gtaskman_gives_right_results_in_every_scenario(tmp_path):
    done = run(tmp_path, "--peers", "gtaskman,declared", "--seconds", "0.4", "--json", "out.json")

    assert done.returncode == 0, done.stderr + done.stdout
    told = document(tmp_path)
    assert {run["scenario"] for run in told["runs"]} == told["scenarios"].keys()
    assert all(run["checked"] > 0 for run in told["runs"])


def test_every_result_is_checked_and_counted_and_the_order_rotates(tmp_path):
    done = run(
        tmp_path, "--only", "burst", "--peers", "executor,pool", "--rounds", "2",
        "--json", "out.json",
    )  # fmt: skip

    assert done.returncode == 0, done.stderr + done.stdout
    told = document(tmp_path)
    count = told["scenarios"]["burst"]["size"]["count"]
    assert [(run["round"], run["peer"]) for run in told["runs"]] == [
        (0, "executor"), (0, "pool"), (1, "pool"), (1, "executor"),
    ]  # fmt: skip
    assert [run["checked"] for run in told["runs"]] == [count] * 4
    assert told["checked"] == 4 * count
    assert f"{4 * count:,} results checked" in done.stdout


def test_a_peer_that_is_not_installed_is_named_not_left_out(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(HIDE.format(name="loky"))

    done = run(
        tmp_path, "--only", "burst", "--peers", "pool,loky", "--json", "out.json",
        "--plot", "out.png",
    )  # fmt: skip

    assert done.returncode == 0, done.stderr + done.stdout
    assert "not installed (loky)" in done.stdout
    contestants = document(tmp_path)["scenarios"]["burst"]["contestants"]
    assert contestants["loky"]["status"] == "not installed (loky)"
    assert contestants["pool"]["status"] == "measured"
    assert (tmp_path / "out.png").exists()


def test_a_target_without_numbers_is_told_to_be_not_measured(tmp_path):
    done = run(tmp_path, "--only", "burst", "--peers", "pool", "--json", "out.json")

    assert done.returncode == 0, done.stderr + done.stdout
    outcomes = {target["outcome"] for target in document(tmp_path)["targets"]}
    assert outcomes == {"not measured"}


@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [
        pytest.param(RIGHT, 0, "0 runs failed", id="right"),
        pytest.param(WRONG, 1, "result 3,000 is 3001 instead of 3000", id="wrong"),
        pytest.param(CRASH, 1, "ZeroDivisionError", id="crash"),
    ],
)
def test_a_wrong_or_missing_result_fails_the_run(tmp_path, answer, status, words):
    (tmp_path / "loky.py").write_text(LYING_LOKY.format(answer=answer))

    done = run(tmp_path, "--only", "echo", "--peers", "loky", "--json", "out.json")

    assert done.returncode == status, done.stderr + done.stdout
    assert words in done.stdout
    failures = document(tmp_path)["failures"]
    assert [failure["peer"] for failure in failures] == ["loky"] * status


def test_an_unknown_name_is_refused_with_the_known_ones(tmp_path):
    done = run(tmp_path, "--only", "brust")

    assert done.returncode == 2
    assert "brust" in done.stderr
    assert "burst" in done.stderr


def test_gtaskman_gives_right_results_in_every_scenario_over_redis(tmp_path):
    done = run(
        tmp_path, "--peers", "gtaskman,bare", "--json", "out.json", "--plot", "out.png",
        suite="redis",
    )  # fmt: skip

    assert done.returncode == 0, done.stderr + done.stdout
    told = document(tmp_path)
    assert {run["scenario"] for run in told["runs"]} == told["scenarios"].keys()
    assert all(run["checked"] > 0 for run in told["runs"])
    assert {"server", "environments"} <= told["machine"].keys()
    assert (tmp_path / "out.png").read_bytes().startswith(PNG_SIGNATURE)


def test_a_peer_is_installed_once_into_its_own_environment(tmp_path):
    options = ("--peers", "huey", "--venvs", "venvs", "--json", "out.json")
    first = run(tmp_path, "--only", "enqueue", *options, suite="redis")
    if "could not be installed" in first.stdout:
        pytest.skip(document(tmp_path)["failures"][0]["error"])

    done = run(tmp_path, "--only", "noop,round_trip", *options, suite="redis", PIP_NO_INDEX="1")

    assert done.returncode == 0, done.stderr + done.stdout
    told = document(tmp_path)
    assert "huey" in told["machine"]["environments"]["huey"]
    assert [run["checked"] for run in told["runs"]] == [
        told["scenarios"][name]["size"]["count"] for name in ("noop", "round_trip")
    ]


def test_a_peer_that_cannot_be_installed_fails_the_run_with_the_reason(tmp_path):
    done = run(
        tmp_path, "--only", "enqueue", "--peers", "arq", "--venvs", "venvs", "--json", "out.json",
        suite="redis", PIP_NO_INDEX="1", PIP_FIND_LINKS=str(tmp_path),
    )  # fmt: skip

    assert done.returncode == 1
    assert "arq could not be installed" in done.stdout
    assert document(tmp_path)["scenarios"]["enqueue"]["contestants"]["arq"]["metrics"] == {}


@pytest.mark.parametrize(
    ("lost", "status", "words"),
    [
        pytest.param(0, 0, "0 runs failed", id="right"),
        pytest.param(1, 1, "waiting: result 0 is 599 instead of 600", id="wrong"),
    ],
)
def test_a_wrong_count_over_redis_fails_the_run(tmp_path, lost, status, words):
    (tmp_path / "huey.py").write_text(FORGETFUL_HUEY.format(lost=lost))
    pretend_installed(tmp_path, "huey")

    done = run(
        tmp_path, "--only", "enqueue", "--peers", "huey", "--venvs", "venvs", "--json", "out.json",
        suite="redis",
    )  # fmt: skip

    assert done.returncode == status, done.stderr + done.stdout
    assert words in done.stdout
    assert [failure["peer"] for failure in document(tmp_path)["failures"]] == ["huey"] * status


def test_an_unknown_peer_over_redis_is_refused_with_the_known_ones(tmp_path):
    done = run(tmp_path, "--peers", "kelery", suite="redis")

    assert done.returncode == 2
    assert "kelery" in done.stderr
    assert "celery" in done.stderr
