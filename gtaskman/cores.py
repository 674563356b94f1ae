"""``usable_cores``: how many cores this process may use.

Not how many the machine has: the process may be bound to some of them, and a control group (that
of a container, say) may have a quota of their time.
"""

from __future__ import annotations

import math
import os
from pathlib import Path


def usable_cores(root: Path = Path("/")) -> int:
    """How many cores this process may use, at least 1; ``root`` is where its system is found.

    A quota of one and a half cores counts as two.
    """
    cores = _cores_of_process()
    quota = _quota(root)
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def _cores_of_process() -> int:
    # From Python 3.13 on; it heeds PYTHON_CPU_COUNT as well.
    count = getattr(os, "process_cpu_count", None)
    if count is not None:
        return count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quota(root: Path) -> float | None:
    """The smallest quota, in cores, of the control groups that the process is in, if any."""
    quotas = [
        quota
        for mount, group in _groups(root)
        for directory in (group, *group.parents)
        if (quota := _quota_of(root / mount / directory)) is not None
    ]
    return min(quotas, default=None)


def _groups(root: Path) -> list[tuple[Path, Path]]:
    """Where the process's groups are: the mount of their hierarchy, and the path below it."""
    groups = []
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0":
            groups.append((Path("sys/fs/cgroup"), Path(path.lstrip("/"))))
        elif "cpu" in controllers.split(","):
            groups.append((Path("sys/fs/cgroup", controllers), Path(path.lstrip("/"))))
    return groups


def _quota_of(directory: Path) -> float | None:
    given = _text(directory / "cpu.max").split() or [
        *_text(directory / "cpu.cfs_quota_us").split(),
        *_text(directory / "cpu.cfs_period_us").split(),
    ]
    try:
        quota, period = map(int, given)
    except ValueError:
        return None  # there is none, or it says "max"
    return quota / period if quota > 0 and period > 0 else None


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError):
        return ""
