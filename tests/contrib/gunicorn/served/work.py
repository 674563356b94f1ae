"""The tasks."""

from __future__ import annotations

import os
import time
from pathlib import Path

import gtaskman

DIRECTORY = Path(os.environ["SERVED_DIRECTORY"])


def version():
    """Which code this is, as far as the test has changed it."""
    return (DIRECTORY / "version").read_text()


VERSION = version()  # when this was imported


def touch(name):
    (DIRECTORY / f"{name}.{os.getpid()}").write_text(str(os.getpid()))
    os.rename(DIRECTORY / f"{name}.{os.getpid()}", DIRECTORY / name)


def lineage():
    """The pids of this process, its parent, and so on."""
    pids = [os.getpid()]
    while pids[-1] > 1:
        stat = Path(f"/proc/{pids[-1]}/stat").read_text()
        pids.append(int(stat[stat.rindex(")") + 2 :].split()[1]))
    return pids


@gtaskman.task
def where():
    return {"lineage": lineage(), "version": VERSION}


@gtaskman.task
def compute(name, seconds):
    """Compute for so long, and leave a file that says it was done."""
    touch(f"{name}.begun")
    end = time.monotonic() + float(seconds)
    while time.monotonic() < end:
        pass
    touch(name)
    return os.getpid()


@gtaskman.task
def held(name):
    """Go on until the test allows it to end."""
    touch(f"{name}.begun")
    while not (DIRECTORY / f"{name}.released").exists():
        time.sleep(0.01)
    touch(name)


@gtaskman.task
def for_ever(name):
    touch(f"{name}.begun")
    while True:
        pass


@gtaskman.task
def stubborn(name):
    """Does not let itself be cancelled."""
    touch(f"{name}.begun")
    while True:
        try:
            while True:
                pass
        except gtaskman.Cancelled:
            pass
