"""``Configuration``: frozen, validated once, and every mistake is named."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest

from gtaskman import Configuration, ConfigurationError, GTaskmanError
from gtaskman import config as module
from gtaskman.cores import usable_cores

pytestmark = pytest.mark.quick

FIELDS = inspect.get_annotations(Configuration)
NUMBERS = sorted(module._LOWEST)


def refused(field, **values):
    """What ``Configuration(**values)`` says; it must name the field."""
    with pytest.raises(ConfigurationError) as caught:
        Configuration(**values)
    assert caught.value.field == field
    assert field in str(caught.value)
    return str(caught.value)


def test_every_default_is_valid_and_of_its_own_type():
    config = Configuration()
    for name in FIELDS:
        assert getattr(config, name) == getattr(Configuration, name)
        # Given explicitly it is valid, too, and means the same.
        assert Configuration(**{name: getattr(Configuration, name)}) == config


def test_as_many_workers_as_usable_cores_but_no_less_than_are_kept_nor_two():
    usual = max(2, usable_cores())
    assert Configuration().max_processes == usual
    # What is kept is what was asked for, however few cores this machine has.
    assert Configuration(min_processes=usual + 3).max_processes == usual + 3
    assert Configuration(min_processes=usual + 3).replace(ttl=5).max_processes == usual + 3
    assert "min_processes" in refused("min_processes", min_processes=3, max_processes=2)


def test_every_number_has_a_lower_bound():
    numbers = {name for name, field in FIELDS.items() if "int" in field or "float" in field}
    assert numbers == set(NUMBERS)


def test_every_field_is_documented():
    source = inspect.getsource(Configuration)
    for name in FIELDS:
        line = source[source.index(f"    {name}:") :].splitlines()[1].strip()
        assert line.startswith('"""'), f"{name} has no word on what it is"


@pytest.mark.parametrize("name", NUMBERS)
def test_the_lower_bound_itself_is_allowed_and_less_is_not(name):
    low = module._LOWEST[name]
    agreeing = {"max_processes": {"min_processes": 1}, "max_prefetch": {"prefetch": 1}}.get(
        name, {}
    )
    assert getattr(Configuration(**{name: low, **agreeing}), name) == low
    assert "at least" in refused(name, **{name: low - 1})


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize(
    "value", ["5", b"5", [5], True, float("nan"), 1j, object()], ids=lambda v: type(v).__name__
)
def test_a_number_takes_numbers_only(name, value):
    refused(name, **{name: value})


@pytest.mark.parametrize("name", [n for n in NUMBERS if FIELDS[n].startswith("int")])
@pytest.mark.parametrize("value", [float("inf"), 100_000_000.5])
def test_a_whole_number_takes_whole_numbers_only(name, value):
    refused(name, **{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("start_method", 5),
        ("start_method", None),
        ("start_method", True),
        ("preload", "package.module"),
        ("preload", [5]),
        ("preload", None),
        ("background", 1),
        ("background", "yes"),
        ("background", None),
        ("reuse_greenlets", 0),
        ("min_processes", None),
        ("ttl", None),
        ("max_frame", None),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(name, value):
    refused(name, **{name: value})


@pytest.mark.parametrize("name", ["max_tasks_per_process", "max_age", "max_rss"])
def test_no_limit_is_none(name):
    assert getattr(Configuration(**{name: None}), name) is None


def test_values_are_kept_as_their_types_say():
    config = Configuration(ttl=5, max_processes=3.0, preload=["a", "b"])
    assert isinstance(config.ttl, float)
    assert isinstance(config.max_processes, int)
    assert config.preload == ("a", "b")


@pytest.mark.parametrize(
    ("unknown", "suggestion"),
    [("max_proceses", "max_processes"), ("maxprocesses", "max_processes"), ("tll", "ttl")],
)
def test_an_unknown_name_is_refused_and_the_close_one_suggested(unknown, suggestion):
    assert repr(suggestion) in refused(unknown, **{unknown: 5})


def test_an_unknown_name_like_no_other_is_refused_without_a_suggestion():
    assert "mean" not in refused("zzz", zzz=5)


def test_values_go_by_name_only():
    with pytest.raises(ConfigurationError, match="by name"):
        Configuration(5)


CONTRADICTIONS = [
    ("min_processes", {"min_processes": 11, "max_processes": 10}),
    ("min_processes", {"min_processes": 3, "max_processes": 2}),
    ("prefetch", {"prefetch": 1000}),
    ("prefetch", {"prefetch": 3, "max_prefetch": 2}),
    ("start_method", {"start_method": "forkserver"}),
    ("start_method", {"start_method": "fork", "background": True}),
]


@pytest.mark.parametrize(("field", "values"), CONTRADICTIONS, ids=repr)
def test_values_that_contradict_each_other_are_refused(field, values):
    message = refused(field, **values)
    assert all(str(value) in message for value in values.values())


@pytest.mark.parametrize("method", module.START_METHODS)
def test_every_start_method_is_taken(method):
    assert Configuration(start_method=method).start_method == method


def test_a_configuration_error_is_ours_and_a_value_error():
    assert issubclass(ConfigurationError, GTaskmanError)
    assert issubclass(ConfigurationError, ValueError)


def test_it_is_frozen():
    config = Configuration()
    with pytest.raises(AttributeError):
        config.ttl = 5
    with pytest.raises(AttributeError):
        config.another = 5
    with pytest.raises(AttributeError):
        del config.ttl


def test_replace_gives_a_copy_validated_again():
    config = Configuration(max_processes=3)
    changed = config.replace(ttl=5, min_processes=2)
    assert (changed.max_processes, changed.ttl, changed.min_processes) == (3, 5.0, 2)
    assert (config.ttl, config.min_processes) == (60.0, 1)
    with pytest.raises(ConfigurationError, match="min_processes"):
        config.replace(min_processes=4)
    with pytest.raises(ConfigurationError, match="did you mean 'ttl'"):
        config.replace(tttl=5)


def test_equal_values_make_equal_configurations():
    assert Configuration(ttl=5) == Configuration(ttl=5.0) != Configuration()
    assert hash(Configuration(ttl=5)) == hash(Configuration(ttl=5.0))


@pytest.mark.parametrize(
    "again", [copy.copy, copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))]
)
def test_it_can_be_copied_and_pickled(again):
    config = Configuration(ttl=5, preload=("a",))
    assert again(config) == config
