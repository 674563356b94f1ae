"""Tasks: what can be one, what its options are, and that mistakes are named where they are made."""

from __future__ import annotations

import abc
import datetime
import functools
import pickle
import subprocess
import sys
from typing import ClassVar

import pytest

import gtaskman
from gtaskman import AsyncTask, Task, TaskDefinitionError, TaskOptionError, task
from gtaskman.task import MAX_ID, Definition, fresh_id, register

pytestmark = [pytest.mark.quick, pytest.mark.usefixtures("registered")]

LIMITS = {"timeout": 5, "soft_timeout": 2, "retries": 3, "max_crashes": 2}


class Multiply(Task):
    number1: float
    number2: float = 2
    label: str | None = None
    shared: ClassVar[int] = 5
    _hidden: int = 6

    def run(self, progress):
        progress.update(1, target=2)
        return self.number1 * self.number2


@task
def thumbnail(path: str, width: int = 64, *, fast: bool = False) -> str:
    """Make it small."""
    return f"{path}:{width}:{fast}"


def refused(build, field, name=None):
    """What a mistaken ``build()`` says; it must name the task and the field."""
    with pytest.raises(TaskOptionError) as caught:
        build()
    error = caught.value
    assert error.field == field
    assert error.task is not None
    assert name is None or error.task == name
    assert error.task in str(error)
    assert field is None or field in str(error)
    return str(error)


# --- class form


def test_a_task_has_its_options_as_attributes():
    made = Multiply(number1=5, label="x")
    assert (made.number1, made.number2, made.label) == (5.0, 2.0, "x")
    assert isinstance(made.number1, float)
    assert made.arguments() == ((), {"number1": 5.0, "number2": 2.0, "label": "x"})


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({}, "number1"),
        ({"number1": "5"}, "number1"),
        ({"number1": None}, "number1"),
        ({"number1": 5, "number2": [1]}, "number2"),
        ({"number1": 5, "label": 7}, "label"),
        ({"number1": 5, "number3": 1}, "number3"),
        ({"number1": 5, "shared": 1}, "shared"),
        ({"number1": 5, "_hidden": 1}, "_hidden"),
        ({"number1": 5, "run": print}, "run"),
        ({"number1": 10**400}, "number1"),
    ],
    ids=lambda value: f"{value!r:.40}",
)
def test_a_wrong_a_missing_and_an_unknown_option_are_named(options, field):
    refused(lambda: Multiply(**options), field, Multiply.definition.name)


def test_an_unknown_option_says_which_there_are():
    assert "number1, number2, label" in refused(lambda: Multiply(number1=1, zzz=1), "zzz")


def test_options_go_by_name_only():
    assert "by name" in refused(lambda: Multiply(5), None)


def test_a_task_option_error_is_ours_and_a_value_error():
    assert issubclass(TaskOptionError, (gtaskman.GTaskmanError,))
    assert issubclass(TaskOptionError, ValueError)


def test_a_class_inherits_options_limits_and_run():
    class Parent(Task, timeout=5, retries=2):
        first: int

        def run(self, _progress):
            return self.first

    class Child(Parent, timeout=7):
        second: str = "two"

    class Grandchild(Child, abc.ABC):
        first: int = 1

    assert Child(first=1).arguments()[1] == {"first": 1, "second": "two"}
    assert (Child.definition.timeout, Child.definition.retries) == (7, 2)
    assert Parent.definition.timeout == 5
    assert Grandchild()() == 1
    assert Grandchild.definition.target is Grandchild
    refused(lambda: Child(second="x"), "first")


def test_mixins_that_are_no_tasks_declare_no_options():
    class Mixin:
        other: int

    class Mixed(Mixin, Task):
        own: int

    assert Mixed(own=1).arguments()[1] == {"own": 1}


def test_the_kind_follows_the_base_class():
    class Fetch(AsyncTask):
        def run(self, _progress):
            return 5

    assert (Fetch.definition.kind, Fetch.definition.is_async) == ("async", True)
    assert (Multiply.definition.kind, Multiply.definition.is_async) == ("sync", False)


@pytest.mark.parametrize("option", ["id", "definition", "kind", "run", "submit", "arguments"])
def test_an_option_cannot_have_the_name_of_something_of_tasks_own(option):
    def build():
        made = type("Odd", (Task,), {"__annotations__": {option: str}, "__module__": __name__})
        return made(**{option: "x"})

    with pytest.raises(TaskDefinitionError, match=option):
        build()


def test_a_class_without_run_says_so_when_it_runs():
    class Idle(Task):
        pass

    with pytest.raises(TaskDefinitionError, match=r"Idle has no run"):
        Idle()()


