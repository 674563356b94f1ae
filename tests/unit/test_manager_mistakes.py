"""Mistakes in calls of a manager are named where they are made; nothing grows without a bound."""

from __future__ import annotations

import gc
import pickle

import gevent
import pytest
from gevent.event import Event

import gtaskman
from gtaskman import default, events
from gtaskman.events import Events
from gtaskman.testing import EagerManager

pytestmark = pytest.mark.quick


@pytest.fixture
def manager():
    manager = EagerManager()
    yield manager
    manager.stop()


@pytest.fixture
def configured():
    """Puts the settings of the default manager back."""
    yield default.configure
    default.configure()


@gtaskman.task
def limited(number):
    return number


def test_a_duplicate_that_has_travelled_says_the_same():
    for error in (gtaskman.DuplicateTaskError("one"), gtaskman.DuplicateTaskError("one", "key")):
        copy = pickle.loads(pickle.dumps(error))
        assert (str(copy), copy.id, copy.key) == (str(error), error.id, error.key)


def test_a_configuration_must_be_one():
    with pytest.raises(gtaskman.ConfigurationError, match="Configuration"):
        gtaskman.TaskManager(config={"max_processes": 1})


@pytest.mark.parametrize("chunksize", ["2", 1.5, True, 0])
def test_a_chunksize_must_be_a_number(manager, chunksize):
    with pytest.raises(gtaskman.TaskOptionError, match="chunksize"):
        manager.map(abs, [1], chunksize=chunksize)


@pytest.mark.parametrize("listen", ["on", "once"])
def test_events_that_do_not_exist_are_refused_with_a_hint(manager, listen):
    with pytest.raises(gtaskman.ConfigurationError, match="task-completed"):
        getattr(manager, listen)("task-complete", print)
    for event in ("init", "task-failed", "task-failed-some id"):
        getattr(manager, listen)(event, lambda _: None)


def test_seconds_are_checked_before_anything_is_waited_for():
    manager = gtaskman.TaskManager()
    with pytest.raises(TypeError, match="seconds"):
        manager.stop("5")
    manager.stop(0)
    eager = EagerManager()
    eager.pause()
    handle = eager.submit(abs, -1)
    with pytest.raises(TypeError, match="seconds"):
        handle.get("1")
    eager.stop()


def test_many_tasks_are_submitted_in_one_call(manager):
    handles = manager.submit_many(limited.task(number) for number in range(3))
    assert [handle.get(1) for handle in handles] == [0, 1, 2]


def test_callbacks_of_one_task_are_forgotten_after_its_last_report(manager):
    heard = []
    task = limited.with_id("mine", 1)
    manager.once("task-failed-mine", heard.append)
    manager.on("task-completed-mine", heard.append)
    manager.on("task-completed", heard.append)
    manager.submit(task)
    assert len(heard) == 2
    assert set(manager.events.callbacks) == {"task-completed"}


def test_events_that_nothing_takes_are_bounded(monkeypatch, caplog):
    monkeypatch.setattr(events, "_MOST", 10)
    told, gate, heard = Events(), Event(), []
    told.on("a", lambda number: (gate.wait(10), heard.append(number)))
    for number in range(100):
        told.emit("a", number)
    assert told.dropped == 90
    assert "do not keep up" in caplog.text
    gate.set()
    told.emit("b", 0)
    while len(heard) < 10:
        gevent.sleep(0)
    assert heard == list(range(10))


def test_dropped_progress_iterators_are_forgotten(manager):
    manager.pause()
    handle = manager.submit(abs, -1)
    for _ in range(100):
        handle.progress()
    gc.collect()
    handle.progress()
    assert len(handle._feeds) <= 2
    manager.resume()
    assert [each.status.value for each in handle.progress()] == ["completed"]


def test_the_same_limits_are_one_definition():
    numbers = {limited.with_options(timeout=5).definition.number for _ in range(10)}
    assert len(numbers) == 1
    assert limited.with_options(timeout=6).definition.number not in numbers
    assert limited.with_options(retries=1).definition.retries == 1
    with pytest.raises(gtaskman.TaskDefinitionError):
        limited.with_options(retries=True)
    with pytest.raises(gtaskman.TaskDefinitionError):
        limited.with_options(timeout=[])


def test_completion_shows_what_users_call():
    names = [name for name in dir(gtaskman.TaskManager()) if not name.startswith("_")]
    assert {"submit", "submit_many", "on", "stop", "stats"} <= set(names)
    assert not {"on_batch_end", "take_in", "ebb", "accompany", "on_unable"} & set(names)


@pytest.mark.parametrize(
    ("url", "options", "named"),
    [
        ("redis://localhost", {"max_processes": 3}, "max_processes"),
        ("redis://localhost", {"storage": "memory://"}, "storage"),
        (None, {"keyring": None}, "keyring"),
        ("memory://", {"patience": 1}, "patience"),
    ],
)
def test_options_without_effect_are_refused(configured, url, options, named):
    with pytest.raises(gtaskman.ConfigurationError, match=named):
        configured(url, **options)


def test_the_default_client_takes_every_option_of_a_client(configured, monkeypatch):
    configured("redis://localhost:1", queue="other", codec="msgpack", patience=0.5)
    client = gtaskman.manager()
    try:
        assert isinstance(client, gtaskman.Client)
        assert client.queue == "other"
    finally:
        gtaskman.shutdown()
    configured(client={"queue": "third"})
    monkeypatch.setenv("GTASKMAN_URL", "redis://localhost:1")
    try:
        assert gtaskman.manager().queue == "third"
    finally:
        gtaskman.shutdown()


def test_the_default_manager_takes_a_storage(configured, no_leaks):
    storage = gtaskman.InMemoryTaskStorage(10)
    configured(storage=storage, max_processes=1, min_processes=0)
    try:
        assert gtaskman.manager().storage is storage
    finally:
        gtaskman.shutdown(0)
