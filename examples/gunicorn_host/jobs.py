"""The tasks of the site. They run in the workers of the manager that all of gunicorn shares."""

import hashlib
import time
from pathlib import Path

import gtaskman

EDITION = 1  # run.py gives the site a new edition while it runs


@gtaskman.task
def register(name: str, password: str) -> str:
    """Hash a password: some 50 ms for which no hub should stand still."""
    return hashlib.scrypt(password.encode(), salt=name.encode(), n=2**14, r=8, p=1).hex()


@gtaskman.task
def yearly_report(seconds: float) -> int:
    """Compute for so long, with progress; gives the edition of the code that did it.

    It also leaves a file that says so, named after the task.
    """
    progress = gtaskman.current().progress
    begun = time.monotonic()
    while (taken := time.monotonic() - begun) < seconds:
        progress.update(100 * taken / seconds, message="adding up")
        sum(range(20_000))
    Path(f"report-{gtaskman.current().id}").write_text(f"edition {EDITION}")
    return EDITION
