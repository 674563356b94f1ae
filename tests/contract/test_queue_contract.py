"""The contract of every queue (``gtaskman/queues/base.py``), over every implementation.

To add one, add what makes an empty queue of it to ``QUEUES``. Jobs are compared by id: a queue that
keeps them elsewhere gives equal ones, not the same.
"""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from gtaskman import DuplicateTaskError, InMemoryTaskQueue
from gtaskman.errors import ConfigurationError
from gtaskman.queues import TaskQueue, connect

pytestmark = pytest.mark.quick

QUEUES = {"memory": InMemoryTaskQueue}
ALL = 1000


@pytest.fixture(params=QUEUES.values(), ids=QUEUES)
def make_queue(request):
    return request.param


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
        queue.settle(job)
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
    queue.settle(job)
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
    queue.settle(job)
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
    queue.settle(running)
    enqueue("a")


# --- news


def test_everybody_is_told_when_something_new_may_be_claimed(queue, enqueue):
    told = []
    queue.on_available(lambda: told.append("one"))
    queue.on_available(lambda: told.append("two"))
    assert told == []
    enqueue("a")
    assert told == ["one", "two"]
    enqueue("b", kind="async")
    assert len(told) == 4


def test_whoever_is_told_may_claim_at_once(queue, enqueue):
    claimed = []
    queue.on_available(lambda: claimed.extend(queue.claim(ALL, ALL)))
    enqueue("a", "b")
    assert ids(claimed) == ["a", "b"]
    assert queue.running() == 2


def test_of_a_refused_job_nobody_is_told(queue, enqueue):
    enqueue("a")
    told = []
    queue.on_available(lambda: told.append(1))
    with pytest.raises(DuplicateTaskError):
        enqueue("a")
    assert told == []


# --- whatever happens, in any order


class Model(RuleBasedStateMachine):
    """The queue beside a model of it: two lists and a set."""

    make_queue = make_job = None

    def __init__(self):
        super().__init__()
        self.queue = type(self).make_queue()
        self.lines = {"sync": [], "async": []}
        self.claimed = {}
        self.kinds = {}

    names = st.sampled_from("abcdefgh")

    @rule(name=names, kind=st.sampled_from(["sync", "async"]))
    def enqueue(self, name, kind):
        job = type(self).make_job(name, kind)
        if name in self.kinds:
            with pytest.raises(DuplicateTaskError):
                self.queue.enqueue(job)
        else:
            self.queue.enqueue(job)
            self.kinds[name] = kind
            self.lines[kind].append(name)

    @rule(sync=st.integers(0, 3), asyncs=st.integers(0, 3))
    def claim(self, sync, asyncs):
        jobs = self.queue.claim(sync, asyncs)
        for kind, room in (("sync", sync), ("async", asyncs)):
            line = self.lines[kind]
            expected, line[:] = line[:room], line[room:]
            assert [each.id for each in jobs if each.definition.kind == kind] == expected
        self.claimed.update({job.id: job for job in jobs})

    @rule(name=names, how=st.sampled_from(["refund", "retry", "settle"]))
    def end_claim(self, name, how):
        job = self.claimed.pop(name, None)
        if job is None:
            return
        line = self.lines[self.kinds[name]]
        if how == "refund":
            self.queue.refund([job])
            line.insert(0, name)
        elif how == "retry":
            self.queue.retry(job)
            line.append(name)
        else:
            self.queue.settle(job)
            del self.kinds[name]

    @rule(name=names)
    def cancel(self, name):
        job = self.queue.cancel(name)
        waits = name in self.kinds and name not in self.claimed
        assert (job.id if job else None) == (name if waits else None)
        if waits:
            self.lines[self.kinds.pop(name)].remove(name)

    @rule()
    def drop(self):
        dropped = ids(self.queue.drop())
        assert sorted(dropped) == sorted(self.lines["sync"] + self.lines["async"])
        for name in dropped:
            self.lines[self.kinds.pop(name)].remove(name)

    @invariant()
    def counts_agree(self):
        assert self.queue.waiting() == (len(self.lines["sync"]), len(self.lines["async"]))
        assert self.queue.running() == len(self.claimed)


def test_whatever_happens_it_agrees_with_two_lists_and_a_set(make_queue, make_job):
    machine = type(
        "Machine",
        (Model,),
        {"make_queue": staticmethod(make_queue), "make_job": staticmethod(make_job)},
    )
    run_state_machine_as_test(machine, settings=settings(max_examples=60))


# --- by URL


def test_a_queue_is_connected_by_its_url_or_is_itself(queue):
    assert connect(queue) is queue
    assert isinstance(connect("memory://"), InMemoryTaskQueue)
    assert connect("memory://") is not connect("memory://")
    assert isinstance(queue, TaskQueue)


@pytest.mark.parametrize("url", ["", "memory", "carrier-pigeon://", None, 5])
def test_an_unknown_url_is_refused_and_the_known_ones_named(url):
    with pytest.raises(ConfigurationError, match="memory://") as caught:
        connect(url)
    assert caught.value.field == "url"
