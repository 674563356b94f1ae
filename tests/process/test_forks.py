"""What a fork of the application keeps of the manager's processes: nothing."""

from __future__ import annotations

import pytest
from worlds import START_METHODS, run_python

# gevent's own os.close waits for a hub to run, which that of a fork may never do.
PROGRAM = """
from gevent import monkey; monkey.patch_all()
import os, posix, sys, gtaskman


def pidfds():
    names = os.listdir("/proc/self/fd")
    links = [os.path.realpath(f"/proc/self/fd/{name}") for name in names]
    return sum("pidfd" in link for link in links)


@gtaskman.task
def double(value):
    return 2 * value


if __name__ == "__main__":
    config = gtaskman.Configuration(start_method=sys.argv[1], max_processes=1)
    with gtaskman.TaskManager(config=config) as manager:
        assert manager.submit(double, 1).get(30) == 2
        assert pidfds() > 0
        pid = posix.fork()  # gevent may miss the end of a short-lived child
        if pid == 0:
            os._exit(pidfds())
        _, status = posix.waitpid(pid, 0)
    sys.exit(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.parametrize("start_method", START_METHODS)
def test_a_fork_closes_its_copies_before_a_hub_runs(tmp_path, start_method):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    done = run_python(str(program), start_method, directory=tmp_path)
    assert done.code == 0, done.output