def test_a_revived_task_is_the_one_that_was_sent():
    sent = Multiply(number1=5, id="mine")
    revived = Multiply.revive(sent.id, sent.arguments()[1])
    assert type(revived) is Multiply
    assert (revived.id, revived.__dict__) == ("mine", sent.__dict__)


def test_a_coroutine_as_run_is_refused():
    async def run(self, _progress):
        return 5

    with pytest.raises(TaskDefinitionError, match="coroutine"):
        type("Coroutine", (Task,), {"run": run, "__module__": __name__})()


# --- function form


def test_a_plain_call_runs_right_here():
    assert thumbnail("a.png", fast=True) == "a.png:64:True"
    assert thumbnail(path="a.png", width="not even checked") == "a.png:not even checked:False"


def test_a_task_function_looks_like_its_function():
    assert thumbnail.__name__ == "thumbnail"
    assert thumbnail.__doc__ == "Make it small."
    assert thumbnail.definition.name == f"{__name__}.thumbnail"
    assert thumbnail.definition.name in repr(thumbnail)
    assert "sync" in repr(thumbnail)


@pytest.mark.parametrize("build", ["task", "with_id", "check"])
@pytest.mark.parametrize(
    ("args", "kwargs", "field"),
    [
        ((), {}, "path"),
        ((5,), {}, "path"),
        (("a", "64"), {}, "width"),
        (("a",), {"width": None}, "width"),
        (("a",), {"fast": "yes"}, "fast"),
        (("a",), {"height": 5}, "height"),
        (("a",), {"path": "b"}, "path"),
    ],
    ids=repr,
)
def test_a_call_that_cannot_be_is_refused_and_the_argument_named(build, args, kwargs, field):
    calls = {
        "task": lambda: thumbnail.task(*args, **kwargs),
        "with_id": lambda: thumbnail.with_id("mine", *args, **kwargs),
        "check": lambda: thumbnail.check(args, kwargs),
    }
    refused(calls[build], field, thumbnail.definition.name)


def test_too_many_arguments_are_refused():
    message = refused(lambda: thumbnail.task("a", 1, True), None)
    assert "too many" in message
    assert "(path: " in message, "the signature is shown"


@task
def bare(first, second=2, *rest, third, **others):
    return first, second, rest, third, others


@task
def anything(*args, **kwargs):
    return args, kwargs


@task
def nothing():
    return None


@pytest.mark.parametrize(
    ("function", "args", "kwargs"),
    [
        (bare, (1,), {"third": 3}),
        (bare, (1, 2, 3, 4), {"third": 3, "fourth": 4}),
        (anything, (), {}),
        (anything, (1, 2), {"self": 3, "id": 4, "timeout": 5, "task": 6}),
        (nothing, (), {}),
        (thumbnail, ("a", 3), {}),
        (thumbnail, (), {"path": "a"}),
    ],
)
def test_a_call_that_can_be_is_taken_as_it_is(function, args, kwargs):
    assert function.task(*args, **kwargs).arguments() == (args, kwargs)


def test_a_parameter_named_id_is_no_obstacle():
    @task
    def by_id(id, self=None):
        return id

    made = by_id.with_id("mine", id=5)
    assert (made.id, made.arguments()) == ("mine", ((), {"id": 5}))
    assert by_id(id=5) == 5
    assert by_id(5, self=6) == 5


@pytest.mark.parametrize(
    ("function", "args", "field"),
    [(bare, (1,), "third"), (bare, (), "first"), (nothing, (1,), None)],
)
def test_unannotated_functions_are_checked_against_their_signature(function, args, field):
    refused(lambda: function.task(*args), field)


def test_unannotated_arguments_are_anything():
    assert bare.task(object, third=...).arguments() == ((object,), {"third": ...})


def test_arguments_are_passed_on_as_they_are():
    # An int is fine where a float is wanted, and stays the int it is.
    @task
    def half(number: float):
        return number / 2

    ((number,), _) = half.task(5).arguments()
    assert type(number) is int


@pytest.mark.parametrize(("annotation", "text"), [(bytes, "abcd"), (datetime.date, "2024-01-01")])
def test_a_function_gets_no_text_where_it_wants_something_else(annotation, text):
    # given a function that wants bytes or a date, and gets its arguments as they are
    def wants(value):
        return value

    wants.__annotations__ = {"value": annotation}
    # expect that a text, which one could make it of, is none
    refused(lambda: task(wants).task(text), "value")


def test_annotations_are_left_alone_if_so_wished():
    @task(validate=False)
    def loose(number: int):
        return number

    assert loose.task("text").arguments() == (("text",), {})
    refused(lambda: loose.task(), "number")


