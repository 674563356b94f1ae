"""The contract of every queue (``gtaskman/queues/base.py``), over every implementation.

To add one, add what makes an empty queue of it to ``QUEUES``. Jobs are compared by id: a queue that
keeps them elsewhere gives equal ones, not the same. One on a server (``queue.remote``) does by
itself what time brings, and tells its news a moment later.
"""

from __future__ import annotations

import itertools
import time

import pytest
from gevent.event import Event
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from servers import RunningServer, any_kind
from worlds import wait_until

import gtaskman
from gtaskman import (
    DuplicateTaskError,
    Failure,
    FailureKind,
    InMemoryTaskQueue,
    RedisTaskQueue,
    TaskStatus,
)
from gtaskman.errors import ConfigurationError
from gtaskman.queues import TaskQueue, connect
from gtaskman.task import registry

ALL = 1000
_names = itertools.count(1)


@pytest.fixture(scope="module")
def server():
    with RunningServer(any_kind()) as running:
        yield running


def in_memory(_request):
    """Queues of this process."""
    return InMemoryTaskQueue


def on_a_server(request):
    """Queues on a server, each under a fresh name; the code of what they give is looked up."""
    server, make_job = request.getfixturevalue("server"), request.getfixturevalue("make_job")
    patch = request.getfixturevalue("monkeypatch")
    for kind in ("sync", "async"):
        definition = make_job("any", kind).definition
        patch.setitem(registry, definition.name, definition)

    def make():
        queue = RedisTaskQueue(server.url, queues=[f"queue{next(_names)}"], patience=20)
        request.addfinalizer(queue.close)
        return queue

    return make


QUEUES = {
    "memory": pytest.param(in_memory, marks=pytest.mark.quick),
    "redis": on_a_server,
}


@pytest.fixture(params=QUEUES.values(), ids=QUEUES)
def make_queue(request):
    return request.param(request)


@pytest.fixture
def queue(make_queue):
    return make_queue()


@pytest.fixture
def enqueue(queue, make_job):
    """Puts jobs with these ids in, and gives them by id."""

    def put(*ids, kind="sync", **attributes):
        jobs = {each: make_job(each, kind, **attributes) for each in ids}
        for job in jobs.values():
            queue.enqueue(job)
        return jobs

    return put


def ids(jobs):
    return [job.id for job in jobs]


def last_report(job, status=TaskStatus.COMPLETED, message="no"):
    """A last report of a job, as a manager makes it."""
    now = time.monotonic()
    if status is TaskStatus.COMPLETED:
        return job.completed_report(None, 0, now, now)
    if status is TaskStatus.FAILED:
        return job.failed_report(Failure(FailureKind.ERROR, message), now, now)
    return job.cancelled_report(now, now)


def end(queue, job, status=TaskStatus.COMPLETED, message="no"):
    """A job has come to its end; gives its last report."""
    report = last_report(job, status, message)
    queue.settle(job, report)
    return report


def claim_all(queue):
    return queue.claim(ALL, ALL)


KINDS = {"sync": (ALL, 0), "async": (0, ALL)}


# --- order


@pytest.mark.parametrize(("kind", "room"), KINDS.items(), ids=KINDS)
def test_jobs_come_out_in_the_order_in_which_they_went_in(queue, enqueue, kind, room):
    enqueue(*"abcde", kind=kind)
    assert ids(queue.claim(*room)) == list("abcde")
    assert queue.claim(*room) == []


def test_no_more_of_a_kind_are_claimed_than_there_is_room_for(queue, enqueue):
    # given jobs of both kinds
    enqueue("s1", "s2", "s3")
    enqueue("a1", "a2", "a3", kind="async")
    # if there is room for so many of each, expect so many, the longest waiting first
    assert ids(queue.claim(0, 0)) == []
    assert ids(queue.claim(1, 0)) == ["s1"]
    assert ids(queue.claim(0, 2)) == ["a1", "a2"]
    assert sorted(ids(queue.claim(1, 5))) == ["a3", "s2"]
    assert ids(queue.claim(5, 5)) == ["s3"]


def test_a_job_comes_out_with_its_kind(queue, enqueue):
    enqueue("s")
    enqueue("a", kind="async")
    kinds = {job.id: job.definition.kind for job in queue.claim(ALL, ALL)}
    assert kinds == {"s": "sync", "a": "async"}


