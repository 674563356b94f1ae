"""References: how code is found again in another process."""

from __future__ import annotations

import functools
import math
import os
import subprocess
import sys
import textwrap
import types

import pytest

from gtaskman import reference
from gtaskman.errors import MainGuardError, TaskTravelError
from gtaskman.reference import Main, Reference, main_of_application, refer, resolve
from gtaskman.task import Definition, Task, TaskFunction, task

pytestmark = [pytest.mark.quick, pytest.mark.usefixtures("registered")]


def plain(x):
    return x + 1


@task
def decorated(x):
    return x + 2


@functools.cache
def cached(x):
    return x + 3


class Holder:
    def __init__(self, base=0):
        self.base = base

    def __eq__(self, other):
        return self.base == other.base

    def method(self, x):
        return self.base + x

    @classmethod
    def of_class(cls, x):
        return x + 4

    @staticmethod
    def static(x):
        return x + 5

    class Inner:
        @staticmethod
        def deep(x):
            return x + 6


class Job(Task):
    x: int

    def run(self, _progress):
        return self.x + 7


def hidden(x):
    return x


wrapped_away = hidden


def hidden(x):
    return -x


def nested(offset):
    def inner(x):
        return x + offset

    return inner


def define(target):
    if isinstance(target, TaskFunction):
        return target.definition
    return Definition(name="tests.it", kind="sync", target=target)


BY_NAME = {
    "function": (plain, __name__, "plain"),
    "task function": (decorated, __name__, "decorated"),
    "wrapped function": (cached, __name__, "cached"),
    "class": (Job, __name__, "Job"),
    "static method": (Holder.static, __name__, "Holder.static"),
    "nested class": (Holder.Inner, __name__, "Holder.Inner"),
    "of a nested class": (Holder.Inner.deep, __name__, "Holder.Inner.deep"),
    "unbound method": (Holder.method, __name__, "Holder.method"),
    "builtin": (len, "builtins", "len"),
    "builtin class": (int, "builtins", "int"),
    "of a C module": (math.sqrt, "math", "sqrt"),
}


@pytest.mark.parametrize(("target", "module", "path"), BY_NAME.values(), ids=BY_NAME)
@pytest.mark.parametrize("installed", [True, False], ids=["cloudpickle", "plain"])
def test_what_a_module_holds_under_its_name_travels_as_that_name(
    target, module, path, installed, monkeypatch
):
    if not installed:
        monkeypatch.setitem(sys.modules, "cloudpickle", None)
    made = refer(define(target))
    assert made == Reference(module, path, None)
    assert resolve(made, None) is reference.unwrap(target)


BY_VALUE = {
    "lambda": (lambda: lambda x: x + 5),
    "nested function": (lambda: nested(5)),
    "a name that leads elsewhere": (lambda: functools.wraps(plain)(lambda x: x + 5)),
    "partial of a lambda": (lambda: functools.partial(lambda y, x: x + y, 5)),
}
BY_PICKLE = {
    "bound method": (lambda: Holder(5).method),
    "bound builtin": (lambda: (5).__add__),
    "partial": (lambda: functools.partial(max, 0, 6)),
}


@pytest.mark.parametrize("make", {**BY_VALUE, **BY_PICKLE}.values(), ids={**BY_VALUE, **BY_PICKLE})
def test_other_code_travels_by_value_with_cloudpickle(make):
    made = refer(define(make()))
    assert made.value is not None
    assert resolve(made, None)(1) == 6


@pytest.mark.parametrize("make", BY_PICKLE.values(), ids=BY_PICKLE)
def test_what_plain_pickle_takes_needs_no_cloudpickle(make, monkeypatch):
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    assert resolve(refer(define(make())), None)(1) == 6


def test_a_class_method_travels_bound_to_its_class():
    assert resolve(refer(define(Holder.of_class)), None)(1) == 5


@pytest.mark.parametrize("make", BY_VALUE.values(), ids=BY_VALUE)
def test_without_cloudpickle_the_mend_is_named(make, monkeypatch):
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    with pytest.raises(TaskTravelError) as caught:
        refer(define(make()))
    message = str(caught.value)
    assert message.startswith("task tests.it cannot travel")
    assert "top of a module" in message
    assert "install cloudpickle" in message


