"""A virtual environment for each peer, made when it is first needed and kept for the next run.

Each peer brings its own versions of what it needs, and none meets another's.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

DEFAULT_DIRECTORY = Path("~/.cache/gtaskman-benchmarks").expanduser()
INSTALL_TIMEOUT = 600.0
STAMP = "installed.json"

VERSIONS = """
import json
from importlib.metadata import distributions
print(json.dumps({each.metadata["Name"].lower(): each.version for each in distributions()}))
"""


class EnvironmentFailed(Exception):
    """Raised when a peer could not be installed; the message is pip's last word."""


def prepare(directory: Path, peer: str, requirements: Sequence[str]) -> Path:
    """The interpreter of the peer's environment, made anew if its requirements have changed.

    Runs that begin at the same time wait for one another. Raises `EnvironmentFailed`.
    """
    home = directory / peer
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / f"{peer}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        mark, wanted = home / STAMP, stamp(requirements)
        if not mark.exists() or mark.read_text() != wanted:
            _make(home, peer, requirements)
            mark.write_text(wanted)
    return home / "bin" / "python"


def stamp(requirements: Sequence[str]) -> str:
    """What a finished environment is marked with: it serves as long as this stays the same."""
    return json.dumps([sys.version, *requirements])


def versions(python: Path) -> dict[str, str]:
    """What is installed beside an interpreter."""
    done = subprocess.run([python, "-c", VERSIONS], check=True, capture_output=True, text=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found


def _make(home: Path, peer: str, requirements: Sequence[str]) -> None:
    shutil.rmtree(home, ignore_errors=True)
    _run(peer, [sys.executable, "-m", "venv", str(home)])
    _run(peer, [str(home / "bin" / "python"), "-m", "pip", "install", "-q", *requirements])


def _run(peer: str, command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_TIMEOUT)
    except subprocess.TimeoutExpired:
        raise EnvironmentFailed(
            f"{peer} was not installed within {INSTALL_TIMEOUT:.0f} s"
        ) from None
    if done.returncode:
        reason = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["pip said nothing"]
        raise EnvironmentFailed(f"{peer} could not be installed: {reason[0]}")
