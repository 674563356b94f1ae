"""An async task that blocks the hub of its worker is reported, once, with what helps."""

from __future__ import annotations

import pytest
from worlds import run_python

SCRIPT = """
{patch}
import logging, time, gevent, gtaskman

@gtaskman.task(kind="async")
def block(seconds):
    time.sleep(seconds)

@gtaskman.task(kind="async")
def swap(seconds):
    gevent.sleep(seconds)

if __name__ == "__main__":
    logging.basicConfig()
    with gtaskman.TaskManager(config=gtaskman.Configuration(max_processes=1)) as manager:
        for task in (block, swap):
            for _ in range(2):
                for handle in [manager.submit(task, 0.15) for _ in range(3)]:
                    handle.get()
"""


@pytest.mark.parametrize("patched", [False, True], ids=["unpatched", "patched"])
def test_an_async_task_that_blocks_its_worker_is_reported_once(tmp_path, patched):
    patch = "from gevent import monkey; monkey.patch_all()" if patched else ""
    (tmp_path / "script.py").write_text(SCRIPT.format(patch=patch))
    done = run_python(str(tmp_path / "script.py"), directory=tmp_path)
    assert done.code == 0, done.output
    assert done.output.count("blocked its worker") == (0 if patched else 1), done.output
    assert ("the async task __main__.block blocked" in done.output) is not patched