# --- counts


def test_counts_follow_a_job_on_its_way(queue, enqueue):
    assert (queue.waiting(), queue.running()) == ((0, 0), 0)
    enqueue("s1", "s2")
    enqueue("a1", kind="async")
    assert (queue.waiting(), queue.running()) == ((2, 1), 0)
    first, second = queue.claim(1, 1)
    assert (queue.waiting(), queue.running()) == ((1, 0), 2)
    queue.refund([first])
    assert (sum(queue.waiting()), queue.running()) == (2, 1)
    queue.retry(second)
    assert (queue.waiting(), queue.running()) == ((2, 1), 0)
    for job in queue.claim(ALL, ALL):
        end(queue, job)
    assert (queue.waiting(), queue.running()) == ((0, 0), 0)


# --- refunds and retries


@pytest.mark.parametrize(("kind", "room"), KINDS.items(), ids=KINDS)
def test_refunds_wait_before_all_others_the_oldest_first(queue, enqueue, kind, room):
    enqueue(*"abcd", kind=kind)
    a, b, c = queue.claim(*(3 if each else 0 for each in room))
    # given refunds in several portions, each in any order
    queue.refund([c, b])
    queue.refund([])
    queue.refund([a])
    enqueue("e", kind=kind)
    assert ids(queue.claim(*room)) == list("abcde")


def test_refunds_of_both_kinds_go_back_each_to_its_own(queue, enqueue):
    enqueue("s1", "s2")
    enqueue("a1", "a2", kind="async")
    queue.refund(reversed(queue.claim(1, 1)))
    assert ids(queue.claim(ALL, 0)) == ["s1", "s2"]
    assert ids(queue.claim(0, ALL)) == ["a1", "a2"]


def test_a_refund_goes_to_its_old_place(queue, enqueue):
    enqueue(*"abcd")
    a, b, c = queue.claim(3, 0)
    # given refunds one by one, the older ones first
    for each in (a, b, c):
        queue.refund([each])
    a, b = queue.claim(2, 0)
    assert ids([a, b]) == ["a", "b"]
    # and one between others
    queue.refund([b])
    assert ids(queue.claim(ALL, 0)) == ["b", "c", "d"]


def test_refunds_made_at_the_same_moment_keep_their_order(queue, enqueue):
    # given jobs that were made between two ticks of the clock
    enqueue(*"abc", created_at=5.0)
    # if all are claimed and given back
    queue.refund(queue.claim(ALL, 0))
    assert ids(queue.claim(ALL, 0)) == list("abc")


@pytest.mark.parametrize(("kind", "room"), KINDS.items(), ids=KINDS)
def test_a_retry_waits_after_all_others(queue, enqueue, kind, room):
    enqueue(*"ab", kind=kind)
    first, _ = queue.claim(*room)
    enqueue("c", kind=kind)
    queue.retry(first)
    assert ids(queue.claim(*room)) == ["c", "a"]


# --- duplicates


def test_an_id_that_waits_or_runs_is_refused_until_it_is_settled(queue, enqueue):
    (job,) = enqueue("mine").values()
    # if it waits
    with pytest.raises(DuplicateTaskError) as caught:
        enqueue("mine", kind="async")
    assert caught.value.id == "mine"
    # if it runs
    (job,) = queue.claim(ALL, ALL)
    with pytest.raises(DuplicateTaskError):
        enqueue("mine")
    # if it waits again
    queue.refund([job])
    with pytest.raises(DuplicateTaskError):
        enqueue("mine")
    (job,) = queue.claim(ALL, ALL)
    queue.retry(job)
    with pytest.raises(DuplicateTaskError):
        enqueue("mine")
    # expect that nothing came of all that
    assert (queue.waiting(), queue.running()) == ((1, 0), 0)
    # if it has ended, expect its id to be free
    (job,) = queue.claim(ALL, ALL)
    end(queue, job)
    enqueue("mine", kind="async")
    assert ids(queue.claim(ALL, ALL)) == ["mine"]


def test_one_job_cannot_wait_twice(queue, make_job):
    job = make_job("mine")
    queue.enqueue(job)
    with pytest.raises(DuplicateTaskError):
        queue.enqueue(job)
    assert queue.waiting() == (1, 0)


# --- withdrawals