def test_a_changed_copy_checks_like_the_original():
    @task(validate=False)
    def loose(number: int):
        return number

    assert loose.with_options(timeout=1).task("text")
    refused(lambda: thumbnail.with_options(timeout=1).task(5), "path")


def test_a_task_made_of_a_call_runs_right_here_and_knows_itself():
    @task
    def who():
        return gtaskman.current()

    current = who.with_id("mine")()
    assert (current.id, current.name, current.attempt) == ("mine", who.definition.name, 1)
    assert current.deadline is None


# --- what may be made a task


def coroutine_function():
    async def coroutine():
        pass

    return coroutine


def async_generator_function():
    async def generate():
        yield

    return generate


@pytest.mark.parametrize(
    "make",
    [
        coroutine_function,
        async_generator_function,
        lambda: functools.partial(coroutine_function()),
    ],
    ids=["coroutine", "async generator", "partial"],
)
def test_coroutine_functions_are_refused_and_the_way_is_shown(make):
    with pytest.raises(TaskDefinitionError, match=r"coroutine.*kind='async'"):
        task(make())


@pytest.mark.parametrize("thing", [5, "text", int, Multiply, None.__class__], ids=repr)
def test_what_is_no_function_is_no_task(thing):
    with pytest.raises(TaskDefinitionError, match="takes a function"):
        task(thing)


def test_anything_else_that_can_be_called_may_be_a_task():
    class Callable:
        def __call__(self, x: int):
            return x + 1

    add = task(name="tests.add")(functools.partial(lambda a, b: a + b, 1))
    assert add(2) == 3
    called = task(name="tests.called")(Callable())
    assert called(1) == 2
    refused(lambda: called.task(), "x")


# --- the options of a definition


def decorated(**options):
    return task(**options)(lambda: None).definition


def derived(**options):
    return type("Derived", (Task,), {"__module__": __name__}, **options).definition


def changed(**options):
    return thumbnail.with_options(**options).definition


def changed_object(**options):
    return Multiply(number1=1).with_options(**options).definition


@pytest.mark.parametrize("define", [decorated, derived, changed, changed_object])
@pytest.mark.parametrize(
    "options",
    [
        {},
        LIMITS,
        {"timeout": 0.5},
        {"soft_timeout": 5},
        {"retries": 0},
        {"max_crashes": 1},
        {"at_most_once": True},
    ],
    ids=repr,
)
def test_limits_are_kept(define, options):
    definition = define(**options)
    defaults = {"timeout": None, "soft_timeout": None, "retries": 0, "max_crashes": None}
    expected = {**defaults, "at_most_once": False, **options}
    assert {name: getattr(definition, name) for name in expected} == expected


@pytest.mark.parametrize("define", [decorated, derived, changed, changed_object])
@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"timeout": 0}, "timeout"),
        ({"timeout": -1}, "timeout"),
        ({"timeout": "5"}, "timeout"),
        ({"timeout": True}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
        ({"soft_timeout": 0}, "soft_timeout"),
        ({"soft_timeout": 5, "timeout": 5}, "soft_timeout"),
        ({"retries": -1}, "retries"),
        ({"retries": 1.5}, "retries"),
        ({"retries": True}, "retries"),
        ({"retries": None}, "retries"),
        ({"max_crashes": 0}, "max_crashes"),
        ({"max_crashes": "1"}, "max_crashes"),
        ({"at_most_once": True, "retries": 1}, "at_most_once"),
        ({"tiemout": 5}, "tiemout"),
    ],
    ids=repr,
)
def test_limits_that_make_no_sense_are_refused_and_named(define, options, word):
    with pytest.raises(TaskDefinitionError, match=word):
        define(**options)


@pytest.mark.parametrize("kind", ["parallel", "SYNC", None, 5])
def test_a_kind_that_is_none_is_refused(kind):
    with pytest.raises(TaskDefinitionError, match="'sync' or 'async'"):
        decorated(kind=kind)


def test_other_limits_leave_the_original_as_it_was():
    slow = thumbnail.with_options(timeout=5)
    assert slow.definition.timeout == 5
    assert thumbnail.definition.timeout is None
    assert slow.definition.target is thumbnail.definition.target
    assert slow.definition.number != thumbnail.definition.number
    assert slow("a") == thumbnail("a")
    one = Multiply(number1=1).with_options(timeout=5)
    assert one.definition.timeout == 5
    assert Multiply.definition.timeout is None
    assert Multiply(number1=1).definition.timeout is None


def test_what_a_task_may_be_replaced_by_is_another_limit_only():
    for name in ("target", "kind", "name", "number"):
        with pytest.raises(TaskDefinitionError, match=name):
            thumbnail.with_options(**{name: None})


# --- names


