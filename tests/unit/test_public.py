"""The public surface: every name is there, is documented, and importing it does nothing else."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import subprocess
import sys
import textwrap
from pathlib import Path

import django
import pytest

import gtaskman

pytestmark = pytest.mark.quick

EVERY = sorted(each.name for each in pkgutil.walk_packages(gtaskman.__path__, "gtaskman."))
# What Django has to be set up for, which would be so for all tests of this process.
FOR_DJANGO = [each for each in EVERY if each.startswith("gtaskman.contrib.django.")]
OF_DJANGO_TASKS = [
    f"gtaskman.contrib.django.{name}" for name in ("backend", "performer", "results")
]
MODULES = [each for each in EVERY if each not in FOR_DJANGO]


def fresh(script, *flags):
    """What a fresh interpreter prints."""
    command = [sys.executable, *flags, "-c", textwrap.dedent(script)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def test_the_default_manager_can_be_had_whatever_was_imported_before():
    told = fresh(
        "import gtaskman, gtaskman.taskmanager; gtaskman.TaskManager;"
        " manager = gtaskman.manager();"
        " print(type(manager).__name__, manager is gtaskman.manager()); gtaskman.shutdown()"
    )
    assert told == "TaskManager True"


def test_every_public_name_is_there():
    assert len(set(gtaskman.__all__)) == len(gtaskman.__all__)
    for name in gtaskman.__all__:
        assert getattr(gtaskman, name) is not None
    assert set(gtaskman.__all__) <= set(dir(gtaskman))


@pytest.mark.parametrize(
    "name",
    [
        *("task", "Task", "AsyncTask", "Progress", "TaskStatus", "Report"),
        *("submit", "map", "cancel", "report", "shutdown", "configure", "current"),
        *("TaskManager", "TaskHandle", "Configuration"),
        *("TaskQueue", "InMemoryTaskQueue", "TaskStorage", "InMemoryTaskStorage"),
        *("GTaskmanError", "TaskFailed", "WorkerCrashed", "TaskTimedOut", "TaskCancelled"),
        *("TaskOptionError", "DuplicateTaskError"),
    ],
)
def test_what_the_contract_names_is_public(name):
    assert name in gtaskman.__all__


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"'gtaskman' has no attribute 'nothing'"):
        _ = gtaskman.nothing


def test_the_modules_of_the_package_do_not_shadow_its_functions():
    # `gtaskman.task` and `gtaskman.report` are functions, and modules, too.
    for name in MODULES:
        importlib.import_module(name)
    shadowed = [name for name in gtaskman.__all__ if inspect.ismodule(getattr(gtaskman, name))]
    assert shadowed == []


def test_all_errors_have_one_root():
    errors = [
        each
        for each in vars(gtaskman).values()
        if isinstance(each, type) and issubclass(each, BaseException)
    ]
    assert len(errors) > 15
    odd = {each for each in errors if not issubclass(each, gtaskman.GTaskmanError)}
    # What is thrown into a task is, like every request to stop, no Exception.
    assert odd == {gtaskman.Cancelled}
    assert not issubclass(gtaskman.Cancelled, Exception)
    assert issubclass(gtaskman.WaitTimeout, TimeoutError)
    assert issubclass(gtaskman.WorkerCrashed, gtaskman.TaskFailed)
    assert issubclass(gtaskman.TaskTimedOut, gtaskman.TaskFailed)


# --- importing it

IMPORT = """
    import os, socket, sys, threading, time
    # What the interpreter and gevent's own import may open is not ours.
    import gevent, gevent.monkey
    def descriptors():
        return sorted(os.listdir("/proc/self/fd"))
    before = descriptors(), socket.socket, time.sleep, os.fork, threading.Thread.start
    import gtaskman
    {more}
    after = descriptors(), socket.socket, time.sleep, os.fork, threading.Thread.start
    print(before == after)
    print(any(map(gevent.monkey.is_module_patched, ("socket", "time", "os", "threading"))))
    print(len(os.listdir("/proc/self/task")), threading.active_count())
    from gevent._hub_local import get_hub_if_exists
    print(get_hub_if_exists())
