"""A storage that asks the tasks of a manager how they stand, and what happens to them meanwhile."""

from __future__ import annotations

import pytest

from gtaskman.report import TaskStatus
from gtaskman.storages import InMemoryTaskStorage

pytestmark = pytest.mark.quick


@pytest.fixture
def storage():
    return InMemoryTaskStorage(keep=3)


@pytest.fixture
def tasks(storage):
    tasks = {}
    storage.follow(tasks)
    return tasks


@pytest.fixture
def begin(tasks, make_job):
    def begin(task_id):
        job = tasks[task_id] = make_job(task_id)
        return job

    return begin


@pytest.fixture
def end(storage, tasks):
    def end(*ids, result=None, size=0):
        jobs = [tasks.pop(each) for each in ids]
        storage.finish([each.completed_report(result, size, 1.0, 2.0) for each in jobs])

    return end


def ids(reports):
    return [each.id for each in reports]


def test_it_asks_those_that_have_not_ended(storage, begin, end):
    job = begin("a")
    begin("b")
    assert storage.report("a").status is TaskStatus.WAITING
    job.message = "half way"
    assert storage.report("a").message == "half way"
    assert ids(storage.find(finished=False)) == ["a", "b"]
    end("a")
    assert storage.report("a").status is TaskStatus.COMPLETED
    assert (storage.count(finished=True), storage.count(finished=False)) == (1, 1)


def test_those_that_came_last_are_kept(storage, begin, end):
    for each in "abcde":
        begin(each)
    end(*"abcde")
    assert ids(storage.find()) == ["c", "d", "e"]


@pytest.mark.parametrize("ended", [False, True], ids=["while it waits", "after its end"])
def test_what_is_deleted_stays_so(storage, begin, end, ended):
    begin("a")
    if ended:
        end("a")
    assert storage.delete("a")
    assert not storage.delete("a")
    assert storage.report("a") is None
    assert storage.count() == 0
    if not ended:
        end("a")
    assert storage.report("a") is None
    begin("a")  # as anybody new
    assert storage.report("a").status is TaskStatus.WAITING
    end("a")
    assert storage.count(TaskStatus.COMPLETED) == 1


def test_what_is_cancelled_here_stays_so(storage, begin, end):
    begin("a")
    assert storage.cancel("a", "no need").message == "no need"
    assert storage.report("a").status is TaskStatus.CANCELLED
    assert storage.cancel("a") is None
    end("a")
    assert ids(storage.find(TaskStatus.CANCELLED)) == ["a"]
    assert storage.count() == 1


def test_a_task_that_begins_anew_is_there_once(storage, begin, end):
    for size in (100, 10):
        begin("a")
        assert ids(storage.find()) == ["a"]
        assert storage.report("a").status is TaskStatus.WAITING
        end("a", result="it", size=size)
        assert ids(storage.find()) == ["a"]
        assert storage.report("a").result_size == size


def test_bytes_are_counted_once(begin, end, storage):
    storage._keep_bytes = 100
    for _ in range(9):
        begin("a")
        end("a", size=40)
    begin("b")
    end("b", size=60)
    assert ids(storage.find()) == ["a", "b"]
    begin("c")
    end("c", size=1)
    assert ids(storage.find()) == ["b", "c"]


def test_several_managers_may_share_one(storage, begin, end, make_job):
    others = {"b": make_job("b")}
    storage.follow(others)
    begin("a")
    assert ids(storage.find()) == ["b", "a"]
    assert storage.delete("b")
    assert ids(storage.find()) == ["a"]
