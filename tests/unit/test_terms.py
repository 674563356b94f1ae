"""``Terms``: how a task waits, and where that is said."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import subprocess
import sys
import uuid

import pytest

from gtaskman import Backoff, Task, TaskDefinitionError, TaskOptionError, task
from gtaskman.definitions import Definitions
from gtaskman.terms import DEFAULT, LATEST, LONGEST, Terms, fingerprint

pytestmark = [pytest.mark.quick, pytest.mark.usefixtures("registered")]

AWARE = datetime.datetime(2031, 5, 6, 7, 8, 9, tzinfo=datetime.UTC)
EAST = datetime.timezone(datetime.timedelta(hours=5))


@task(priority=5, ttl=60)
def resize(path: str, width: int = 64) -> str:
    return f"{path}:{width}"


class Multiply(Task, delay=3, retries=1):
    number: float
    other: float = 2

    def run(self, _progress):
        return self.number * self.other


# --- values

GOOD = [
    {"queue": "mail"},
    {"queue": "a.b-c_D9"},
    {"priority": -100},
    {"priority": 100},
    {"delay": 0.5},
    {"delay": 7},
    {"eta": 2e9},
    {"eta": 0},
    {"unique": "key"},
    {"unique": True},
    {"ttl": 0.1},
    {"result_ttl": 0},
    {"result_ttl": LONGEST},
]
BAD = [
    ("queue", ""),
    ("queue", "with space"),
    ("queue", "{tag}"),
    ("queue", "x" * 101),
    ("queue", None),
    ("priority", 101),
    ("priority", -101),
    ("priority", 1.5),
    ("priority", True),
    ("priority", "high"),
    ("priority", None),
    ("delay", -1),
    ("delay", "5"),
    ("delay", True),
    ("delay", None),
    ("delay", float("nan")),
    ("delay", float("inf")),
    ("delay", 10**400),
    ("delay", datetime.timedelta(seconds=5)),
    ("eta", AWARE.replace(tzinfo=None)),
    ("eta", AWARE.date()),
    ("eta", "2031-05-06T07:08:09Z"),
    ("eta", True),
    ("eta", float("nan")),
    ("eta", 2 * LATEST),
    ("unique", ""),
    ("unique", "x" * 201),
    ("unique", "new\nline"),
    ("unique", None),
    ("unique", 5),
    ("ttl", 0),
    ("ttl", -1),
    ("ttl", "1"),
    ("ttl", True),
    ("result_ttl", -1),
    ("result_ttl", False),
    ("result_ttl", float("inf")),
]


@pytest.mark.parametrize("values", GOOD, ids=repr)
def test_what_makes_sense_is_kept(values):
    ((name, value),) = values.items()
    assert getattr(Terms(**values), name) == value
    assert getattr(DEFAULT.replace(**values), name) == value


@pytest.mark.parametrize(("field", "value"), BAD, ids=lambda value: f"{value!r:.30}")
def test_what_makes_no_sense_is_refused_and_named(field, value):
    for build in (Terms, DEFAULT.replace):
        with pytest.raises(TaskOptionError, match=field) as caught:
            build(**{field: value})
        assert caught.value.field == field


def test_an_eta_is_kept_as_seconds_since_the_epoch():
    for moment in (AWARE, AWARE.astimezone(EAST), AWARE.timestamp()):
        assert Terms(eta=moment).eta == AWARE.timestamp()


def test_a_naive_eta_is_refused_with_the_mend():
    with pytest.raises(TaskOptionError, match=r"time zone.*timezone\.utc.*delay="):
        Terms(eta=AWARE.replace(tzinfo=None))


def test_a_delay_and_an_eta_contradict_each_other():
    with pytest.raises(TaskOptionError, match="contradict"):
        Terms(delay=1, eta=AWARE)
    # The later one counts.
    assert Terms(eta=AWARE).replace(delay=1) == Terms(delay=1)
    assert Terms(eta=AWARE).replace(delay=0) is DEFAULT
    assert Terms(delay=1).replace(eta=AWARE) == Terms(eta=AWARE)
    assert Terms(delay=1).replace(eta=None) == Terms(delay=1)
    assert Terms(delay=1).replace(priority=1) == Terms(delay=1, priority=1)


@pytest.mark.parametrize(
    ("values", "expected"),
    [({}, 0), ({"delay": 5}, 5), ({"eta": 1010}, 10), ({"eta": 1000}, 0), ({"eta": 5}, 0)],
    ids=repr,
)
def test_how_long_a_task_waits_that_is_submitted_now(values, expected):
    assert Terms(**values).wait(now=1000.0) == expected


def test_the_usual_terms_are_one_object():
    assert DEFAULT.replace() is DEFAULT
    assert DEFAULT.replace(priority=5).replace(priority=0) is DEFAULT
    assert Terms() == DEFAULT


def test_terms_are_frozen():
    with pytest.raises(AttributeError):
        DEFAULT.priority = 5


# --- where they are said


def test_terms_are_said_where_a_task_is_defined():
    assert resize.terms == resize.definition.terms == Terms(priority=5, ttl=60)
    assert Multiply.terms == Multiply.definition.terms == Terms(delay=3)
    assert Multiply.definition.retries == 1
    assert task(lambda: None).terms is DEFAULT


def test_a_task_object_has_those_of_its_definition():
    assert resize.task("a").terms == resize.with_id("mine", "a").terms == resize.terms
    assert Multiply(number=1).terms == Multiply.terms


def test_a_class_inherits_terms():
    class Sooner(Multiply, delay=0, priority=1):
        pass

    class Later(Sooner, eta=AWARE):
        pass

    assert Sooner.terms == Terms(priority=1)
    assert Later.terms == Terms(priority=1, eta=AWARE)
    assert Multiply.terms == Terms(delay=3)
    assert Later.definition.retries == 1


def test_each_call_may_have_its_own():
    urgent = resize.with_options(priority=100, ttl=None)
    assert urgent.terms == Terms(priority=100)
    assert urgent.task("a").terms == urgent.with_id("mine", "a").terms == urgent.terms
    assert resize.terms == Terms(priority=5, ttl=60)
    assert urgent("a") == "a:64"
    with pytest.raises(TaskOptionError):
        urgent.task(5)
    one = Multiply(number=1).with_options(unique="one")
    assert one.terms == Terms(delay=3, unique="one")
    assert one() == 2
    assert Multiply(number=1).terms == Multiply.terms


def test_other_terms_are_no_other_definition():
    assert resize.with_options(delay=10, unique=True).definition is resize.definition
    one = Multiply(number=1).with_options(delay=10)
    assert one.definition is Multiply.definition
    both = resize.with_options(delay=10, timeout=5)
    assert both.definition.number != resize.definition.number
    assert (both.terms.delay, both.definition.timeout) == (10, 5)
    assert both.with_options(timeout=6).terms is both.terms


def test_a_callable_that_is_no_task_has_the_usual_ones():
    definition, _ = Definitions().of(len)
    assert definition.terms is DEFAULT


DEFINE = {
    "decorated": lambda **options: task(**options)(lambda: None),
    "derived": lambda **options: type("Derived", (Task,), {"__module__": __name__}, **options),
}
CHANGE = {
    "function": lambda **options: resize.with_options(**options),
    "object": lambda **options: Multiply(number=1).with_options(**options),
}


@pytest.mark.parametrize("define", DEFINE.values(), ids=DEFINE)
@pytest.mark.parametrize(
    ("field", "value"), [("priority", 101), ("ttl", 0), ("eta", "soon"), ("unique", "")]
)
def test_a_mistake_in_a_definition_is_one_of_the_definition(define, field, value):
    with pytest.raises(TaskDefinitionError, match=field):
        define(**{field: value})


@pytest.mark.parametrize("change", CHANGE.values(), ids=CHANGE)
@pytest.mark.parametrize(
    ("field", "value"), [("priority", 101), ("ttl", 0), ("eta", "soon"), ("unique", "")]
)
def test_a_mistake_in_a_call_names_the_task_and_the_field(change, field, value):
    with pytest.raises(TaskOptionError, match=field) as caught:
        change(**{field: value})
    assert caught.value.field == field
    assert caught.value.task in str(caught.value)


@pytest.mark.parametrize("build", [*DEFINE.values(), *CHANGE.values()], ids=[*DEFINE, *CHANGE])
def test_what_is_neither_limit_nor_term_is_refused(build):
    with pytest.raises(TaskDefinitionError, match="'prioritty'"):
        build(prioritty=5)


def test_what_was_refused_changes_nothing():
    one = Multiply(number=1)
    with pytest.raises(TaskOptionError):
        one.with_options(priority=5, ttl=0)
    with pytest.raises(TaskDefinitionError):
        one.with_options(priority=5, timeout=0)
    assert one.terms is Multiply.terms
    assert one.definition is Multiply.definition


# --- back-off


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (Backoff(first=1, factor=3), Backoff(first=1, factor=3)),
        (1.5, Backoff(first=1.5)),
        (0, Backoff(first=0)),
        (3600, Backoff(first=3600, maximum=3600)),
    ],
    ids=repr,
)
def test_a_back_off_or_its_first_wait(given, expected):
    assert task(retries=3, backoff=given)(lambda: None).definition.backoff == expected
    assert Multiply(number=1).with_options(backoff=given).definition.backoff == expected


def test_whoever_says_nothing_has_the_usual_back_off():
    assert resize.definition.backoff == Backoff()


@pytest.mark.parametrize("backoff", [-1, "1", True, None, float("nan")])
def test_what_is_no_back_off_is_refused(backoff):
    with pytest.raises(TaskDefinitionError, match="backoff"):
        task(backoff=backoff)(lambda: None)


# --- keys made of calls


def key(function, *args, **kwargs):
    return function.definition.unique_key(True, args, kwargs)


def test_a_key_of_ones_own_is_taken_as_it_is():
    assert resize.definition.unique_key("mine", ("a",), {}) == "mine"
    assert resize.definition.unique_key(False, ("a",), {}) == ""


def test_equal_calls_have_one_key():
    assert key(resize, "a", 5) == key(resize, "a", width=5) == key(resize, width=5, path="a")
    assert key(resize, "a", 5) not in (key(resize, "a", 6), key(resize, "b", 5))
    one = Multiply(number=1)
    assert key(one, **one.arguments()[1]) == key(one, other=2.0, number=1.0)


def test_calls_of_other_tasks_have_other_keys():
    @task
    def other(path: str, width: int = 64) -> None: ...

    assert key(resize, "a") != key(other, "a")
    assert key(resize, "a").startswith(resize.definition.name)


@dataclasses.dataclass
class Point:
    x: int
    y: int


VALUES = [
    *(1, 1.5, True, "1", b"1", None, [1, [2]], {"a": 1, "b": 2}, {"x", "y"}),
    *(AWARE, datetime.date(2031, 5, 6), uuid.UUID(int=5), decimal.Decimal("1.50"), Point(1, 2)),
]


def test_other_values_have_other_keys():
    assert len({fingerprint("name", [value]) for value in VALUES}) == len(VALUES)


def test_no_order_is_an_order():
    assert fingerprint("name", {"a": 1, "b": 2}) == fingerprint("name", {"b": 2, "a": 1})
    assert fingerprint("name", {*"abcdef"}) == fingerprint("name", {*"fedcba"})


def test_other_processes_have_the_same_keys():
    script = "from gtaskman.terms import fingerprint; print(fingerprint('name', {*'abcdef'}))"
    command = [sys.executable, "-c", script]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout.strip() == fingerprint("name", {*"abcdef"})


@pytest.mark.parametrize("value", [object(), len, 10**400, "\ud800"], ids=lambda v: f"{v!r:.20}")
def test_what_is_not_written_alike_everywhere_makes_no_key(value):
    with pytest.raises(TaskOptionError, match="give a text as the key") as caught:
        key(resize, value)
    assert caught.value.field == "unique"


def test_a_callable_without_a_signature_has_keys_too():
    definition, _ = Definitions().of(min)
    assert definition.unique_key(True, (1, 2), {}) == definition.unique_key(True, (1, 2), {})
    assert definition.unique_key(True, (1, 2), {}) != definition.unique_key(True, (1, 3), {})