def test_two_tasks_cannot_claim_one_name():
    task(name="tests.claimed")(thumbnail.definition.target)

    def another():
        pass

    with pytest.raises(TaskDefinitionError) as caught:
        task(name="tests.claimed")(another)
    message = str(caught.value)
    assert "'tests.claimed'" in message
    assert "thumbnail" in message
    assert "another" in message
    assert "name=" in message


def test_a_class_and_a_function_cannot_claim_one_name_either():
    task(name="tests.claimed")(thumbnail.definition.target)
    with pytest.raises(TaskDefinitionError, match="claim"):

        class Claimer(Task, name="tests.claimed"):
            def run(self, _progress):
                pass


def test_the_same_code_may_be_defined_anew(registered):
    # As when a module is imported again.
    def define():
        @task(name="tests.again")
        def again():
            pass

        return again

    define()
    second = define()
    assert registered["tests.again"] is second.definition


def test_the_main_module_is_the_same_under_its_name_in_workers():
    def code():
        pass

    code.__module__ = "__main__"
    first = task(name="tests.main")(code)
    code.__module__ = "__mp_main__"
    register(Definition(name="tests.main", kind="sync", target=code))
    assert task(code).definition.name.startswith("__main__.")
    assert first.definition.name == "tests.main"


def test_only_a_class_that_runs_takes_a_name(registered):
    class Abstract(Task, name="tests.abstract"):
        pass

    class Concrete(Abstract, name="tests.concrete"):
        def run(self, _progress):
            pass

    assert "tests.abstract" not in registered
    assert registered["tests.concrete"] is Concrete.definition


# --- ids


def test_a_fresh_id_is_unique_and_can_be_an_id():
    ids = {Multiply(number1=1).id for _ in range(1000)} | {thumbnail.task("a").id}
    assert len(ids) == 1001
    assert all(Multiply(number1=1, id=each).id == each for each in list(ids)[:3])


def test_other_processes_have_other_ids():
    # given another process, and a fork of it
    script = """
import os
from gtaskman.task import fresh_id
mine, (read, write) = fresh_id(), os.pipe()
if os.fork() == 0:
    os.write(write, fresh_id().encode())
    os._exit(0)
print(mine, os.read(read, 99).decode())
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    # expect each of them to count under a prefix of its own
    prefixes = {each.split("-")[0] for each in (*run.stdout.split(), fresh_id())}
    assert len(prefixes) == 3


@pytest.mark.parametrize("task_id", ["a", "x" * MAX_ID, "with space", "\u00fc:/\U0001f600"])
def test_ids_of_ones_own_are_taken(task_id):
    assert Multiply(number1=1, id=task_id).id == task_id
    assert thumbnail.with_id(task_id, "a").id == task_id


@pytest.mark.parametrize(
    "task_id",
    ["", "x" * (MAX_ID + 1), "new\nline", "nul\0", "\ud800", 5, b"bytes"],
    ids=["empty", "long", "newline", "nul", "surrogate", "number", "bytes"],
)
def test_ids_that_cannot_be_keys_are_refused(task_id):
    refused(lambda: Multiply(number1=1, id=task_id), "id")
    refused(lambda: thumbnail.with_id(task_id, "a"), "id")


def test_a_tasks_repr_shows_what_it_is():
    text = repr(Multiply(number1=5, id="mine"))
    assert all(part in text for part in ("Multiply", "number1=5.0", "id=mine"))
    text = repr(thumbnail.with_id("mine", "a.png", width=3))
    assert all(part in text for part in ("thumbnail", "'a.png'", "width=3", "id=mine"))
    assert len(repr(thumbnail.task("x" * 10_000))) < 500


# --- what runs right here


def test_a_class_task_runs_right_here():
    assert Multiply(number1=5, number2=10)() == 50
    assert Multiply(number1=5).run(gtaskman.Progress()) == 10


def test_where_no_task_runs_current_is_a_stand_in():
    current = gtaskman.current()
    assert (current.id, current.attempt, current.deadline) == ("", 0, None)
    assert current.remaining() is None
    current.progress.update(5, target=10, message="leads nowhere")


def test_after_a_task_ran_here_nothing_is_current():
    thumbnail.task("a")()
    assert gtaskman.current().id == ""


@pytest.mark.parametrize(("deadline", "expected"), [(0.0, 0.0), (1e12, 1e12)])
def test_what_remains_is_never_below_nothing(deadline, expected):
    current = gtaskman.Current("", "", 1, deadline, gtaskman.Progress())
    assert current.remaining() == pytest.approx(expected, rel=0.01)


# --- as an argument of another task


def test_a_task_function_is_pickled_by_name():
    assert pickle.loads(pickle.dumps(thumbnail)) is thumbnail
