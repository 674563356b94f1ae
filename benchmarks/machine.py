"""Where the numbers come from: without this they mean nothing to anybody else."""

import multiprocessing
import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("gtaskman", "gevent", "greenlet", "msgspec", "gipc", "loky")
BUSY = 0.25  # of every core


def facts() -> dict[str, object]:
    """The machine, the interpreter, and the versions of everything that took part."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": len(os.sched_getaffinity(0)),
        "processor": _processor(),
        "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 1024**2,
        "load_before": round(os.getloadavg()[0], 2),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "multiprocessing_start_method": multiprocessing.get_start_method(),
        **{package: _version(package) for package in PACKAGES},
    }


def noise() -> str | None:
    """A warning, when something else was already using the cores before the run."""
    load = os.getloadavg()[0]
    if load < BUSY * len(os.sched_getaffinity(0)):
        return None
    return f"load average {load:.2f} before the start: what else runs here will be in the numbers"


def line(machine: dict[str, object]) -> str:
    """The facts a reader needs first, in one line."""
    return (
        f"{machine['cores']} cores ({machine['processor']}), {machine['kernel']}, "
        f"{machine['python']}, gevent {machine['gevent']}"
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None  # not installed, or run from a source tree


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
