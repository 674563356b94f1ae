"""What cannot work is refused where it is defined or submitted, and the message names it."""

from __future__ import annotations

import functools
import logging
from typing import ClassVar

import late_annotations
import pytest

import gtaskman
from gtaskman import fields
from gtaskman.definitions import Definitions
from gtaskman.errors import TaskDefinitionError, TaskOptionError
from gtaskman.task import TaskFunction

pytestmark = pytest.mark.quick


def test_an_annotation_that_cannot_be_resolved_leaves_the_others_checked(caplog):
    fields._warned.clear()
    with caplog.at_level(logging.WARNING, "gtaskman"):
        with pytest.raises(TaskOptionError, match="option 'width'"):
            late_annotations.Priced(width="wide")
        with pytest.raises(TaskOptionError, match=r"no option 'most' \(it has: width, price\)"):
            late_annotations.Priced(width=1, most=7)
        assert late_annotations.Priced(width=1, price="anything").price == "anything"
        late_annotations.Priced(width=2)
    # expect it to be said once, with the name
    (record,) = caplog.records
    assert "'price' of late_annotations.Priced" in record.getMessage()
    assert "Decimal" in record.getMessage()


def test_the_same_holds_for_a_function(registered):
    function = gtaskman.task(late_annotations.priced)
    assert isinstance(function, TaskFunction)
    with pytest.raises(TaskOptionError, match="option 'width'"):
        function.task("wide")
    function.task(1, "anything")


@pytest.mark.parametrize("name", ["kind", "terms", "run", "id", "submit", "definition"])
def test_an_option_that_would_hide_a_part_of_every_task_is_refused_at_its_definition(name):
    with pytest.raises(TaskDefinitionError, match=f"Hidden: {name!r} cannot be an option"):
        type("Hidden", (gtaskman.Task,), {"__annotations__": {name: int}, "__module__": "tests"})


def test_a_class_variable_may_have_such_a_name(registered):
    class Quiet(gtaskman.Task):
        kind: ClassVar[str] = "async"

        def run(self, progress): ...

    assert Quiet.definition.is_async


def test_a_mutable_default_is_not_shared(registered):
    class Collects(gtaskman.Task):
        found: dict = {"seen": []}

        def run(self, progress): ...

    one, other = Collects(), Collects()
    one.found["seen"].append(1)
    assert other.found == Collects.found == {"seen": []}
    given = {}
    assert Collects(found=given).found is given


async def coroutine(): ...


async def generator():
    yield 1


class Called:
    async def __call__(self): ...


@pytest.mark.parametrize(
    "function",
    [coroutine, generator, functools.partial(coroutine), Called()],
    ids=["coroutine", "generator", "partial", "object"],
)
def test_a_coroutine_function_is_refused_when_it_is_submitted(function):
    with pytest.raises(TaskDefinitionError, match="is a coroutine function: under gevent"):
        Definitions().of(function)


@pytest.mark.parametrize(
    ("value", "annotation", "said"),
    [
        ("3", int, "Expected `int`, got `str`; the value is '3'"),
        pytest.param(10**5000, str, "a value of int that cannot be shown", id="long"),
        (1.5, int, "Expected `int`; the value is 1.5"),
    ],
)
def test_a_mismatch_is_one_sentence_with_the_value(value, annotation, said):
    with pytest.raises(fields.Mismatch) as caught:
        fields.conform(value, annotation)
    assert said in str(caught.value)


@pytest.mark.parametrize("options", [{}, {"kind": "async"}])
def test_a_method_is_refused_where_it_is_decorated(registered, options):
    with pytest.raises(
        TaskDefinitionError, match=r"Shop.pack is a method, and a task has no 'self'"
    ):

        class Shop:
            @gtaskman.task(**options)
            def pack(self, number): ...

    with pytest.raises(TaskDefinitionError, match="no 'cls'"):

        class Stall:
            @classmethod
            @gtaskman.task
            def pack(cls, number): ...


def test_a_static_method_and_a_function_with_a_parameter_self_may_be_tasks(registered):
    class Shop:
        @staticmethod
        @gtaskman.task
        def pack(number):
            return number

    @gtaskman.task
    def of(self):
        return self

    assert Shop().pack(3) == of(3) == 3
