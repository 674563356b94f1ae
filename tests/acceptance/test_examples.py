"""The examples as a user runs them: that they end well and what they claim, never how fast."""

import contextlib
import hashlib
import json
import os
import re
import subprocess
import sys
import sysconfig
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = Path(sysconfig.get_path("stdlib"))
NUMBER = r"([\d,]+)"


def run(*arguments: str) -> str:
    """What an example prints into a pipe, after it has ended well."""
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert max(map(len, done.stdout.splitlines())) <= 110
    return done.stdout


def numbers(pattern: str, text: str) -> list[int]:
    """The numbers that the pattern's groups caught in the one place where it fits."""
    found = re.findall(pattern, text)
    assert len(found) == 1, (pattern, text)
    groups = found[0] if isinstance(found[0], tuple) else (found[0],)
    return [int(group.replace(",", "")) for group in groups]


# --- quickstart ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def quickstart() -> str:
    return run("examples/quickstart.py", "--files", "40")


def test_quickstart_fetches_and_parses_every_file(quickstart):
    assert re.search(r"fetched by async tasks .* 40/40", quickstart)
    assert re.search(r"parsed by sync tasks .* 40/40", quickstart)


def test_quickstart_measures_what_is_in_the_files(quickstart):
    rows = re.findall(rf"^ +{NUMBER} +(\w+) +(\S+\.py) +{NUMBER} +\d+ +$", quickstart, re.M)

    assert len(rows) == 8
    for longest, function, name, lines in rows:
        source = (LIBRARY / name).read_bytes()
        assert len(source.splitlines()) == int(lines.replace(",", ""))
        assert f"def {function}(".encode() in source
        assert int(longest) <= int(lines.replace(",", ""))


def test_quickstart_finds_the_same_in_workers_and_inline(quickstart):
    sums = rf" +{NUMBER} +{NUMBER} +{NUMBER}"
    everything = numbers(rf"(40) +by the workers{sums}", quickstart)
    workers = numbers(rf"(5) +every 8th, by the workers{sums}", quickstart)
    inline = numbers(rf"(5) +every 8th, again by this process{sums}", quickstart)

    assert workers == inline
    assert all(part < whole for part, whole in zip(workers, everything, strict=True))
    assert "Checked: 5 files parsed again here, all 5 the same." in quickstart
    assert "gtaskman fetched and parsed 40 files" in quickstart
    assert "it parsed 5 of them itself" in quickstart


# --- progress and cancel -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def progress_and_cancel() -> str:
    return run("examples/progress_and_cancel.py")


@pytest.mark.parametrize(
    "words",
    [
        "primes +100% +completed +gives 3,001,134",
        r"Mandelbrot +[5-9]\d% +cancelled +raises TaskCancelled: the user pressed stop",
        r"Collatz +\d+% +failed +raises TaskTimedOut: the task reached its\s+soft time limit",
        r"Lyapunov +33% +failed +raises TaskFailed: ValueError: math domain\s+error",
    ],
    ids=["completes", "is cancelled", "times out", "fails"],
)
def test_each_computation_ends_in_its_own_way(progress_and_cancel, words):
    assert re.search(words, progress_and_cancel), progress_and_cancel


def test_the_task_that_timed_out_has_cleaned_up(progress_and_cancel):
    assert "Files that Collatz has left behind: 0" in progress_and_cancel


def test_the_traceback_of_the_worker_is_shown(progress_and_cancel):
    # Where the path of the checkout is long, the panel breaks this line.
    assert re.search(r", line \d+,[\s│]+in[\s│]+lyapunov", progress_and_cancel)
    assert "math.log(abs(r * (1 - 2 * x)))" in progress_and_cancel
    assert "__cause__: ValueError('math domain error')" in progress_and_cancel


# --- class tasks ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def class_task() -> str:
    return run("examples/class_task.py")


def test_wrong_options_are_refused_by_name(class_task):
    refused = re.findall(r"TaskOptionError in '(\w+)'", class_task)

    assert refused == ["level", "level", "method", "speed", "path"]


def test_a_task_is_followed_by_its_id(class_task):
    size = (LIBRARY / "argparse.py").stat().st_size

    assert "DuplicateTaskError: a task with the id 'argparse' is waiting or running" in class_task
    assert f"on 'task-progress-argparse': {size:,} bytes read" in class_task
    assert re.search(rf"report\('argparse'\): completed, result \({size}, \d+\)", class_task)


def test_the_sources_are_compressed_by_each_method(class_task):
    before = sum(path.stat().st_size for path in sorted(LIBRARY.glob("[a-c]*.py"))[:16])

    for method in ("zlib", "bz2", "lzma"):
        told, after = numbers(rf"{method} +{NUMBER} +{NUMBER} +[\d.]+%", class_task)
        assert told == before
        assert 0 < after < before


