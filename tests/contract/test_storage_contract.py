"""The contract of every storage (``gtaskman/storages/base.py``), over every implementation.

To add one, add what makes an empty storage of it to ``STORAGES``, and to ``BOUNDED`` if it keeps no
more finished tasks than it is told to. Those that need no server are marked as quick.
"""

from __future__ import annotations

import functools
import itertools
import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers import RunningServer, each_kind

from gtaskman import Configuration, ConfigurationError, InMemoryTaskStorage, Report, TaskStatus
from gtaskman.redis.server import Server
from gtaskman.storages import TaskStorage, connect
from gtaskman.storages.redis import RedisTaskStorage

names = itertools.count(1)


@functools.cache
def running(kind):
    """A server, which is stopped when this process ends, and a connection to it."""
    started = RunningServer(kind)
    return started, Server(started.url, patience=20)


def in_redis(kind):
    return RedisTaskStorage(running(kind)[1], f"storage{next(names)}")


BOUNDED = [pytest.param(InMemoryTaskStorage, id="memory", marks=pytest.mark.quick)]
STORAGES = BOUNDED + [
    pytest.param(functools.partial(in_redis, each.values[0]), id=each.values[0], marks=each.marks)
    for each in (pytest.param(kind) if isinstance(kind, str) else kind for kind in each_kind())
]

WAITING, PROCESSING, COMPLETED, FAILED, CANCELLED = TaskStatus
OPEN = [WAITING, PROCESSING]
LAST = [COMPLETED, FAILED, CANCELLED]


@pytest.fixture(params=STORAGES)
def make_storage(request):
    return request.param


@pytest.fixture
def storage(make_storage):
    return make_storage()


@pytest.fixture(params=BOUNDED)
def make_bounded(request):
    return request.param


moments = itertools.count(1)


def report(task_id, status=WAITING, revision=1, **values):
    values = {"created_at": float(next(moments)), **values}
    return Report(task_id, "tests.name", "sync", status, revision=revision, **values)


def later(made, status=None, revision=None, **values):
    """A later report of the same task."""
    return msgspec.structs.replace(
        made,
        status=status or made.status,
        revision=made.revision + 1 if revision is None else revision,
        **values,
    )


def ids(reports):
    return [each.id for each in reports]


def fill(storage, *statuses):
    """One task for each status, named by numbers from 0, each inserted as waiting."""
    for at, status in enumerate(statuses):
        first = report(str(at))
        storage.insert(first)
        if status is not WAITING:
            assert storage.update(later(first, status))


# --- one task


def test_an_unknown_task_has_no_report(storage):
    assert storage.report("mine") is None
    assert storage.delete("mine") is False
    assert storage.cancel("mine") is None
    assert storage.find() == []
    assert storage.count() == 0


def test_the_latest_report_is_kept_whole(storage):
    first = report("mine")
    storage.insert(first)
    assert storage.report("mine") == first
    second = later(
        first,
        PROCESSING,
        message="half",
        completed=5,
        target=10,
        started_at=7.5,
        worker=123,
        attempt=2,
    )
    assert storage.update(second) is True
    assert storage.report("mine") == second
    last = later(second, COMPLETED, result=[1, "two"], finished_at=9.5, result_size=20)
    assert storage.update(last) is True
    assert storage.report("mine") == last


@pytest.mark.parametrize("status", TaskStatus)
@pytest.mark.parametrize("revision", [1, 4, 5])
def test_a_late_report_never_replaces_a_newer_one(storage, status, revision):
    # given a report with revision 5
    kept = report("mine", PROCESSING, revision=5, message="newer")
    storage.insert(kept)
    # if one comes that is no newer, whatever it says
    assert storage.update(later(kept, status, revision, message="late")) is False
    # expect the newer one
    assert storage.report("mine") == kept
    assert ids(storage.find(PROCESSING)) == ["mine"]
    assert storage.count() == storage.count(PROCESSING) == 1


@pytest.mark.parametrize("last", LAST)
@pytest.mark.parametrize("status", TaskStatus)
@pytest.mark.parametrize("revision", [1, 2, 1000])
def test_a_last_report_is_never_replaced(storage, last, status, revision):
    kept = later(report("mine"), last, message="the last word")
    storage.insert(report("mine"))
    storage.update(kept)
    assert storage.update(later(kept, status, revision, message="another")) is False
    assert storage.report("mine") == kept
    assert storage.count(finished=True) == storage.count() == 1