def test_with_cloudpickle_what_no_pickle_takes_is_refused_with_the_reason():
    frame = sys._getframe()
    with pytest.raises(TaskTravelError, match=r"tests\.it.*frame.*top of a module"):
        refer(define(lambda: frame))


def test_code_whose_name_leads_to_other_code_does_not_travel_by_that_name():
    assert resolve(refer(define(wrapped_away)), None)(5) == 5


def test_a_task_function_by_value_arrives_as_its_plain_function():

    @task
    def inner(x):
        return x + 5

    arrived = resolve(refer(inner.definition), None)
    assert isinstance(arrived, types.FunctionType)
    assert arrived(1) == 6


def test_what_is_not_there_is_told_by_the_import_itself():
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        resolve(Reference("no_such_module", "f"), None)
    with pytest.raises(AttributeError, match="gone"):
        resolve(Reference(__name__, "gone"), None)


def test_a_module_that_starts_work_when_a_worker_imports_it_is_told_so(tmp_path, monkeypatch):
    (tmp_path / "tests_starts_work.py").write_text("import gtaskman\ngtaskman.submit(len, [])\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MainGuardError, match=r"tests_starts_work.*\n.*\n.*__main__"):
        resolve(Reference("tests_starts_work", "f"), None)


# --- the main module, each in a process of its own

SCRIPT = """
import sys
import gtaskman
from gtaskman.reference import MAIN, Main, Reference, main_of_application, refer, resolve
from gtaskman.task import Definition

if "again" in sys.argv:
    print("imported", __name__)

def code(x):
    return x + 1

@gtaskman.task
def decorated(x):
    return x + 2

if __name__ == "__main__":
    main = main_of_application()
    for made in (Definition(name="tests.code", kind="sync", target=code), decorated.definition):
        found = refer(made)
        print(found.module, found.path, found.value is None)
    print(main.name, main.path)
"""
RESOLVE = """
import sys
from gtaskman.reference import Main, Reference, resolve
main = Main(*[each or None for each in sys.argv[1:3]])
sys.argv.append("again")
for path in ("code", "decorated", "code"):
    print(resolve(Reference("__main__", path), main)(1))
import __main__, __mp_main__
print(__main__ is __mp_main__, __main__.code.__module__)
"""


def run(*args, **options):
    command = [sys.executable, *map(str, args)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


@pytest.mark.parametrize("started", ["as a file", "with -m"])
def test_code_of_the_main_module_travels_by_name(tmp_path, started):
    # given an application whose main module holds the code
    script = tmp_path / "tests_main_script.py"
    script.write_text(SCRIPT)
    command = [script] if started == "as a file" else ["-m", "tests_main_script"]
    name, path = ("None", str(script)) if started == "as a file" else (script.stem, "None")
    # if it refers to it
    lines = run(*command, cwd=tmp_path)
    # expect a reference to the main module, and how that was started
    assert lines == ["__main__ code True", "__main__ decorated True", f"{name} {path}"]
    # if a worker resolves that
    main = [each.replace("None", "") for each in (name, path)]
    lines = run("-c", RESOLVE, *main, cwd=tmp_path)
    # expect the module to be imported once, with its guarded part left out
    assert lines == ["imported __mp_main__", "2", "3", "2", "True __mp_main__"]


def test_code_typed_into_a_console_travels_by_value():
    script = """
        from gtaskman.reference import main_of_application, refer, resolve
        from gtaskman.task import Definition
        def code(x): return x + 1
        print(main_of_application())
        found = refer(Definition(name="tests.code", kind="sync", target=code))
        print(found.value is None, resolve(found, None)(1))
    """
    assert run("-c", textwrap.dedent(script)) == ["None", "False 2"]


def test_a_main_module_without_a_file_cannot_be_imported_again(monkeypatch):
    monkeypatch.setattr(reference, "_main", None)
    with pytest.raises(TaskTravelError, match="no file"):
        resolve(Reference("__main__", "f"), None)


def test_a_main_module_with_a_file_can_be_imported_again(monkeypatch):
    main = types.ModuleType("__main__")
    main.__file__ = __file__
    monkeypatch.setitem(sys.modules, "__main__", main)
    assert main_of_application() == Main(None, os.path.abspath(__file__))
