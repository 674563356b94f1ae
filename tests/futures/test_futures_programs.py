"""The executor in programs as users write them: main modules, and the interpreter's end."""

from __future__ import annotations

import textwrap

import pytest
from worlds import run_python, words

PATCH = "from gevent import monkey; monkey.patch_all()\n"
HEADS = {"unpatched": "", "patched": PATCH}


@pytest.fixture(params=HEADS)
def run(request, tmp_path):
    """Runs a program, with and without monkey-patching."""

    def run(text, *arguments):
        script = tmp_path / "program.py"
        script.write_text(HEADS[request.param] + textwrap.dedent(text))
        return run_python(str(script), *arguments, directory=tmp_path)

    return run


IN_MAIN = """
import sys
from gtaskman.futures import Executor

STATE = "fresh"

class Odd(Exception):
    pass

class Pair:
    def __init__(self, one, two):
        self.one, self.two = one, two

def prepare(state):
    global STATE
    STATE = state

def work(pair):
    if pair.two == 0:
        raise Odd("zero")
    return Pair(pair.one // pair.two, STATE)

if __name__ == "__main__":
    given = {"initializer": prepare, "initargs": ("prepared",)} if sys.argv[1:] else {}
    with Executor(2, **given) as executor:
        for pair in executor.map(work, [Pair(6, 3), Pair(9, 3)]):
            print(type(pair) is Pair, pair.one, pair.two)
        error = executor.submit(work, Pair(1, 0)).exception()
        print(type(error) is Odd, error)
        print(STATE)
"""


def test_functions_and_classes_of_the_main_module(run):
    done = run(IN_MAIN)

    assert (done.code, done.output) == (0, "True 2 fresh\nTrue 3 fresh\nTrue zero\nfresh\n")


def test_an_initializer_of_the_main_module_sets_what_its_functions_see(run):
    done = run(IN_MAIN, "initialized")

    assert (done.code, done.output) == (
        0,
        "True 2 prepared\nTrue 3 prepared\nTrue zero\nfresh\n",
    )


OTHER_MODULE = """
from gtaskman.futures import Executor
import operator

def prepare():
    operator.hello = "from the initializer"

if __name__ == "__main__":
    with Executor(1, initializer=prepare) as executor:
        print(executor.submit(eval, "__import__('operator').hello").result())
"""


def test_an_initializer_of_the_main_module_before_functions_of_another(run):
    done = run(OTHER_MODULE)

    assert (done.code, done.output) == (0, "from the initializer\n")


AT_EXIT = """
import atexit

def last():
    try:
        executor.submit(abs, 1)
    except RuntimeError as error:
        print(error, flush=True)

if __name__ == "__main__":
    atexit.register(last)  # before that of the executor: it runs after it

import time
from gtaskman.futures import Executor

def work(text):
    time.sleep(0.3)
    return text

if __name__ == "__main__":
    executor = Executor(1)
    for number in range(3):
        future = executor.submit(work, number)
        future.add_done_callback(lambda done: print(done.result(), flush=True))
    print("the end of the program", flush=True)
"""


def test_the_interpreter_ends_when_all_is_done(run):
    done = run(AT_EXIT)

    assert done.code == 0, done.output
    assert done.output.splitlines() == [
        "the end of the program",
        "0",
        "1",
        "2",
        "cannot schedule new futures after interpreter shutdown",
    ]


DROPPED_AT_EXIT = """
from gtaskman.futures import Executor

if __name__ == "__main__":
    executor = Executor(1)
    print(executor.submit(abs, -3).result(), flush=True)
    Executor(1).submit(print, "dropped", flush=True)
    gone = Executor(1)
    gone.submit(print, "not waited for", flush=True)
    gone.shutdown(wait=False)
"""


def test_what_was_dropped_or_shut_down_without_waiting_is_done(run):
    done = run(DROPPED_AT_EXIT)

    assert done.code == 0, done.output
    assert sorted(done.output.splitlines()) == ["3", "dropped", "not waited for"]


UNGUARDED = """
from gtaskman.futures import Executor

def double(number):
    return number * 2

with Executor(2) as executor:
    print(executor.submit(double, 4).result())
"""


def test_a_program_without_a_guard_is_told_so(run):
    done = run(UNGUARDED)

    assert done.code == 1, done.output
    assert "MainGuardError" in done.output
    assert "if __name__ == '__main__':" in words(done.output)


PATCHED_LATE = """
from gtaskman.futures import Executor
from gevent import monkey; monkey.patch_all()
import gevent

if __name__ == "__main__":
    ticks = []
    def tick():
        while True:
            ticks.append(1)
            gevent.sleep(0.001)
    ticker = gevent.spawn(tick)
    with Executor(1) as executor:
        executor.submit(abs, -1).result()
        before = len(ticks)
        executor.submit(eval, "__import__('time').sleep(0.3)").result()
        print(len(ticks) > before + 10)
    ticker.kill()
"""


def test_a_wait_lets_other_greenlets_run_whenever_it_was_imported(tmp_path):
    script = tmp_path / "program.py"
    script.write_text(PATCHED_LATE)

    done = run_python(str(script), directory=tmp_path)

    assert (done.code, done.output) == (0, "True\n")


PROXIES = """
import multiprocessing
from gtaskman.futures import Executor

def put(queue, values, number):
    queue.put(number)
    values[number] = number * number

if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Manager() as manager:
        queue, values = manager.Queue(), manager.dict()
        with Executor(2) as executor:
            for number in range(4):
                executor.submit(put, queue, values, number).result()
        print([queue.get() for _ in range(4)], dict(values))
"""


def test_proxies_of_a_multiprocessing_manager_are_handed_over(tmp_path):
    script = tmp_path / "program.py"
    script.write_text(PROXIES)

    done = run_python(str(script), directory=tmp_path)

    assert (done.code, done.output) == (0, "[0, 1, 2, 3] {0: 0, 1: 1, 2: 4, 3: 9}\n")


UNREFERENCED = """
import multiprocessing
from gtaskman.futures import Executor

LOCK = None

def hold(lock):
    with lock:
        return "held"

def keep(lock):
    global LOCK
    LOCK = lock

def hold_kept():
    return hold(LOCK)

if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Manager() as manager:
        with Executor(1) as executor:
            print(executor.submit(hold, manager.Lock()).result())
        with Executor(1, initializer=keep, initargs=(manager.Lock(),)) as executor:
            print(executor.submit(hold_kept).result())
"""


def test_a_proxy_that_only_the_call_refers_to_is_kept(tmp_path):
    script = tmp_path / "program.py"
    script.write_text(UNREFERENCED)

    done = run_python(str(script), directory=tmp_path)

    assert (done.code, done.output) == (0, "held\nheld\n")
