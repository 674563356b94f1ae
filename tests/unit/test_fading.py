"""Reports in the in-memory storage that go by themselves."""

from __future__ import annotations

import itertools

import pytest
from worlds import wait_until

from gtaskman import InMemoryTaskStorage, Report, TaskStatus

pytestmark = pytest.mark.quick

SHORT = 0.05  # seconds
LONG = 1000.0
moments = itertools.count(1)


def finish(storage, task_id, size=0):
    storage.insert(Report(task_id, "tests.name", "sync", TaskStatus.WAITING, float(next(moments))))
    ended = Report(
        task_id,
        "tests.name",
        "sync",
        TaskStatus.COMPLETED,
        float(next(moments)),
        revision=2,
        result_size=size,
    )
    assert storage.update(ended)


@pytest.fixture
def storage():
    return InMemoryTaskStorage()


def test_a_report_is_not_found_any_more_when_its_time_is_over(storage):
    finish(storage, "short")
    finish(storage, "long")
    finish(storage, "usual")
    storage.expire("short", SHORT)
    storage.expire("long", LONG)
    assert storage.report("short") is not None
    wait_until(lambda: storage.report("short") is None)
    assert [each.id for each in storage.find()] == ["long", "usual"]
    assert storage.count() == 2


@pytest.mark.parametrize("look", ["find", "count"])
def test_whoever_looks_at_all_does_not_see_it_either(storage, look):
    finish(storage, "short")
    storage.expire("short", 0)
    assert not getattr(storage, look)()


def test_it_leaves_when_others_come():
    storage = InMemoryTaskStorage(keep=2)
    for name in "ab":
        finish(storage, name)
    storage.expire("b", 0)
    finish(storage, "c")
    assert [each.id for each in storage.find()] == ["a", "c"]


def test_a_time_is_one_of_a_report_not_of_an_id(storage):
    finish(storage, "mine")
    storage.expire("mine", 0)
    finish(storage, "mine")
    assert storage.report("mine") is not None


def test_of_a_task_that_has_not_ended_or_is_not_known_nothing_goes(storage):
    storage.insert(Report("open", "tests.name", "sync", TaskStatus.WAITING, 1.0))
    storage.expire("open", 0)
    storage.expire("nobody", 0)
    assert storage.report("open") is not None


def test_what_is_gone_takes_no_memory(storage):
    for number in range(1000):
        finish(storage, str(number), size=5)
        storage.expire(str(number), 0)
    assert storage.count() == 0
    assert storage._bytes == 0
    assert len(storage._line) < 200
    for number in range(1000):
        finish(storage, str(number))
        storage.expire(str(number), LONG)
        storage.delete(str(number))
    assert len(storage._fading) < 200
    assert len(storage._line) < 200
