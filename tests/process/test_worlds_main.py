"""Programs as users write them: tasks in the main module, with and without its guard."""

from __future__ import annotations

import textwrap

import pytest
from worlds import START_METHODS, run_python, words

PATCH = "from gevent import monkey; monkey.patch_all()\n"
HEADS = {"unpatched": "", "patched": PATCH}

GUARDED = """
import dataclasses
import multiprocessing.util  # which gives a name to the main module, in a worker to the wrong one
import sys
import gtaskman

@dataclasses.dataclass
class Point:
    x: int

@gtaskman.task
def double(number):
    return number * 2

@gtaskman.task
def move(point):
    assert type(point) is Point
    return Point(point.x + 1)

class Multiply(gtaskman.Task):
    a: int
    b: int
    def run(self, progress):
        return self.a * self.b

class Odd(Exception):
    pass

@gtaskman.task
def refuse():
    raise Odd("as it was told")

print("imported as " + __name__ + "\\n", end="", flush=True)  # in one piece

if __name__ == "__main__":
    gtaskman.configure(start_method=sys.argv[1], max_processes=2)
    print(f"{double.submit(4).get(timeout=20)}\\n", end="")
    print(f"{gtaskman.submit(Multiply(a=6, b=7)).get(timeout=20)}\\n", end="")
    moved = move.submit(Point(1)).get(timeout=20)
    print(f"{moved} {type(moved) is Point}\\n", end="")
    try:
        refuse.submit().get(timeout=20)
    except gtaskman.TaskFailed as failure:
        print(f"{type(failure.__cause__) is Odd} {failure.message}\\n", end="")
"""

EXPECTED = ["8", "42", "Point(x=2) True", "True as it was told"]


@pytest.fixture(params=HEADS)
def head(request):
    """The first lines of a program."""
    return HEADS[request.param]


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))
    return str(path)


def said(done, name="imported as"):
    return [line for line in done.output.splitlines() if not line.startswith(name)]


@pytest.mark.parametrize("start_method", START_METHODS)
def test_a_script_with_a_guard(head, start_method, tmp_path):
    script = write(tmp_path / "script.py", head + GUARDED)

    done = run_python(script, start_method, directory=tmp_path)

    assert done.code == 0, done.output
    assert said(done) == EXPECTED
    assert done.output.count("imported as __main__") == 1


@pytest.mark.parametrize("start_method", START_METHODS)
def test_a_module_run_with_m(head, start_method, tmp_path):
    write(tmp_path / "package" / "__init__.py", "")
    write(tmp_path / "package" / "neighbour.py", "VALUE = 1")
    text = GUARDED.replace("import gtaskman", "import gtaskman\nfrom . import neighbour", 1)
    write(tmp_path / "package" / "__main__.py", head + text)

    done = run_python("-m", "package", start_method, directory=tmp_path)

    assert done.code == 0, done.output
    assert said(done) == EXPECTED


UNGUARDED = """
import gtaskman

@gtaskman.task
def double(number):
    return number * 2

print("imported as " + __name__ + "\\n", end="", flush=True)  # in one piece
gtaskman.configure(start_method={start_method!r}, max_processes=2)
print(double.submit(4).get(timeout=20))
"""


@pytest.mark.parametrize("start_method", ["zygote", "spawn"])
def test_a_script_without_a_guard_is_told_so(head, start_method, tmp_path):
    script = write(tmp_path / "script.py", head + UNGUARDED.format(start_method=start_method))

    done = run_python(script, directory=tmp_path)

    assert done.code == 1, done.output
    assert "MainGuardError" in done.output
    assert "if __name__ == '__main__':" in words(done.output)
    # No process that imports it starts one that imports it.
    assert done.output.count("imported as __main__") == 1
    assert done.output.count("imported as __mp_main__") <= 4, done.output


def test_a_script_without_a_guard_may_use_tasks_of_other_modules(head, tmp_path):
    write(
        tmp_path / "work.py",
        "import gtaskman\n@gtaskman.task\ndef double(number):\n    return number * 2\n",
    )
    text = "import gtaskman, work\nprint(work.double.submit(4).get(timeout=20))\n"
    script = write(tmp_path / "script.py", head + text)

    done = run_python(script, directory=tmp_path)

    assert (done.code, done.output) == (0, "8\n")


TYPED = """
import gtaskman

factor = 3

@gtaskman.task
def triple(number):
    return number * factor

try:
    print(triple.submit(4).get(timeout=20))
    print(gtaskman.submit(lambda number: number + factor, 1).get(timeout=20))
except gtaskman.TaskTravelError as error:
    print("refused:", error)
"""


@pytest.mark.parametrize("way", ["-c", "stdin"])
@pytest.mark.parametrize("start_method", START_METHODS)
def test_typed_code_travels_with_cloudpickle(head, way, start_method, tmp_path):
    text = head + TYPED.replace(
        "factor = 3", f"gtaskman.configure(start_method={start_method!r})\nfactor = 3"
    )
    if way == "-c":
        done = run_python("-c", text, directory=tmp_path)
    else:
        done = run_python("-", directory=tmp_path, stdin=text)

    assert (done.code, done.output) == (0, "12\n4\n")


@pytest.mark.parametrize("way", ["-c", "stdin"])
def test_typed_code_is_refused_clearly_without_cloudpickle(head, way, tmp_path):
    text = f"import sys; sys.modules['cloudpickle'] = None\n{head}{TYPED}"
    if way == "-c":
        done = run_python("-c", text, directory=tmp_path)
    else:
        done = run_python("-", directory=tmp_path, stdin=text)

    assert done.code == 0, done.output
    assert done.output.startswith("refused: task ")
    assert "triple cannot travel to a worker" in done.output
    assert "pip install 'gtaskman[cloudpickle]'" in done.output


PARTLY = """
from gevent import monkey; monkey.patch_all(thread=False, subprocess=False)
import gtaskman

@gtaskman.task
def parts():
    names = ("socket", "time", "threading", "subprocess", "select", "ssl", "os")
    return {name: bool(monkey.is_module_patched(name)) for name in names}

if __name__ == "__main__":
    gtaskman.configure(start_method="%s")
    here, there = parts(), parts.submit().get(timeout=20)
    print(here == there, here["socket"], here["threading"], here["subprocess"])
"""


@pytest.mark.parametrize("start_method", START_METHODS)
def test_a_partly_patched_application_has_partly_patched_workers(start_method, tmp_path):
    script = write(tmp_path / "script.py", PARTLY % start_method)

    done = run_python(script, directory=tmp_path)

    assert (done.code, done.output) == (0, "True True False False\n")
