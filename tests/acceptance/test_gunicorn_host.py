"""The example with three gunicorn workers and one manager, as a user runs it."""

from __future__ import annotations

import re
from pathlib import Path

from worlds import run_python

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "gunicorn_host" / "run.py"


def test_the_manager_is_shared_renewed_and_ended(tmp_path):
    # A socket has a short name: not in the directory of the test.
    done = run_python(
        str(EXAMPLE), directory=tmp_path, timeout=90, env={"XDG_RUNTIME_DIR": "", "TMPDIR": "/tmp"}
    )

    assert done.code == 0, done.output
    first, *others = done.output.splitlines()
    assert re.fullmatch("40 passwords hashed for [23] of gunicorn's workers, and", first)
    assert others == [
        "  one manager has run 40 tasks for all of them.",
        "The worker that began a report is killed;",
        "  another one tells that it is COMPLETED.",
        "After a reload, edition 2 answers,",
        "  and edition 2 runs the tasks;",
        "  a report from before was finished by edition 1.",
        "gunicorn has ended (0), and its managers with it.",
    ]