@pytest.mark.parametrize(("kind", "room"), KINDS.items(), ids=KINDS)
@pytest.mark.parametrize("which", [0, 1, 2], ids=["first", "middle", "last"])
def test_a_withdrawn_job_never_comes_out(queue, enqueue, kind, room, which):
    names = list("abc")
    enqueue(*names, kind=kind)
    taken = names.pop(which)
    assert queue.cancel(taken).id == taken
    assert sum(queue.waiting()) == 2
    assert queue.cancel(taken) is None, "once"
    assert ids(queue.claim(*room)) == names
    assert (sum(queue.waiting()), queue.running()) == (0, 2)


def test_only_what_waits_can_be_withdrawn(queue, enqueue):
    enqueue("mine")
    assert queue.cancel("another") is None
    (job,) = queue.claim(ALL, ALL)
    assert queue.cancel("mine") is None
    assert queue.running() == 1
    end(queue, job)
    assert queue.cancel("mine") is None


@pytest.mark.parametrize("back", ["refund", "retry"])
def test_what_waits_again_can_be_withdrawn_again(queue, enqueue, back):
    enqueue("mine", "other")
    (job,) = queue.claim(1, 0)
    queue.refund([job]) if back == "refund" else queue.retry(job)
    assert queue.cancel("mine").id == "mine"
    assert ids(queue.claim(ALL, ALL)) == ["other"]


def test_a_withdrawn_id_is_free_for_another_job(queue, enqueue):
    enqueue("mine", "other")
    queue.cancel("mine")
    enqueue("mine", kind="async")
    assert queue.waiting() == (1, 1)
    assert sorted((job.id, job.definition.kind) for job in queue.claim(ALL, ALL)) == [
        ("mine", "async"),
        ("other", "sync"),
    ]


def test_room_is_not_used_up_by_withdrawn_jobs(queue, enqueue):
    enqueue(*"abcd")
    for each in "ab":
        queue.cancel(each)
    assert ids(queue.claim(1, 0)) == ["c"]
    assert queue.waiting() == (1, 0)


# --- dropping


def test_dropping_gives_all_that_waits_and_leaves_what_runs(queue, enqueue):
    # given jobs of both kinds, one of which runs and one of which is withdrawn
    enqueue(*"abcd")
    enqueue("x", "y", kind="async")
    (running,) = queue.claim(1, 0)
    queue.cancel("c")
    # if everything is dropped
    dropped = ids(queue.drop())
    # expect the others, each kind in order
    assert sorted(dropped) == ["b", "d", "x", "y"]
    assert [each for each in dropped if each in "bd"] == ["b", "d"]
    assert [each for each in dropped if each in "xy"] == ["x", "y"]
    assert (queue.waiting(), queue.running()) == ((0, 0), 1)
    assert queue.claim(ALL, ALL) == queue.drop() == []
    # expect their ids to be free, and that of the running one not
    enqueue("b", "x")
    with pytest.raises(DuplicateTaskError):
        enqueue("a")
    end(queue, running)
    enqueue("a")


# --- news


def test_everybody_is_told_when_something_new_may_be_claimed(queue, enqueue):
    told = []
    queue.on_available(lambda: told.append("one"))
    queue.on_available(lambda: told.append("two"))
    # given that there is nothing: who has found nothing is waiting for news
    assert claim_all(queue) == []
    assert told == []
    enqueue("a")
    wait_until(lambda: told == ["one", "two"])
    assert ids(claim_all(queue)) == ["a"]
    enqueue("b", kind="async")
    wait_until(lambda: len(told) == 4)


def test_whoever_is_told_may_claim_at_once(queue, enqueue):
    claimed = []
    queue.on_available(lambda: claimed.extend(queue.claim(ALL, ALL)))
    assert claim_all(queue) == []
    enqueue("a")
    wait_until(lambda: ids(claimed) == ["a"])
    enqueue("b")
    wait_until(lambda: ids(claimed) == ["a", "b"])
    assert queue.running() == 2


def test_of_a_refused_job_nobody_is_told(queue, enqueue):
    enqueue("a")
    told = []
    queue.on_available(lambda: told.append(1))
    with pytest.raises(DuplicateTaskError):
        enqueue("a")
    assert told == []


# --- priority