def test_async_tasks_meet_in_few_workers(class_task):
    words = r"(\d+) were on the line at once; worker processes they ran in: (\d+)"
    callers, workers = numbers(words, class_task)

    assert callers == 50
    assert workers in (1, 2)


def test_a_crash_costs_one_task_and_a_retry_mends_another(class_task):
    assert "20 of 21 completed, 1 failed" in class_task
    assert "WorkerCrashed: exitcode 42" in class_task
    assert "(logged by gtaskman" in class_task
    assert "attempt 3 got through; the report says attempt 3" in class_task


def test_the_events_agree_with_the_numbers(class_task):
    expected = {"completed": 120, "failed": 1, "cancelled": 0, "total": 121}

    for status, count in expected.items():
        assert numbers(rf"\n  {status} +(\d+) +(\d+)", class_task) == [count, count]
    # 49 files, 50 calls, one that vanished and three attempts have written with their pens, and
    # so have the 20 neighbours of the one that vanished.
    assert numbers(r"\n  progress +(\d+)", class_task) == [49 + 50 + 1 + 3 + 20]


# --- the legacy application ----------------------------------------------------------------------


def test_the_demonstration_measures_three_rounds():
    text = run("examples/legacy_app.py", "--demo")

    hashes = {}
    for name in ("alone", "beside /hash", "beside /hash-inline"):
        (row,) = re.findall(rf"^  {name}  +(.+)$", text, re.M)
        answers, *marks, count = (float(cell.replace(",", "")) for cell in row.split())
        assert answers == 300
        assert marks[0] > 0 and marks == sorted(marks)
        hashes[name] = int(count)
    assert hashes["alone"] == 0 < min(hashes["beside /hash"], hashes["beside /hash-inline"])
    completed, failed = numbers(r"/stats: (\d+) tasks completed, (\d+) failed", text)
    assert (completed, failed) == (hashes["beside /hash"], 0)


@contextlib.contextmanager
def gunicorn(log: Path) -> Iterator[tuple[str, psutil.Popen]]:
    """The application under the real gunicorn; gives its address and its master."""
    command = [sys.executable, "-m", "gunicorn", "-k", "gevent", "-w", "1"]
    command += ["-b", "127.0.0.1:0", "--chdir", "examples", "legacy_app:app"]
    # gunicorn keeps a control socket in the home directory: not in that of whoever runs the tests.
    environment = os.environ | {"HOME": str(log.parent)}
    with psutil.Popen(
        command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
    ) as master:
        try:
            lines = []
            for line in master.stderr:
                lines.append(line)
                if "Listening at" in line:
                    break
            found = re.search(r"Listening at: (http://\S+)", "".join(lines))
            assert found, "".join(lines)
            yield found[1], master
        finally:
            if master.poll() is None:
                master.kill()
            log.write_text("".join(lines) + master.stderr.read())


def ask(url: str) -> dict:
    with urllib.request.urlopen(url, timeout=60) as response:
        return json.load(response)


def refused(url: str) -> tuple[int, str]:
    with pytest.raises(urllib.error.HTTPError) as info:
        ask(url)
    return info.value.code, json.load(info.value)["error"]


def is_right(answer: dict, password: str) -> bool:
    salt = bytes.fromhex(answer["salt"])
    return hashlib.scrypt(password.encode(), salt=salt, n=2**14, r=8, p=5).hex() == answer["hash"]


def test_the_application_serves_under_gunicorn_and_leaves_nothing(tmp_path):
    log = tmp_path / "gunicorn.log"
    with gunicorn(log) as (root, master):
        assert ask(root) == {"hello": "world"}
        urls = [f"{root}/hash?password=word{number}" for number in range(4)]
        with ThreadPoolExecutor(4) as clients:
            answers = list(clients.map(ask, urls))
        assert all(is_right(answer, f"word{number}") for number, answer in enumerate(answers))
        assert len({answer["salt"] for answer in answers}) == 4
        assert is_right(ask(f"{root}/hash-inline?password=inline"), "inline")

        stats = ask(f"{root}/stats")
        assert stats["pool"]["completed_tasks"] == stats["pool"]["total_tasks"] == 4
        assert stats["pool"]["failed_tasks"] == stats["queue"]["current_tasks"] == 0
        assert refused(f"{root}/hash") == (400, "/hash takes: password")
        assert refused(f"{root}/nowhere")[0] == 404

        family = master.children(recursive=True)
        assert len(family) >= 3  # gunicorn's worker, the template, at least one worker of ours
        master.terminate()
        assert master.wait(timeout=30) == 0
        _, alive = psutil.wait_procs(family, timeout=10)
        assert alive == []
    assert "Traceback" not in log.read_text()
