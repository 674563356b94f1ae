"""Code that was typed into a console, or given to ``python -c``: no worker can import it."""

from __future__ import annotations

import subprocess
import sys

import pytest
from scenarios import work

import gtaskman

CODE = """
import dataclasses, gtaskman

def square(x): return x * x

@dataclasses.dataclass
class Point:
    x: int

def move(how, point): return Point(how(point.x))

with gtaskman.TaskManager(config=gtaskman.Configuration(max_processes=1)) as manager:
    for call in ((square, 3), (move, square, Point(4)), (str, "__main__")):
        try:
            print(manager.submit(*call).get(timeout=60))
        except gtaskman.PayloadError as error:
            print("refused:", error)
"""


def lines(code):
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout.splitlines()


def test_undecorated_functions_and_classes_travel_by_value():
    assert lines(CODE) == ["9", "Point(x=16)", "__main__"]


def test_without_cloudpickle_they_are_refused_with_the_mend():
    one, other, text = lines("import sys; sys.modules['cloudpickle'] = None\n" + CODE)
    for refused in (one, other):
        assert refused.startswith("refused: the arguments of __main__.")
        assert "console" in refused and "pip install 'gtaskman[cloudpickle]'" in refused
    assert text == "__main__"


@pytest.mark.parametrize("what", ["manager", "handle"])
def test_a_manager_or_a_handle_as_an_argument_is_refused_with_the_mend(manager, what):
    handle = manager.submit(work.echo, 1)
    given = handle if what == "handle" else manager
    with pytest.raises(gtaskman.PayloadError, match=f"a {what} cannot be an argument or a result"):
        manager.submit(work.echo, [given])
    assert handle.get(timeout=60) == 1
