"""Three gunicorn workers, one manager of tasks: it is shared, replaced by new code, and ended.

Run it, after ``pip install -e . gunicorn`` in the repository::

    python examples/gunicorn_host/run.py

It serves a copy of this directory (``pages.py``, with its tasks in ``jobs.py``), and does what an
operator does. All that gtaskman needs is the last line of ``gunicorn.conf.py``.

1. Visitors have passwords hashed: each of gunicorn's workers sends tasks to the same manager.
2. One worker begins a long report, and is killed; the report goes on, and any other one tells how
   it stands.
3. A new edition of the code arrives in the middle of the report: ``kill -HUP``. The new workers
   have a manager with the new code, and the old one finishes the report with the old code.
4. ``kill -TERM``: nothing is left.
"""

import collections
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
GUNICORN = str(Path(sys.executable).with_name("gunicorn"))
WORKERS = 3  # see gunicorn.conf.py
PATIENCE = 60.0  # seconds that anything may take


class Site:
    """gunicorn, serving a copy of the site's files."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for name in ("gunicorn.conf.py", "pages.py", "jobs.py"):
            shutil.copy(HERE / name, directory)
        self._log = directory / "log"
        with open(self._log, "w") as log:
            self.gunicorn = subprocess.Popen(
                [sys.executable, GUNICORN], cwd=directory, stdout=log, stderr=log
            )
        self.url = until("gunicorn listens", self._address)

    def _address(self) -> str:
        if self.gunicorn.poll() is not None:
            sys.exit(f"gunicorn has ended:\n{self._log.read_text()}")
        found = re.search(r"Listening at: (\S+)", self._log.read_text())
        return found[1] if found else ""

    def get(self, path: str, **given: str) -> dict:
        """The answer; a worker that was just ended has none, and one asks again."""

        def ask() -> dict:
            with contextlib.suppress(OSError):
                url = f"{self.url}{path}?{urllib.parse.urlencode(given)}"
                with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
                    return json.load(answer)
            return {}

        return until(f"{path} answered", ask)

    def report(self, task: str) -> dict:
        """How the report stands, whichever worker of whichever edition is asked."""
        return self.get("/reports", id=task)


def until(what, look):
    """What ``look`` gives once that is true."""
    end = time.monotonic() + PATIENCE
    while not (found := look()):
        if time.monotonic() > end:
            sys.exit(f"not within {PATIENCE:.0f} s: {what}")
        time.sleep(0.05)
    return found


def share(site: Site) -> None:
    with ThreadPoolExecutor(8) as visitors:
        answers = list(visitors.map(lambda n: site.get("/register", name=f"user{n}"), range(40)))
    workers = collections.Counter(answer["worker"] for answer in answers)
    done = site.get("/")["manager"]
    print(f"40 passwords hashed for {len(workers)} of gunicorn's workers, and")
    print(f"  one manager has run {done['completed_tasks']} tasks for all of them.")


def outlive(site: Site) -> None:
    begun = site.get("/reports/new", seconds="1")
    os.kill(begun["worker"], signal.SIGKILL)
    print("The worker that began a report is killed;")
    report = until("the report", lambda: done(site.report(begun["id"])))
    assert report["worker"] != begun["worker"]
    print(f"  another one tells that it is {report['status']}.")
    # Its successor may still be importing the code, which is about to be changed.
    until("all workers answer", lambda: len(alive(site, begun["worker"], set())) == WORKERS)


def alive(site: Site, ended: int, found: set[int]) -> set[int]:
    """The workers that answer, without the one that was ended."""
    for _ in range(10 * WORKERS):
        found.add(site.get("/")["worker"])
    return found - {ended}


def done(report: dict) -> dict | None:
    return report if report.get("status") in ("COMPLETED", "FAILED", "CANCELLED") else None


def renew(site: Site) -> None:
    old = site.get("/reports/new", seconds="2")["id"]
    jobs = site.directory / "jobs.py"
    jobs.write_text(jobs.read_text().replace("EDITION = 1", "EDITION = 2"))
    site.gunicorn.send_signal(signal.SIGHUP)
    task = until("new code", lambda: begin_with(site, edition=2))
    report = until("a report", lambda: done(site.report(task)))
    print(f"After a reload, edition {report['edition']} answers,")
    print(f"  and edition {report['result']} runs the tasks;")
    written = site.directory / f"report-{old}"
    until("the old report", written.exists)
    print(f"  a report from before was finished by {until('its text', written.read_text)}.")


def begin_with(site: Site, edition: int) -> str | None:
    """The id of a new report, if this edition of the code has it: for a moment both answer."""
    begun = site.get("/reports/new", seconds="0.1")
    return begun["id"] if begun["edition"] == edition else None


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        site = Site(Path(directory))
        try:
            share(site)
            outlive(site)
            renew(site)
        finally:
            site.gunicorn.send_signal(signal.SIGTERM)
            code = site.gunicorn.wait(PATIENCE)
    print(f"gunicorn has ended ({code}), and its managers with it.")


if __name__ == "__main__":
    main()
