"""The options of services: checked once, and every mistake named."""

from __future__ import annotations

import pytest

from gtaskman import Backoff, ConfigurationError, RestartPolicy, ServiceOptions

pytestmark = pytest.mark.quick


def test_the_defaults():
    options = ServiceOptions()
    assert options.restart is RestartPolicy.ALWAYS
    assert (options.terminate_timeout, options.terminate_timeout_hard) == (5, 10)
    assert (options.instances, options.max_restarts) == (1, None)
    assert (options.health, options.max_rss, options.max_age) == (None, None, None)
    assert options.sockets == {}


def test_values_come_as_texts_and_lists_too():
    # as from a file
    options = ServiceOptions(
        restart="on-failure",
        backoff={"first": 2},
        sockets={"http": ["127.0.0.1", 80], "local": "/run/app.sock"},
        terminate_timeout=1,
    )
    assert options.restart is RestartPolicy.ON_FAILURE
    assert options.backoff == Backoff(first=2)
    assert options.sockets == {"http": ("127.0.0.1", 80), "local": "/run/app.sock"}
    assert type(options.terminate_timeout) is float


def test_a_backoff_may_be_its_first_wait():
    assert ServiceOptions(backoff=3).backoff == Backoff(first=3)
    assert ServiceOptions(backoff=0).backoff.delay(9, 0.0) == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("restart", "sometimes"),
        ("restart", 1),
        ("backoff", -1),
        ("backoff", "soon"),
        ("stable_after", -1),
        ("stable_after", True),
        ("max_restarts", -1),
        ("max_restarts", 1.5),
        ("window", 0),
        ("instances", 0),
        ("instances", "two"),
        ("start_timeout", 0),
        ("terminate_timeout", -1),
        ("terminate_timeout_hard", 4),
        ("health", 5),
        ("health_every", 0),
        ("health_timeout", 0),
        ("health_failures", 0),
        ("max_rss", 1000),
        ("max_age", 0),
        ("backlog", 0),
        ("sockets", 8000),
        ("sockets", {str(at): f"/{at}" for at in range(201)}),
        ("sockets", {"": ("127.0.0.1", 1)}),
        ("sockets", {"http": 8000}),
        ("sockets", {"http": ("127.0.0.1",)}),
        ("sockets", {"http": ("127.0.0.1", 70_000)}),
        ("sockets", {"http": ("127.0.0.1", "80")}),
        ("sockets", {"http": ""}),
    ],
)
def test_a_mistake_is_named(field, value):
    with pytest.raises(ConfigurationError, match=field) as caught:
        ServiceOptions(**{field: value})
    assert caught.value.field == field


def test_an_unknown_option_is_named_beside_the_known():
    with pytest.raises(ConfigurationError, match=r"no option 'restarts' .*max_restarts") as caught:
        ServiceOptions(restarts=3)
    assert caught.value.field == "restarts"


def test_options_are_given_by_name():
    with pytest.raises(ConfigurationError, match="by name only"):
        ServiceOptions("always")


def test_options_are_frozen_and_copied_with_changes():
    options = ServiceOptions(instances=2)
    with pytest.raises(AttributeError, match="frozen"):
        options.instances = 3
    with pytest.raises(AttributeError, match="frozen"):
        del options.instances
    assert options.replace(instances=3) == ServiceOptions(instances=3)
    assert options == ServiceOptions(instances=2) != ServiceOptions()
    assert "instances=2" in repr(options)