"""
DEFINE = """
    @gtaskman.task
    def f(x: int): return x
    class C(gtaskman.Task):
        x: int
    f.task(5), C(x=5), gtaskman.current(), gtaskman.Configuration()
"""


@pytest.mark.parametrize("more", ["", DEFINE], ids=["import", "define tasks"])
def test_importing_it_patches_starts_and_opens_nothing(more):
    script = textwrap.dedent(IMPORT).replace("{more}", textwrap.dedent(more))
    assert fresh(script).splitlines() == ["True", "False", "1 1", "None"]


@pytest.mark.parametrize("more", ["", DEFINE], ids=["import", "define tasks"])
def test_whoever_only_defines_tasks_does_not_load_the_manager(more):
    script = "import gtaskman, sys\n" + textwrap.dedent(more) + "\nprint(*sorted(sys.modules))"
    loaded = fresh(script).split()
    assert "gtaskman.task" in loaded
    rooms = ("manager", "pool", "queues", "storages", "handle", "wire", "child", "job")
    assert [each for each in loaded if each.startswith(tuple(f"gtaskman.{r}" for r in rooms))] == []


def test_importing_it_warns_of_nothing():
    assert fresh("import gtaskman.taskmanager; print('fine')", "-W", "error") == "fine"


def test_star_import_gives_the_public_names():
    script = "from gtaskman import *\nimport gtaskman\n"
    script += "print(all(name in globals() for name in gtaskman.__all__))"
    assert fresh(script) == "True"


@pytest.mark.parametrize(
    "name",
    [
        "gtaskman.child.forked",
        "gtaskman.child.worker",
        "gtaskman.handle",
        "gtaskman.latch",
        "gtaskman.taskmanager",
        "gtaskman.pool.pool",
        "gtaskman.reference",
        "gtaskman.wire.channel",
    ],
)
def test_a_room_can_be_entered_first(name):
    # No room depends on another having been entered before it.
    assert fresh(f"import {name}; print('fine')") == "fine"


# --- documentation


def public_members(cls_or_module):
    """The public functions, classes and properties that stand in it, with their names."""
    for name, member in vars(cls_or_module).items():
        if isinstance(member, (classmethod, staticmethod)):
            member = member.__func__
        is_code = inspect.isfunction(member) or inspect.isclass(member)
        if not name.startswith("_") and (is_code or isinstance(member, property)):
            yield name, member


def protocols_of(module):
    """What is said once in a protocol need not be said again by those who keep it."""
    return [each for each in vars(module).values() if getattr(each, "_is_protocol", False)]


def silent_in(module):
    """What is public in a module and says nothing about itself, not even in a base class."""
    for name, member in public_members(module):
        if getattr(member, "__module__", None) != module.__name__:
            continue  # imported: its own module answers for it
        if not inspect.getdoc(member):
            yield name
        if inspect.isclass(member) and not issubclass(member, BaseException):
            for method, _ in public_members(member):
                words = (getattr(each, method, None) for each in (member, *protocols_of(module)))
                if not any(map(inspect.getdoc, filter(None, words))):
                    yield f"{name}.{method}"


def check_documentation(name):
    """Fails for a module in which something public says nothing about itself."""
    module = importlib.import_module(name)
    assert module.__doc__ or name == "gtaskman._version", f"{name} does not say what it is"
    assert list(silent_in(module)) == []


@pytest.mark.parametrize("name", ["gtaskman", *MODULES])
def test_everything_public_is_documented(name):
    check_documentation(name)


def test_everything_for_django_is_documented(monkeypatch):
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "django.conf.global_settings")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    has_tasks = django.VERSION >= (6, 0)
    names = [each for each in FOR_DJANGO if has_tasks or each not in OF_DJANGO_TASKS]
    assert len(names) > 10
    done = fresh(f"""
        from test_public import check_documentation
        for name in {names}:
            check_documentation(name)
        print("all")
    """)
    assert done == "all"


def test_every_public_name_says_what_it_is():
    for name in gtaskman.__all__:
        value = getattr(gtaskman, name)
        if name != "__version__":
            assert inspect.getdoc(value), name