@pytest.mark.parametrize(("kind", "room"), KINDS.items(), ids=KINDS)
def test_a_higher_priority_goes_first_and_equals_in_order(queue, make_job, kind, room):
    for task_id, priority in [("a", 0), ("b", -100), ("c", 7), ("d", 0), ("e", 100), ("f", 7)]:
        queue.enqueue(make_job(task_id, kind, priority=priority))
    assert sum(queue.waiting()) == 6
    assert ids(queue.claim(*(min(each, 2) for each in room))) == ["e", "c"]
    assert ids(queue.claim(*room)) == ["f", "a", "d", "b"]
    assert sum(queue.waiting()) == 0


def test_priorities_hold_for_refunds_and_retries_too(queue, make_job):
    for task_id, priority in [("a", 5), ("b", 5), ("c", 0), ("d", 9)]:
        queue.enqueue(make_job(task_id, priority=priority))
    d, a, b, c = claim_all(queue)
    queue.refund([c, a])
    queue.retry(d)
    queue.retry(b)
    assert ids(claim_all(queue)) == ["d", "a", "b", "c"]


def test_a_withdrawn_job_of_a_priority_never_comes_out(queue, make_job):
    for task_id, priority in [("a", 5), ("b", 5), ("c", 0)]:
        queue.enqueue(make_job(task_id, priority=priority))
    assert queue.cancel("a").id == "a"
    assert queue.waiting() == (2, 0)
    assert ids(queue.claim(1, 0)) == ["b"]
    assert ids(claim_all(queue)) == ["c"]


# --- delays


SHORT = 0.05  # seconds: long enough to be looked at before it is over
LONG = 1000.0


def ready(queue, sync=0, asyncs=0):
    """Wait until so many are ready."""

    def are_ready():
        queue.claim(0, 0)  # a server looks at the clock when somebody comes
        return queue.waiting() == (sync, asyncs)

    wait_until(are_ready, what=f"{(sync, asyncs)} ready")


def assert_due(queue, low, high):
    """Something is due in so many seconds, unless that is the affair of a server."""
    due = queue.due()
    assert due is None if queue.remote else low <= due <= high


@pytest.mark.parametrize(
    "terms", [lambda: {"delay": LONG}, lambda: {"eta": time.time() + LONG}], ids=["delay", "eta"]
)
@pytest.mark.parametrize(("kind", "room"), KINDS.items(), ids=KINDS)
def test_a_delayed_job_does_not_come_out(queue, make_job, kind, room, terms):
    job = make_job("later", kind, **terms())
    assert not queue.admit(job)
    queue.enqueue(job)
    queue.enqueue(make_job("now", kind))
    assert (sum(queue.waiting()), queue.delayed(), queue.running()) == (1, 1, 0)
    assert ids(queue.claim(*room)) == ["now"]
    assert queue.claim(*room) == []
    assert_due(queue, LONG - 60, LONG)


@pytest.mark.parametrize(
    "terms", [lambda: {"delay": SHORT}, lambda: {"eta": time.time() + SHORT}], ids=["delay", "eta"]
)
def test_a_delayed_job_comes_out_when_it_is_due(queue, make_job, terms):
    queue.enqueue(make_job("a", **terms()))
    queue.enqueue(make_job("b", "async", **terms()))
    assert_due(queue, 0.0, SHORT)
    ready(queue, 1, 1)
    assert queue.delayed() == 0
    assert sorted(ids(claim_all(queue))) == ["a", "b"]
    assert queue.due() is None


def test_an_eta_that_is_over_is_no_delay(queue, make_job):
    queue.enqueue(make_job("a", eta=time.time() - LONG))
    assert ids(claim_all(queue)) == ["a"]


def test_what_was_delayed_keeps_its_place_among_its_equals(queue, make_job):
    queue.enqueue(make_job("a", delay=SHORT))
    queue.enqueue(make_job("b"))
    queue.enqueue(make_job("c", delay=SHORT, priority=5))
    queue.enqueue(make_job("d", priority=5))
    ready(queue, 4)
    assert ids(claim_all(queue)) == ["c", "d", "a", "b"]


def test_of_a_delayed_job_nobody_is_told_yet(queue, enqueue):
    told = []
    queue.on_available(lambda: told.append(1))
    enqueue("later", delay=LONG)
    assert told == []