@pytest.mark.parametrize("kept", TaskStatus)
def test_inserting_begins_a_task_anew(storage, kept):
    # given a task that stands somewhere, and one submitted after it
    old = report("mine", kept, revision=9, result="old", result_size=10)
    storage.insert(old)
    storage.insert(report("other"))
    # if it is submitted again, with a first report
    anew = report("mine", revision=1)
    storage.insert(anew)
    # expect nothing of the old one, and the new one after the other
    assert storage.report("mine") == anew
    assert ids(storage.find()) == ["other", "mine"]
    assert storage.count(WAITING) == storage.count() == 2
    assert storage.update(later(anew, PROCESSING, revision=2)) is True


def test_a_report_of_a_forgotten_task_does_not_bring_it_back(storage):
    first = report("mine")
    assert storage.update(later(first)) is False
    storage.insert(first)
    assert storage.delete("mine") is True
    assert storage.update(later(first, COMPLETED)) is False
    assert storage.report("mine") is None
    assert storage.count() == 0


@pytest.mark.parametrize("status", TaskStatus)
def test_a_deleted_task_is_gone_everywhere(storage, status):
    fill(storage, status, WAITING)
    assert storage.delete("0") is True
    assert storage.delete("0") is False
    assert storage.report("0") is None
    assert ids(storage.find()) == ["1"]
    assert storage.count() == storage.count(WAITING) == 1


# --- cancelling


@pytest.mark.parametrize("status", OPEN)
def test_a_task_that_has_not_ended_is_marked_as_cancelled(storage, status):
    first = report("mine", status, revision=5, completed=3, message="under way")
    storage.insert(first)
    begun = time.time()
    cancelled = storage.cancel("mine", "enough")
    assert storage.report("mine") == cancelled
    assert (cancelled.status, cancelled.message) == (CANCELLED, "enough")
    assert (cancelled.id, cancelled.completed) == ("mine", 3)
    assert cancelled.revision > 5
    assert begun - 1 <= cancelled.finished_at <= time.time() + 1
    assert (storage.count(CANCELLED), storage.count(status)) == (1, 0)
    # if its worker reports something after all, expect it to stay cancelled
    assert storage.update(later(cancelled, COMPLETED)) is False
    assert storage.cancel("mine") is None


@pytest.mark.parametrize("status", LAST)
def test_a_task_that_has_ended_is_not_cancelled(storage, status):
    fill(storage, status)
    kept = storage.report("0")
    assert storage.cancel("0", "too late") is None
    assert storage.report("0") == kept


# --- finding


ALL_STATUSES = [WAITING, COMPLETED, PROCESSING, FAILED, WAITING, CANCELLED, COMPLETED, PROCESSING]


@pytest.mark.parametrize("status", [None, *TaskStatus])
@pytest.mark.parametrize("finished", [None, True, False])
def test_tasks_are_found_and_counted_by_status_and_whether_they_ended(storage, status, finished):
    fill(storage, *ALL_STATUSES)
    expected = [
        str(at)
        for at, each in enumerate(ALL_STATUSES)
        if status in (None, each) and finished in (None, each.finished)
    ]
    assert ids(storage.find(status, finished)) == expected
    assert storage.count(status, finished) == len(expected)


@pytest.mark.parametrize("status", [None, COMPLETED])
@pytest.mark.parametrize(
    ("offset", "limit"), [(0, 50), (0, 3), (2, 3), (5, 0), (0, 0), (9, 5), (10, 5), (100, 5)]
)
def test_a_page_is_cut_out_of_the_order_of_submission(storage, status, offset, limit):
    fill(storage, *[COMPLETED] * 10)
    page = storage.find(status, offset=offset, limit=limit)
    assert ids(page) == [str(at) for at in range(10)][offset : offset + limit]


def test_fifty_are_found_unless_said_otherwise(storage):
    fill(storage, *[WAITING] * 60)
    assert len(storage.find()) == 50
    assert len(storage.find(limit=100)) == storage.count() == 60


def test_the_order_is_that_of_submission_however_tasks_go_on(storage):
    # given tasks that go on and end in another order than they were submitted in
    first = [report(name) for name in "abcdef"]
    for each in first:
        storage.insert(each)
    for at in (3, 0, 5):
        storage.update(later(first[at], PROCESSING))
    for at in (5, 2, 0):
        storage.update(later(first[at], COMPLETED, revision=3))
    # expect them in order of submission, alone and together
    assert ids(storage.find()) == list("abcdef")
    assert ids(storage.find(finished=True)) == list("acf")
    assert ids(storage.find(finished=False)) == list("bde")


# --- reports in any order


