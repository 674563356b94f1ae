"""How many cores a process may use."""

from __future__ import annotations

import os

import pytest

from gtaskman import cores

pytestmark = pytest.mark.quick

# Each case: given these files, and 8 cores that the process may use, expect so many.
CASES = {
    "no control groups": ({}, 8),
    "no quota": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, 8),
    "a quota": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2),
    "a part of a core": (
        {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"},
        2,
    ),
    "less than a core": (
        {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "1000 100000\n"},
        1,
    ),
    "a quota above what there is": (
        {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "6400000 100000\n"},
        8,
    ),
    "the group above has the quota": (
        {
            "proc/self/cgroup": "0::/outer.slice/inner.service\n",
            "sys/fs/cgroup/outer.slice/cpu.max": "300000 100000\n",
            "sys/fs/cgroup/outer.slice/inner.service/cpu.max": "max 100000\n",
        },
        3,
    ),
    "version 1": (
        {
            "proc/self/cgroup": "5:memory:/docker/a\n4:cpu,cpuacct:/docker/a\n0::/\n",
            "sys/fs/cgroup/cpu,cpuacct/docker/a/cpu.cfs_quota_us": "400000\n",
            "sys/fs/cgroup/cpu,cpuacct/docker/a/cpu.cfs_period_us": "100000\n",
        },
        4,
    ),
    "version 1, no quota": (
        {
            "proc/self/cgroup": "4:cpu:/\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        },
        8,
    ),
    "version 1, below the mount's root": (
        {
            "proc/self/cgroup": "4:cpu:/docker/a\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "100000\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        },
        1,
    ),
    "nonsense": (
        {"proc/self/cgroup": "nonsense\n0::/a/../..\n", "sys/fs/cgroup/cpu.max": "\xff 1 2"},
        8,
    ),
}


@pytest.mark.parametrize(("files", "expected"), CASES.values(), ids=CASES)
def test_each_case(files, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(cores, "_cores_of_process", lambda: 8)
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert cores.usable_cores(tmp_path) == expected


def test_a_process_may_use_no_more_than_the_machine_has():
    assert 1 <= cores.usable_cores() <= os.cpu_count()