def test_a_delayed_job_can_be_withdrawn(queue, enqueue):
    enqueue("later", delay=LONG)
    enqueue("now")
    with pytest.raises(DuplicateTaskError):
        enqueue("later")
    assert queue.cancel("later").id == "later"
    assert queue.cancel("later") is None
    assert (queue.waiting(), queue.delayed(), queue.due()) == ((1, 0), 0, None)
    enqueue("later")
    assert ids(claim_all(queue)) == ["now", "later"]


def test_a_retry_waits_its_delay_and_then_after_all_others(queue, enqueue):
    enqueue("a", "b")
    a, b = claim_all(queue)
    enqueue("c")
    queue.retry(a, SHORT)
    queue.retry(b, LONG)
    assert (queue.waiting(), queue.delayed(), queue.running()) == ((1, 0), 2, 0)
    assert ids(queue.drop()) == ["c"]
    enqueue("c")
    ready(queue, 2)
    assert ids(claim_all(queue)) == ["c", "a"]
    assert queue.cancel("b").id == "b"


def test_what_is_dropped_is_not_what_is_delayed(queue, enqueue):
    enqueue("later", delay=LONG)
    enqueue("now")
    assert ids(queue.drop()) == ["now"]
    assert (queue.waiting(), queue.delayed()) == ((0, 0), 1)


def test_many_delays_are_kept_apart(queue, make_job):
    for number in range(200):
        queue.enqueue(make_job(f"later-{number}", delay=LONG + number))
    for number in range(199):
        assert queue.cancel(f"later-{number}") is not None
    assert queue.delayed() == 1
    assert_due(queue, LONG + 100, LONG + 199)


# --- those that do not start in time


def assert_expire(queue, *names):
    """Wait until these have waited too long, and no others have; they are dead then."""
    if not queue.remote:
        jobs = wait_until(queue.expired, what=f"{names} have expired")
        assert ids(jobs) == list(names)
        for job in jobs:
            end(queue, job, TaskStatus.FAILED)

    def are_dead():
        queue.claim(0, 0)  # a server looks at the clock when somebody comes
        return ids(queue.dead())[-len(names) :] == list(names)

    wait_until(are_dead, what=f"{names} are dead")
    assert queue.expired() == []


@pytest.mark.parametrize(("kind", "room"), KINDS.items(), ids=KINDS)
def test_a_job_whose_time_is_over_does_not_come_out(queue, enqueue, kind, room):
    enqueue("short", kind=kind, ttl=SHORT)
    enqueue("long", kind=kind, ttl=LONG)
    assert_due(queue, 0.0, SHORT)
    assert_expire(queue, "short")
    assert ids(queue.claim(*room)) == ["long"]


def test_the_time_to_start_begins_when_a_job_is_due(queue, enqueue):
    enqueue("later", delay=SHORT, ttl=LONG)
    ready(queue, 1)
    assert queue.expired() == []
    assert_due(queue, LONG - 60, LONG)
    enqueue("later and short", delay=SHORT, ttl=SHORT)
    assert_expire(queue, "later and short")


def test_of_an_expired_job_nothing_is_left_but_its_report(queue, enqueue):
    enqueue("mine", ttl=SHORT, unique="key")
    assert_expire(queue, "mine")
    assert (queue.waiting(), queue.delayed(), queue.running()) == ((0, 0), 0, 0)
    assert queue.cancel("mine") is None
    assert ids(queue.dead()) == ["mine"]
    enqueue("mine", unique="key")


def test_what_was_claimed_in_time_does_not_expire(queue, enqueue):
    enqueue("mine", ttl=SHORT)
    (job,) = claim_all(queue)
    # if another one, which was to start a moment later, has expired
    enqueue("other", ttl=SHORT)
    assert_expire(queue, "other")
    assert queue.due() is None
    # and it comes back too late
    queue.refund([job])
    assert claim_all(queue) == []
    assert_expire(queue, *(["mine", "other"] if queue.remote else ["mine"]))


def test_a_withdrawn_job_does_not_expire(queue, enqueue):
    enqueue("mine", ttl=SHORT)
    queue.cancel("mine")
    enqueue("other", ttl=2 * SHORT)
    assert_expire(queue, "other")


# --- unique keys