@pytest.mark.parametrize("make_storage", STORAGES)
@given(
    reports=st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from(TaskStatus), st.integers(1, 6)),
        max_size=40,
    )
)
def test_reports_that_come_in_any_order_leave_the_newest(make_storage, reports):
    storage, expected = make_storage(), {}
    for name in "abc":
        expected[name] = report(name, revision=0)
        storage.insert(expected[name])
    for name, status, revision in reports:
        known = expected[name]
        made = later(known, status, revision, message=str(revision))
        newer = not known.finished and known.revision < revision
        assert storage.update(made) is newer
        if newer:
            expected[name] = made
    assert storage.find() == list(expected.values())
    for status in TaskStatus:
        assert storage.count(status) == sum(each.status is status for each in expected.values())


# --- bounds


def end(storage, name, size=0, status=COMPLETED):
    """Submit a task and let it end with a result of so many bytes."""
    first = report(name)
    storage.insert(first)
    storage.update(later(first, status, result=name, result_size=size))


def kept(storage):
    return ids(storage.find(limit=1000))


@pytest.mark.parametrize("status", LAST)
def test_the_finished_tasks_that_came_last_are_kept(make_bounded, status):
    storage = make_bounded(keep=3, keep_bytes=1000)
    for name in "abcde":
        end(storage, name, status=status)
    assert kept(storage) == list("cde")
    assert storage.count() == storage.count(status) == 3
    assert storage.report("a") is None


def test_what_ended_first_goes_first_whenever_it_was_submitted(make_bounded):
    storage = make_bounded(keep=2, keep_bytes=1000)
    first = {name: report(name) for name in "abc"}
    for each in first.values():
        storage.insert(each)
    for name in "cab":
        storage.update(later(first[name], COMPLETED))
    assert kept(storage) == list("ab")


def test_unfinished_tasks_are_kept_however_many_there_are(make_bounded):
    storage = make_bounded(keep=1, keep_bytes=1)
    fill(storage, *OPEN * 20)
    for name in "xyz":
        end(storage, name, 100)
    assert storage.count(finished=False) == 40
    assert storage.count(finished=True) == 1


def test_results_are_kept_up_to_their_bytes(make_bounded):
    storage = make_bounded(keep=100, keep_bytes=100)
    end(storage, "a", 60)
    end(storage, "b", 40)
    assert kept(storage) == list("ab")
    end(storage, "c", 1)
    assert kept(storage) == list("bc")
    end(storage, "d", 60)
    assert kept(storage) == list("cd")


def test_the_newest_is_kept_however_large(make_bounded):
    storage = make_bounded(keep=100, keep_bytes=100)
    end(storage, "a", 10)
    end(storage, "b", 10_000)
    assert kept(storage) == ["b"]
    assert storage.report("b").result == "b"
    end(storage, "c", 1)
    assert kept(storage) == ["c"]


@pytest.mark.parametrize("how", ["delete", "insert"])
def test_bytes_of_what_is_gone_do_not_count(make_bounded, how):
    storage = make_bounded(keep=100, keep_bytes=100)
    end(storage, "a", 90)
    if how == "delete":
        storage.delete("a")
    else:
        storage.insert(report("a"))
    end(storage, "b", 90)
    end(storage, "c", 10)
    assert storage.report("b") is not None
    assert storage.count(finished=True) == 2


def test_nothing_finished_is_kept_if_so_wished(make_bounded):
    storage = make_bounded(keep=0, keep_bytes=100)
    end(storage, "a")
    fill(storage, WAITING)
    storage.cancel("0")
    assert storage.count() == 0


def test_a_task_inserted_as_ended_is_bounded_too(make_bounded):
    storage = make_bounded(keep=2, keep_bytes=100)
    for name in "abc":
        storage.insert(report(name, COMPLETED))
    assert kept(storage) == list("bc")


# --- by URL


def test_a_storage_is_connected_by_its_url_or_is_itself(storage):
    config = Configuration(keep_finished=1)
    assert connect(storage, config) is storage
    assert isinstance(storage, TaskStorage)
    for url in (None, "memory://"):
        made = connect(url, config)
        assert isinstance(made, InMemoryTaskStorage)
        end(made, "a")
        end(made, "b")
        assert kept(made) == ["b"], "as the configuration says"


@pytest.mark.quick
@pytest.mark.parametrize("url", ["", "carrier-pigeon://", 5])
def test_an_unknown_url_is_refused_and_the_known_ones_named(url):
    with pytest.raises(ConfigurationError, match="memory://") as caught:
        connect(url, Configuration())
    assert caught.value.field == "storage"
