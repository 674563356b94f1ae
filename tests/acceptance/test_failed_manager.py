"""A manager that cannot work any more does not stay alive in silence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from worlds import PATIENCE

import gtaskman

ROOT = Path(__file__).resolve().parents[2]
APPLICATION = """
import gtaskman

@gtaskman.task
def double(number):
    return 2 * number

manager = gtaskman.TaskManager(config=gtaskman.Configuration(max_processes=1))
manager.on("init", lambda manager: manager.fail(RuntimeError("the loop of the test cannot work")))
"""


def test_the_command_ends_with_an_error(tmp_path):
    (tmp_path / "broken.py").write_text(APPLICATION)
    path = os.pathsep.join([str(ROOT), str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "gtaskman", "run", "broken:manager", "--bind", "unix:./sock"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 1, done
    assert "the loop of the test cannot work" in done.stderr


def test_later_submits_name_the_error(make_manager):
    manager = make_manager(max_processes=1)
    handle = manager.submit(abs, -1)
    assert handle.get(PATIENCE) == 1
    manager.fail(RuntimeError("on purpose"))
    with pytest.raises(gtaskman.ManagerStopped, match=r"RuntimeError.*on purpose") as caught:
        manager.submit(abs, -1)
    assert isinstance(caught.value.__cause__, RuntimeError)