def test_of_a_key_one_job_waits_or_runs(queue, enqueue):
    def refused():
        before = queue.waiting(), queue.delayed(), queue.running()
        with pytest.raises(DuplicateTaskError) as caught:
            enqueue("second", unique="key")
        assert (caught.value.id, caught.value.key) == ("first", "key")
        assert "'key'" in str(caught.value)
        assert "'first'" in str(caught.value)
        assert (queue.waiting(), queue.delayed(), queue.running()) == before

    enqueue("first", unique="key", delay=SHORT)
    refused()
    enqueue("other", unique="another key")
    ready(queue, 2)
    refused()
    job, other = claim_all(queue)
    refused()
    queue.refund([job])
    refused()
    (job,) = claim_all(queue)
    queue.retry(job, SHORT)
    refused()
    ready(queue, 1)
    (job,) = claim_all(queue)
    end(queue, job)
    enqueue("second", unique="key")
    end(queue, other)


@pytest.mark.parametrize("status", [TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED])
def test_a_key_is_free_when_its_job_has_ended_however(queue, enqueue, status):
    enqueue("first", unique="key")
    (job,) = claim_all(queue)
    end(queue, job, status)
    enqueue("second", unique="key")


def test_a_key_is_free_when_its_job_is_withdrawn_or_dropped(queue, enqueue):
    enqueue("first", unique="key")
    queue.cancel("first")
    enqueue("second", unique="key")
    queue.drop()
    enqueue("third", unique="key")
    # It is no matter who is settled without holding it.
    assert ids(claim_all(queue)) == ["third"]


def test_an_id_that_is_taken_takes_no_key(queue, enqueue):
    enqueue("mine", unique="key")
    with pytest.raises(DuplicateTaskError) as caught:
        enqueue("mine", unique="another")
    assert caught.value.key is None
    enqueue("other", unique="another")


# --- pausing


def test_a_paused_queue_hands_out_nothing(queue, enqueue, make_job):
    enqueue("a", "b")
    (running,) = queue.claim(1, 0)
    assert not queue.paused
    # if it is paused
    queue.pause()
    queue.pause()
    # expect that it takes, and gives nothing
    enqueue("c", kind="async")
    enqueue("d", delay=SHORT)
    ready(queue, 2, 1)
    assert queue.paused
    assert claim_all(queue) == []
    assert not queue.admit(make_job("e"))
    # and that everything else goes on
    queue.refund([running])
    assert queue.cancel("a").id == "a"
    assert (queue.waiting(), queue.running()) == ((2, 1), 0)
    # if it is resumed
    queue.resume()
    assert not queue.paused
    assert sorted(ids(claim_all(queue))) == ["b", "c", "d"]


def test_everybody_is_told_when_a_pause_is_over_and_something_waits(queue, enqueue):
    told = []
    queue.on_available(lambda: told.append(ids(claim_all(queue))))
    assert claim_all(queue) == []
    queue.pause()
    queue.resume()
    assert told == []
    queue.pause()
    enqueue("a")
    told.clear()
    queue.resume()
    wait_until(lambda: told == [["a"]])


def test_jobs_expire_in_a_paused_queue_too(queue, enqueue):
    queue.pause()
    enqueue("a", ttl=SHORT)
    assert_expire(queue, "a")


# --- those that failed for good


def fail(queue, enqueue, *names, **attributes):
    """Jobs with these ids fail, one after the other; gives their reports."""
    reports = []
    for name in names:
        enqueue(name, **attributes)
        (job,) = claim_all(queue)
        reports.append(end(queue, job, TaskStatus.FAILED, f"{name} broke"))
    return reports


def test_what_failed_for_good_is_dead_the_newest_last(queue, enqueue):
    fail(queue, enqueue, *"abc")
    enqueue("fine", "cancelled")
    for job, status in zip(
        claim_all(queue), (TaskStatus.COMPLETED, TaskStatus.CANCELLED), strict=True
    ):
        end(queue, job, status)
    reports = queue.dead()
    assert ids(reports) == ["a", "b", "c"]
    assert [each.error.message for each in reports] == ["a broke", "b broke", "c broke"]
    assert {each.status for each in reports} == {TaskStatus.FAILED}
    assert ids(queue.dead(offset=1)) == ["b", "c"]
    assert ids(queue.dead(limit=2)) == ["a", "b"]
    assert ids(queue.dead(1, 1)) == ["b"]
    assert queue.dead(3) == []
    assert queue.info()["dead"] == 3


def test_a_dead_job_can_be_sent_back(queue, enqueue):
    fail(queue, enqueue, "mine", kind="async", priority=7)
    enqueue("other", kind="async")
    # if it is
    job = queue.revive("mine")
    # expect it to wait as if it had never run
    assert (job.id, job.attempt, job.crashes, job.definition.kind) == ("mine", 1, 0, "async")
    assert queue.remote or job.terms.priority == 7
    assert (queue.waiting(), queue.dead()) == ((0, 2), [])
    with pytest.raises(DuplicateTaskError):
        enqueue("mine")
    claimed = claim_all(queue)
    assert ids(claimed) == ["mine", "other"]
    # and to die once more
    end(queue, claimed[0], TaskStatus.FAILED)
    assert ids(queue.dead()) == ["mine"]


def test_only_a_dead_job_can_be_sent_back(queue, enqueue):
    fail(queue, enqueue, "dead")
    enqueue("waiting", "running")
    assert queue.revive("nobody") is None
    assert queue.revive("waiting") is None
    assert queue.revive("dead").id == "dead"
    assert queue.revive("dead") is None


def test_what_is_sent_back_waits_no_delay_and_has_all_its_time_to_start(queue, enqueue):
    enqueue("mine", delay=SHORT, ttl=LONG)
    ready(queue, 1)
    (job,) = claim_all(queue)
    end(queue, job, TaskStatus.FAILED)
    queue.revive("mine")
    assert (queue.waiting(), queue.delayed()) == ((1, 0), 0)
    assert_due(queue, LONG - 60, LONG)


def test_what_is_sent_back_needs_its_key(queue, enqueue):
    fail(queue, enqueue, "mine", unique="key")
    enqueue("holder", unique="key")
    with pytest.raises(DuplicateTaskError) as caught:
        queue.revive("mine")
    assert (caught.value.id, caught.value.key) == ("holder", "key")
    assert ids(queue.dead()) == ["mine"]
    queue.cancel("holder")
    queue.revive("mine")
    with pytest.raises(DuplicateTaskError):
        enqueue("another", unique="key")


def test_a_dead_id_may_be_used_again_and_is_dead_no_more(queue, enqueue):
    fail(queue, enqueue, "mine", "other")
    enqueue("mine")
    assert ids(queue.dead()) == ["other"]
    assert queue.revive("mine") is None
    assert ids(claim_all(queue)) == ["mine"]


# --- what it says of itself


def test_its_numbers_are_there_at_one_glance(queue, enqueue):
    fail(queue, enqueue, "dead")
    enqueue("s", "t", "u")
    enqueue("a", kind="async")
    enqueue("later", delay=LONG)
    queue.claim(1, 0)
    queue.pause()
    expected = {
        "name": queue.name,
        "paused": True,
        "waiting": 3,
        "delayed": 1,
        "running": 1,
        "dead": 1,
    }
    assert expected.items() <= queue.info().items()


# --- whatever happens, in any order


class Model(RuleBasedStateMachine):
    """The queue beside a model of it: what waits by priority and place, what runs, what is dead."""

    make_queue = make_job = None

    def __init__(self):
        super().__init__()
        self.queue = type(self).make_queue()
        self.jobs = {}  # id -> (kind, priority), all that wait or run
        self.places = {}  # id -> place, those that wait and are not delayed
        self.delayed = set()
        self.claimed = {}
        self.dead = {}  # id -> (kind, priority)
        self.moment = 0

    names = st.sampled_from("abcdefgh")
    kinds = st.sampled_from(["sync", "async"])
    priorities = st.sampled_from([0, 0, 0, 5, -5])

    def line(self, kind):
        """Those of a kind that are ready, in order."""
        mine = [each for each in self.places if self.jobs[each][0] == kind]
        return sorted(mine, key=lambda each: (-self.jobs[each][1], self.places[each]))

    def place(self):
        self.moment += 1
        return self.moment

    @rule(name=names, kind=kinds, priority=priorities, later=st.booleans())
    def enqueue(self, name, kind, priority, later):
        terms = {"priority": priority} if priority else {}
        if later:
            terms["delay"] = LONG
        job = type(self).make_job(name, kind, **terms)
        if name in self.jobs:
            with pytest.raises(DuplicateTaskError):
                self.queue.enqueue(job)
            return
        self.queue.enqueue(job)
        self.jobs[name] = kind, priority
        self.dead.pop(name, None)
        if later:
            self.delayed.add(name)
        else:
            self.places[name] = self.place()

    @rule(sync=st.integers(0, 3), asyncs=st.integers(0, 3))
    def claim(self, sync, asyncs):
        jobs = self.queue.claim(sync, asyncs)
        for kind, room in (("sync", sync), ("async", asyncs)):
            expected = [] if self.queue.paused else self.line(kind)[:room]
            assert [each.id for each in jobs if each.definition.kind == kind] == expected
        self.claimed.update({job.id: (job, self.places.pop(job.id)) for job in jobs})

    @rule(name=names, how=st.sampled_from(["refund", "retry", "later", *TaskStatus]))
    def end_claim(self, name, how):
        job, place = self.claimed.pop(name, (None, None))
        if job is None:
            return
        if how == "refund":
            self.queue.refund([job])
            self.places[name] = place
        elif how == "retry":
            self.queue.retry(job)
            self.places[name] = self.place()
        elif how == "later":
            self.queue.retry(job, LONG)
            self.delayed.add(name)
        else:
            status = how if how.finished else TaskStatus.COMPLETED
            end(self.queue, job, status)
            terms = self.jobs.pop(name)
            if status is TaskStatus.FAILED:
                self.dead[name] = terms

    @rule(name=names)
    def cancel(self, name):
        job = self.queue.cancel(name)
        waits = name in self.places or name in self.delayed
        assert (job.id if job else None) == (name if waits else None)
        if waits:
            self.places.pop(name, None)
            self.delayed.discard(name)
            del self.jobs[name]

    @rule(name=names)
    def revive(self, name):
        job = self.queue.revive(name)
        terms = self.dead.pop(name, None)
        assert (job.id if job else None) == (name if terms else None)
        if terms:
            self.jobs[name] = terms
            self.places[name] = self.place()

    @rule()
    def pause_or_resume(self):
        self.queue.resume() if self.queue.paused else self.queue.pause()

    @rule()
    def drop(self):
        dropped = ids(self.queue.drop())
        assert sorted(dropped) == sorted(self.places)
        self.places.clear()
        for name in dropped:
            del self.jobs[name]

    @invariant()
    def counts_agree(self):
        assert self.queue.waiting() == (len(self.line("sync")), len(self.line("async")))
        assert self.queue.delayed() == len(self.delayed)
        assert self.queue.running() == len(self.claimed)
        # A server lists them in the order in which they were submitted.
        in_order = sorted if self.queue.remote else list
        assert in_order(ids(self.queue.dead())) == in_order(self.dead)


def test_whatever_happens_it_agrees_with_its_model(make_queue, make_job):
    machine = type(
        "Machine",
        (Model,),
        {"make_queue": staticmethod(make_queue), "make_job": staticmethod(make_job)},
    )
    examples = 10 if make_queue().remote else 60
    run_state_machine_as_test(machine, settings=settings(max_examples=examples))


# --- by URL


def test_a_queue_is_connected_by_its_url_or_is_itself(queue):
    assert connect(queue) is queue
    assert isinstance(connect("memory://"), InMemoryTaskQueue)
    assert connect("memory://") is not connect("memory://")
    assert isinstance(queue, TaskQueue)


@pytest.mark.quick
@pytest.mark.parametrize("url", ["", "memory", "carrier-pigeon://", None, 5])
def test_an_unknown_url_is_refused_and_the_known_ones_named(url):
    with pytest.raises(ConfigurationError, match="memory://") as caught:
        connect(url)
    assert caught.value.field == "url"


class Add(gtaskman.Task):
    number: int

    def run(self, _progress):
        return self.number + 1


@gtaskman.task
def add(number):
    return number + 1


@pytest.mark.parametrize(
    "make", [lambda: Add(number=1), lambda: add.task(1)], ids=["class", "call"]
)
def test_a_task_object_of_the_application_may_be_enqueued(make_queue, make):
    queue = make_queue()
    ended = Event()
    manager = gtaskman.TaskManager(queue, gtaskman.Configuration(max_processes=1))
    with manager:
        manager.once("task-completed", lambda report: ended.set())
        task = make()
        queue.enqueue(task)
        wait_until(lambda: manager.report(task.id) is not None)
        wait_until(ended.is_set)
        assert manager.report(task.id).result == 2


def test_a_queue_in_memory_without_a_manager_refuses_a_task_object():
    with pytest.raises(ConfigurationError, match="no manager yet"):
        InMemoryTaskQueue().enqueue(add.task(1))
