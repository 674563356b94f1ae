"""A client and a manager on both sides of a server: what is sent arrives, runs, and is told of."""

from __future__ import annotations

import datetime
import decimal
import itertools
import time
import uuid

import gevent
import msgspec
import pytest
import sharing
from entries import entry, let_pass
from scenarios import work
from scenarios.control import fate, lines
from scene import ONE_BY_ONE, Scene, worker_of
from servers import RunningServer, any_kind
from worlds import PATIENCE, wait_until

import gtaskman
from gtaskman import FailureKind, TaskStatus
from gtaskman.redis import line as lines_of_threads
from gtaskman.redis.record import body_of, end_of
from gtaskman.task import registry

KINDS = pytest.mark.parametrize("kind", ["sync", "async"])
SHORT = 0.2  # seconds: long enough to look at what waits
LONG = 1000.0


@pytest.fixture(scope="module")
def any_running():
    with RunningServer(any_kind()) as server:
        yield server


@pytest.fixture
def scene(any_running):
    with Scene(any_running) as scene:
        yield scene


@pytest.fixture
def client(scene):
    return scene.client()


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "marks")


def statuses(reports):
    return {each.id: each.status for each in reports}


def ids(those):
    return [each.id for each in those]


def owned(handle):
    """Wait until a manager has it."""
    wait_until(lambda: handle.report.status is TaskStatus.PROCESSING, what=f"{handle} runs")


# --- every server


def test_the_whole_way_there_and_back_on_every_server(running, path):
    with Scene(running) as scene:
        manager, client = scene.manager(), scene.client()
        handles = client.submit_many(sharing.double.task(each) for each in range(300))
        asyncs = [client.submit(sharing.double_async, each) for each in range(20)]
        later = client.submit(sharing.double.with_options(delay=SHORT, priority=5), 5)
        failing = client.submit(work.fail_until.with_options(retries=1, backoff=0.01), path, 3)
        unwanted = client.submit(work.nap)
        unwanted_yet = client.submit(sharing.double.with_options(delay=LONG), 1)

        assert [each.get(PATIENCE) for each in handles] == [2 * each for each in range(300)]
        assert [each.get(PATIENCE) for each in asyncs] == [2 * each for each in range(20)]
        assert later.get(PATIENCE) == 10
        assert str(fate(failing).message) == "attempt 2"
        assert len(client.submit(sharing.text, 100_000).get(PATIENCE)) == 100_000
        assert [each.message for each in client.submit(sharing.steps, 2).progress()][-1] == "step 2"
        owned(unwanted)
        assert unwanted.cancel("no more")
        assert unwanted_yet.cancel("never")
        assert [fate(each).reason for each in (unwanted, unwanted_yet)] == ["no more", "never"]
        assert list(client.map(sharing.double, range(50), chunksize=7)) == [
            2 * each for each in range(50)
        ]
        assert ids(client.dead()) == [failing.id]
        wait_until(lambda: manager.stats()["pool"]["current_tasks"] == 0)
        assert client.count(finished=False) == 0


# --- values


def test_values_come_back_as_annotated(scene, client):
    scene.manager()
    moment = datetime.datetime(2026, 2, 3, 4, 5, 6, 789, datetime.UTC)
    everything = sharing.Everything(
        moment=moment,
        key=uuid.uuid4(),
        price=decimal.Decimal("12.340"),
        data=bytes(range(256)),
        names={"a", "ü", ""},
        pair=(7, "seven"),
        colour=sharing.Colour.BLUE,
        points=[sharing.Point(1, 2.5), sharing.Point(-1, 1e300)],
    )
    key = uuid.uuid4()
    for codec in ("json", "msgpack"):
        sender = scene.client(codec=codec)
        handle = sender.submit(sharing.mirror, everything, moment, b"one", b"\0two", key=key)
        *same, kinds = handle.get(PATIENCE)
        assert same == [everything, moment, [b"one", b"\0two"], key]
        assert [type(each) for each in same] == [
            sharing.Everything, datetime.datetime, list, uuid.UUID
        ]  # fmt: skip
        assert kinds == "Everything,datetime,bytes,bytes,UUID"
        assert str(same[0].price) == "12.340"
    # Another client, which has but the id, reads it the same way.
    assert scene.client().report(handle.id).result[0] == everything
    assert scene.client().handle(handle.id).get()[1] == moment


def test_a_task_in_class_form_and_its_annotated_options(scene, client):
    scene.manager()
    task = sharing.Multiply(first=decimal.Decimal("1.5"), id="mine")
    handle = client.submit(task)
    assert handle.id == "mine"
    assert handle.get(PATIENCE) == decimal.Decimal("3.0")


def test_unannotated_values_are_those_of_json(scene, client):
    scene.manager()
    values = [None, True, 0, -5, 2**53 - 1, 1.5, "ü", [], {}, [{"a": [None]}]]
    back = [client.submit(sharing.whatever, each).get(PATIENCE) for each in values]
    assert back == values
    assert list(map(type, back)) == list(map(type, values))


def test_a_result_too_large_for_a_message_is_fetched(scene, client):
    scene.manager()
    handles = [client.submit(sharing.text, size) for size in (8_000, 8_200, 900_000)]
    assert [len(each.get(PATIENCE)) for each in handles] == [8_000, 8_200, 900_000]


def test_a_result_over_the_limit_is_a_failure_that_says_so(scene, client):
    scene.manager(max_result=10_000)
    assert len(client.submit(sharing.text, 9_000).get(PATIENCE)) == 9_000
    error = fate(client.submit(sharing.text, 11_000))
    assert type(error) is gtaskman.TaskFailed
    assert error.exc_type == "gtaskman.errors.PayloadError"
    assert "over the limit of 10,000" in error.message
    assert "sharing.text" in error.message


def test_a_result_that_cannot_travel_is_a_failure_that_says_so(scene, client):
    scene.manager()
    error = fate(client.submit(work.give_what_cannot_travel))
    assert error.exc_type == "gtaskman.errors.PayloadError"
    assert "give_what_cannot_travel" in error.message


# --- how tasks end


@KINDS
def test_a_failure_tells_where_and_why(scene, client, kind):
    scene.manager()
    handle = client.submit(work.of(kind, "fail_for_a_reason"))
    error = fate(handle)
    assert type(error) is gtaskman.TaskFailed
    assert (error.exc_type, error.message) == ("ValueError", "because")
    assert 'raise ValueError("because") from error' in error.traceback
    assert "KeyError: 'missing'" in error.traceback
    assert handle.report.error.kind is FailureKind.ERROR
    assert handle.report.worker in scene.pids()
    assert not handle.successful()
    with pytest.raises(gtaskman.TaskFailed):
        handle.get()


@KINDS
def test_a_task_that_takes_too_long_is_stopped(scene, client, kind):
    scene.manager()
    handle = client.submit(work.of(kind, "nap").with_options(timeout=SHORT))
    assert type(fate(handle)) is gtaskman.TaskTimedOut
    assert handle.report.error.kind is FailureKind.TIMEOUT


def test_a_task_is_warned_before_its_time_is_over(scene, client):
    scene.manager()
    handles = [
        client.submit(work.settle_for_less.with_options(soft_timeout=SHORT)),
        client.submit(work.settle_for_less_resting_async.with_options(soft_timeout=SHORT)),
    ]
    assert [each.get(PATIENCE) for each in handles] == ["less", "less"]


@KINDS
@pytest.mark.parametrize(
    ("how", "exitcode", "signal"), [("exit", 7, None), ("kill", None, "SIGKILL")]
)
def test_a_worker_that_dies_is_told_with_the_cause(scene, client, kind, how, exitcode, signal):
    scene.manager()
    handle = client.submit(work.of(kind, "die"), how)
    error = fate(handle)
    assert type(error) is gtaskman.WorkerCrashed
    assert (error.exitcode, error.signal) == (exitcode, signal)
    assert handle.report.error.kind is FailureKind.CRASH
    # The manager has others.
    assert client.submit(sharing.double, 4).get(PATIENCE) == 8


def test_a_task_that_kills_its_workers_is_given_up(scene, client, path):
    scene.manager(max_crashes=2)
    error = fate(client.submit(work.die.with_options(retries=9, backoff=0.01), "kill", path))
    assert type(error) is gtaskman.WorkerCrashed
    assert "poison" in str(error)
    assert len(lines(path)) == 2


@KINDS
def test_a_task_tries_again_after_a_while(scene, client, path, kind):
    scene.manager()
    backoff = gtaskman.Backoff(first=SHORT, factor=2, jitter=0)
    trying = work.of(kind, "fail_until").with_options(retries=2, backoff=backoff)
    begin = time.monotonic()
    handle = client.submit(trying, path, 3)
    wait_until(lambda: handle.report.status is TaskStatus.WAITING and lines(path))
    assert handle.get(PATIENCE) == 3
    assert time.monotonic() - begin >= 3 * SHORT
    assert handle.report.attempt == 3
    assert len(lines(path)) == 3


# --- cancelling


def test_what_waits_is_cancelled_at_once(scene, client, path):
    client.pause()
    scene.manager()
    waiting = client.submit(work.leave_mark, path)
    delayed = client.submit(work.leave_mark.with_options(delay=LONG), path)
    # by its handle, by its id, by somebody else
    assert waiting.cancel("not needed")
    assert scene.client().cancel(delayed.id)
    for handle, reason in ((waiting, "not needed"), (delayed, "")):
        error = fate(handle)
        assert type(error) is gtaskman.TaskCancelled
        assert error.reason == reason
        assert handle.report.started_at is None
        assert not handle.cancel()
    client.resume()
    assert client.submit(sharing.double, 1).get(PATIENCE) == 2
    assert lines(path) == []


@pytest.mark.parametrize("name", ["spin", "nap", "nap_async", "spin_async"])
def test_what_runs_is_cancelled_wherever_it_runs(scene, client, name):
    scene.manager()
    handle = client.submit(getattr(work, name))
    worker_of(handle)
    assert client.cancel(handle.id, "enough")
    error = fate(handle)
    assert type(error) is gtaskman.TaskCancelled
    assert error.reason == "enough"
    assert client.submit(sharing.double, 1).get(PATIENCE) == 2


def test_what_was_fetched_and_has_not_begun_is_cancelled(scene, client, path):
    scene.manager(max_processes=1, prefetch=1)
    first = client.submit(work.nap)
    worker_of(first)
    others = [client.submit(work.leave_mark, path) for _ in range(3)]
    assert [each.cancel("never mind") for each in others] == [True] * 3
    assert [type(fate(each)) for each in others] == [gtaskman.TaskCancelled] * 3
    first.cancel()
    assert type(fate(first)) is gtaskman.TaskCancelled
    assert lines(path) == []


def test_nobody_can_cancel_what_has_ended_or_never_was(scene, client):
    scene.manager()
    handle = client.submit(sharing.double, 1)
    assert handle.get(PATIENCE) == 2
    assert not handle.cancel()
    assert not client.cancel(handle.id)
    assert not client.cancel("nobody")


# --- progress


def test_progress_is_pushed_to_whoever_listens(scene, client):
    scene.manager()
    handle = client.submit(sharing.steps, 4)
    other = scene.client().handle(handle.id)
    told = {}

    def listen(name, of):
        told[name] = [(each.status, each.completed, each.message) for each in of.progress()]

    gevent.joinall(
        [gevent.spawn(listen, "sender", handle), gevent.spawn(listen, "other", other)],
        timeout=PATIENCE,
        raise_error=True,
    )
    for each in told.values():
        assert each[-1] == (TaskStatus.COMPLETED, 4, "step 4")
        *before, _last = each
        assert {status for status, _, _ in before} == {TaskStatus.PROCESSING}
        completed = [number for _, number, _ in before]
        assert completed == sorted(completed)
        assert len(set(completed)) >= 2
    assert list(handle.progress()) == [handle.report]


def test_the_progress_is_in_the_report_that_the_server_has(scene, client):
    scene.manager()
    handle = client.submit(work.nap)
    wait_until(lambda: client.report(handle.id).message)
    report = scene.client().report(handle.id)
    assert report.status is TaskStatus.PROCESSING
    assert int(report.message) in scene.pids()
    handle.cancel()
    fate(handle)


# --- many at once


def test_many_are_sent_in_order_to_several_queues(scene, client):
    scene.manager("default", "other")
    tasks = [
        sharing.double.with_options(queue=("default", "other")[each % 2]).task(each)
        for each in range(500)
    ]
    handles = client.submit_many(iter(tasks))
    assert ids(handles) == ids(tasks)
    assert [each.queue for each in handles[:2]] == ["default", "other"]
    assert [each.get(PATIENCE) for each in handles] == [2 * each for each in range(500)]
    assert client.submit_many([]) == []


def test_they_begin_in_the_order_in_which_they_were_sent(scene, client, path):
    handles = client.submit_many(work.leave_mark.task(path, str(each)) for each in range(300))
    scene.manager(**ONE_BY_ONE)
    assert client.wait(handles, PATIENCE)
    assert lines(path) == [str(each) for each in range(300)]


# --- ids and keys


def test_an_id_that_waits_or_runs_is_refused_and_is_free_afterwards(scene, client, path):
    first = client.submit(work.nap.with_id("mine"))
    with pytest.raises(gtaskman.DuplicateTaskError) as caught:
        scene.client().submit(work.leave_mark.with_id("mine", path))
    assert (caught.value.id, caught.value.key) == ("mine", None)
    scene.manager()
    owned(first)
    with pytest.raises(gtaskman.DuplicateTaskError):
        client.submit(work.leave_mark.with_id("mine", path))
    first.cancel()
    assert type(fate(first)) is gtaskman.TaskCancelled
    again = client.submit(sharing.double.with_id("mine", 21))
    assert again.get(PATIENCE) == 42
    assert type(fate(first)) is gtaskman.TaskCancelled, "what has ended has ended"
    assert lines(path) == []


def test_of_many_that_are_sent_the_first_duplicate_is_told(scene, client):
    client.submit(sharing.double.with_id("taken", 1))
    with pytest.raises(gtaskman.DuplicateTaskError) as caught:
        client.submit_many([sharing.double.with_id(each, 1) for each in ("new", "taken")])
    assert caught.value.id == "taken"


def test_of_a_unique_task_there_is_one_and_then_another(scene, client):
    scene.manager()
    unique = work.nap.with_options(unique="key")
    first = client.submit(unique)
    for state in ("waits", "runs"):
        if state == "runs":
            owned(first)
        with pytest.raises(gtaskman.DuplicateTaskError) as caught:
            scene.client().submit(unique)
        assert (caught.value.id, caught.value.key) == (first.id, "key")
    first.cancel()
    fate(first)
    assert client.submit(sharing.double.with_options(unique="key"), 1).get(PATIENCE) == 2


def test_a_task_may_be_unique_by_its_arguments(scene, client):
    client.pause()
    unique = sharing.double.with_options(unique=True)
    first, second = client.submit(unique, 1), client.submit(unique, 2)
    with pytest.raises(gtaskman.DuplicateTaskError) as caught:
        scene.client().submit(unique, number=2)
    assert caught.value.id == second.id
    client.resume()
    scene.manager()
    assert client.wait([first, second], PATIENCE)


# --- when and in which order


@pytest.mark.parametrize("how", ["delay", "eta"])
@KINDS
def test_a_delayed_task_begins_when_it_is_due(scene, client, kind, how):
    scene.manager()
    begin = time.time()
    options = {"delay": SHORT} if how == "delay" else {"eta": begin + SHORT}
    handle = client.submit(work.of(kind, "add").with_options(**options), 1, 2)
    assert handle.report.status is TaskStatus.WAITING
    assert handle.get(PATIENCE) == 3
    assert handle.report.started_at >= begin + SHORT - 0.01


def test_what_waits_is_begun_by_priority(scene, client, path):
    client.pause()
    for priority in (0, -100, 7, 0, 100, 7):
        mark = work.leave_mark.with_options(priority=priority)
        last = client.submit(mark, path, str(priority))
    scene.manager(**ONE_BY_ONE)
    client.resume()
    wait_until(lambda: len(lines(path)) == 6)
    assert lines(path) == ["100", "7", "7", "0", "0", "-100"]
    assert last.get(PATIENCE)


@KINDS
def test_a_task_that_does_not_start_in_time_expires(scene, client, path, kind):
    scene.manager(lease=1.0)
    client.pause()
    late = client.submit(work.of(kind, "leave_mark").with_options(ttl=SHORT), path)
    in_time = client.submit(work.of(kind, "add").with_options(ttl=LONG), 1, 2)
    error = fate(late)
    assert type(error) is gtaskman.TaskExpired
    assert f"{SHORT} s" in str(error)
    assert late.report.error.kind is FailureKind.EXPIRED
    assert late.report.started_at is None
    client.resume()
    assert in_time.get(PATIENCE) == 3
    assert lines(path) == []


@pytest.mark.parametrize("stay", ["with its manager", "in a worker"])
def test_a_task_that_was_taken_in_time_expires_where_it_waits(scene, client, path, stay):
    """A manager that has taken it keeps to its terms as the server would."""
    ahead = 1 if stay == "with its manager" else 4
    scene.manager(max_processes=1, prefetch=ahead, max_prefetch=ahead)
    long_one = client.submit(work.nap)
    owned(long_one)
    late = client.submit(work.leave_mark.with_options(ttl=SHORT), path)
    assert type(fate(late)) is gtaskman.TaskExpired
    assert not long_one.done()
    long_one.cancel()
    assert type(fate(long_one)) is gtaskman.TaskCancelled
    assert lines(path) == []


def test_reports_are_kept_for_as_long_as_was_agreed(scene, client):
    with scene.manager(lease=1.0):
        short = client.submit(sharing.double.with_options(result_ttl=60), 1)
        usual = client.submit(sharing.double, 2)
        assert client.wait([short, usual], PATIENCE)
    let_pass(scene.ledger(), 20)
    scene.manager(lease=1.0)
    assert client.submit(sharing.double, 3).get(PATIENCE) == 6
    assert client.report(short.id).result == 2
    let_pass(scene.ledger(), 40)
    wait_until(lambda: client.report(short.id) is None)
    assert client.report(usual.id).result == 4
    assert short.get() == 2, "whoever holds it has it"


def test_a_paused_queue_begins_nothing(scene, client):
    scene.manager("default", "other")
    client.pause()
    waiting = client.submit(sharing.double, 1)
    # Other queues go on.
    other = client.submit(sharing.double.with_options(queue="other"), 2)
    assert other.get(PATIENCE) == 4
    assert not waiting.wait(SHORT)
    client.resume()
    assert waiting.get(PATIENCE) == 2
    client.pause("other")
    other = client.submit(sharing.double.with_options(queue="other"), 2)
    assert not other.wait(SHORT)
    client.resume("other")
    assert other.get(PATIENCE) == 4


# --- asking


def test_finding_and_counting(scene, client):
    scene.manager("default", "other")
    done = [client.submit(sharing.double, each) for each in range(3)]
    done.append(client.submit(sharing.double.with_options(queue="other"), 3))
    failed = client.submit(work.fail, "value")
    client.wait([*done, failed], PATIENCE)
    cancelled = client.submit(work.nap.with_options(delay=LONG))
    cancelled.cancel()
    waiting = client.submit(work.nap.with_options(delay=LONG))
    running = client.submit(work.nap)
    owned(running)
    everything = [*done, failed, cancelled, waiting, running]

    # expect them in order of submission, by status, page by page
    assert ids(client.find()) == ids(everything)
    assert ids(client.find(TaskStatus.COMPLETED)) == ids(done)
    assert ids(client.find(TaskStatus.FAILED)) == [failed.id]
    assert ids(client.find(TaskStatus.CANCELLED)) == [cancelled.id]
    assert ids(client.find(TaskStatus.WAITING)) == [waiting.id]
    assert ids(client.find(TaskStatus.PROCESSING)) == [running.id]
    assert ids(client.find(finished=True)) == ids([*done, failed, cancelled])
    assert ids(client.find(finished=False)) == ids([waiting, running])
    assert ids(client.find(offset=2, limit=3)) == ids(everything[2:5])
    assert ids(client.find(queue="other")) == [done[3].id]
    assert client.find(offset=20) == client.find(limit=0) == client.find(queue="nobody") == []
    assert [each.result for each in client.find(TaskStatus.COMPLETED)] == [0, 2, 4, 6]

    numbers = {status: client.count(status) for status in TaskStatus}
    assert list(numbers.values()) == [1, 1, 4, 1, 1]
    assert (client.count(), client.count(finished=True)) == (8, 6)
    assert (client.count(finished=False), client.count(queue="other")) == (2, 1)

    stats = client.stats()
    assert stats["pool"]["current_tasks"] == stats["queue"]["current_tasks"] == 1
    told = {name: stats["pool"][f"{name}_tasks"] for name in ("completed", "failed", "cancelled")}
    assert told == {"completed": 4, "failed": 1, "cancelled": 1}
    assert stats["pool"]["total_tasks"] == 8


def test_a_handle_of_what_somebody_else_has_sent(scene, client):
    sent = client.submit(sharing.double.with_options(queue="other"), 21)
    other = scene.client()
    handle = other.handle(sent.id)
    assert (handle.id, handle.name, handle.queue) == (sent.id, "sharing.double", "other")
    assert not handle.done()
    scene.manager("other")
    assert handle.get(PATIENCE) == 42
    assert handle.report == sent.report == other.report(sent.id)
    assert other.handle("nobody") is None
    assert other.report("nobody") is None


def test_waiting_for_an_id_a_handle_or_several(scene, client):
    first, second = client.submit(sharing.double, 1), client.submit(sharing.double, 2)
    for which in (first, first.id, [second, first.id]):
        with pytest.raises(TimeoutError, match="has not ended"):
            client.wait(which, timeout=0.01)
    scene.manager()
    assert client.wait(first, PATIENCE).result == 2
    assert scene.client().wait(first.id, PATIENCE).result == 2
    reports = scene.client().wait([second.id, first], timeout=PATIENCE)
    assert [each.result for each in reports] == [4, 2]
    assert client.wait([]) == []
    with pytest.raises(KeyError, match="nobody"):
        client.wait("nobody", PATIENCE)


def test_handles_work_with_gevents_own_waits(scene, client):
    scene.manager()
    handles = [client.submit(sharing.double, each) for each in range(10)]
    assert set(gevent.wait(handles, timeout=PATIENCE)) == set(handles)
    handles = [client.submit(sharing.double_async, each) for each in range(10)]
    assert {each.get() for each in gevent.iwait(handles, timeout=PATIENCE)} == set(range(0, 20, 2))
    called = []
    handle = client.submit(sharing.double, 1)
    handle.rawlink(called.append)
    wait_until(lambda: called)
    assert called == [handle]


def test_a_wait_that_is_over_leaves_the_task_running(scene, client):
    scene.manager()
    handle = client.submit(work.nap, 3 * SHORT)
    with pytest.raises(TimeoutError, match="goes on"):
        handle.get(SHORT / 2)
    assert not handle.wait(0)
    assert handle.get(PATIENCE) == "rested"


def test_without_replies_results_come_when_somebody_asks(scene):
    scene.manager()
    client = scene.client(replies=False)
    handle = client.submit(sharing.double, 4)
    assert scene.ledger().server.call("", "PUBSUB", "NUMSUB") == []
    wait_until(lambda: client.report(handle.id).finished)
    assert not handle.done(), "nobody has told it"
    assert handle.get(PATIENCE) == 8
    running = client.submit(work.nap, SHORT)
    assert running.get(PATIENCE) == "rested"
    assert client.wait([client.submit(sharing.double, 5)], PATIENCE)[0].result == 10


# --- whose records are gone


def test_what_the_server_has_forgotten_is_a_clear_failure(scene):
    scene.manager()
    client = scene.client(replies=False)
    handle = client.submit(sharing.double, 4)
    wait_until(lambda: client.report(handle.id).finished)
    assert client.delete(handle.id)
    assert not client.delete(handle.id)
    error = fate(handle)
    assert isinstance(error, gtaskman.TaskFailed)
    assert "knows no such task" in str(error)
    assert handle.done()


def test_what_is_deleted_while_it_waits_is_cancelled(scene, client):
    handle = client.submit(sharing.double, 4)
    waiter = gevent.spawn(fate, handle)
    gevent.sleep(0)
    assert client.delete(handle.id)
    assert type(waiter.get(timeout=PATIENCE)) is gtaskman.TaskCancelled
    assert client.report(handle.id) is None


def test_whoever_waits_when_the_server_loses_everything_is_told(scene, monkeypatch):
    monkeypatch.setattr(lines_of_threads, "_LOOK_AGAIN", SHORT)
    client = scene.client()
    handle = client.submit(sharing.double, 4)
    base = scene.ledger().base
    for key in scene.running.client().scan_iter(f"{base}:*"):
        scene.running.command("DEL", key)
    assert "knows no such task" in str(fate(handle))


# --- dead letters


@KINDS
def test_a_dead_letter_is_looked_at_and_sent_back(scene, client, path, kind):
    scene.manager()
    first = client.submit(work.of(kind, "fail_until").with_options(priority=3), path, 2)
    assert fate(first).message == "attempt 1"
    (report,) = client.dead()
    assert (report.id, report.error.message) == (first.id, "attempt 1")
    assert client.dead(queue="other") == client.dead(offset=1) == []

    again = client.retry(first.id)
    assert again.id == first.id
    assert again is not first
    assert fate(again).message == "attempt 1", "attempts are counted anew"
    assert again.report.attempt == 1
    assert len(lines(path)) == 2
    assert ids(client.dead()) == [first.id]
    assert client.retry("nobody") is None
    done = client.submit(sharing.double, 1)
    done.get(PATIENCE)
    assert client.retry(done.id) is None


def test_an_expired_task_is_a_dead_letter(scene, client):
    scene.manager(lease=1.0)
    client.pause()
    # It has as long again to start when it is sent back.
    late = client.submit(sharing.double.with_options(ttl=3.0), 5)
    assert type(fate(late)) is gtaskman.TaskExpired
    assert ids(client.dead()) == [late.id]
    client.resume()
    again = client.retry(late.id)
    assert again.get(PATIENCE) == 10
    assert client.dead() == []


# --- map


def test_map(scene, client):
    scene.manager()
    for chunksize in (None, 1, 7):
        found = list(client.map(sharing.double, range(40), chunksize=chunksize))
        assert found == [2 * each for each in range(40)]
        found = list(client.map(sharing.double, range(40), chunksize=chunksize, ordered=False))
        assert sorted(found) == [2 * each for each in range(40)]


def test_the_first_failure_of_a_map_is_raised_and_the_rest_cancelled(scene, client, path):
    scene.manager(max_processes=1)
    with pytest.raises(gtaskman.TaskFailed, match="ZeroDivisionError"):
        list(client.map(sharing.invert, [1, 2, 0, 4], chunksize=2))
    with pytest.raises(gtaskman.TaskOptionError, match="chunksize"):
        client.map(sharing.double, [1], chunksize=0)
    wait_until(lambda: client.count(finished=False) == 0)


# --- by name


def test_sending_by_name_for_those_who_have_no_code(scene, client):
    with pytest.raises(gtaskman.TaskDefinitionError, match="no manager has served the queue"):
        client.send("sharing.double", 21)
    scene.manager()
    wait_until(scene.ledger().names)
    assert client.send("sharing.double", 21).get(PATIENCE) == 42
    assert client.send("sharing.double_async", number=2).get(PATIENCE) == 4
    assert client.send("sharing.Multiply", first="1.5").get(PATIENCE) == decimal.Decimal("3.0")
    with pytest.raises(gtaskman.TaskDefinitionError) as caught:
        client.send("sharing.no_such_task")
    assert "sharing.no_such_task" in str(caught.value)
    assert "sharing.double" in str(caught.value)
    assert "TypeError" in str(fate(client.send("sharing.double", 1, 2, 3)))
    assert "number" in str(fate(client.send("sharing.double", "no number")))
    terms = gtaskman.terms.Terms(delay=LONG, unique="key", priority=3)
    waiting = client.send_under(terms, "sharing.double", 1)
    with pytest.raises(gtaskman.DuplicateTaskError, match="'key'"):
        client.send_under(terms, "sharing.double", 1)
    assert waiting.cancel()


@pytest.mark.parametrize("name", ["sharing.double", "sharing.double_async"])
@KINDS
def test_sending_by_name_before_any_manager_has_run(scene, client, kind, name):
    """Of the kind that it has in its code, or by mistake of the other one."""
    handle = client.send_as(kind, gtaskman.terms.DEFAULT, name, 21)
    unknown = client.send_as(kind, gtaskman.terms.DEFAULT, "sharing.no_such_task")
    scene.manager()
    assert handle.get(PATIENCE) == 42
    assert "sharing.no_such_task" in str(fate(unknown))
    with pytest.raises(gtaskman.TaskOptionError, match="'sync' or 'async'"):
        client.send_as("service", gtaskman.terms.DEFAULT, "sharing.double")


def test_a_task_that_may_run_once_is_known_as_such_to_the_server(scene, client, path):
    scene.manager()
    wait_until(scene.ledger().names)
    sent = client.submit(work.once, path, "x", SHORT)
    named = client.send("scenarios.work.once", path)
    assert client.wait([sent, named], PATIENCE)
    assert [scene.ledger().record(each.id).once for each in (sent, named)] == [True, True]


# --- mistakes, where they are made


def _plain(number):
    return number


@gtaskman.task
def _other(number):
    return number


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda c: c.submit(lambda: 1), gtaskman.TaskTravelError, "@gtaskman.task"),
        (lambda c: c.submit(_plain, 1), gtaskman.TaskTravelError, "@gtaskman.task"),
        (lambda c: c.submit("sharing.double", 1), gtaskman.TaskTravelError, "@gtaskman.task"),
        (lambda c: c.submit(sharing.Multiply), gtaskman.TaskTravelError, "@gtaskman.task"),
        (lambda c: c.submit(sharing.double), gtaskman.TaskOptionError, "number"),
        (lambda c: c.submit(sharing.double, "x"), gtaskman.TaskOptionError, "number"),
        (lambda c: c.submit(sharing.double, 1, more=2), gtaskman.TaskOptionError, "more"),
        (lambda c: c.submit(sharing.double.task(1), 2), gtaskman.TaskOptionError, "built"),
        (lambda c: c.submit(sharing.whatever, object()), gtaskman.PayloadError, "sharing.whatever"),
        (lambda c: c.submit(sharing.whatever, {1, 2}), gtaskman.PayloadError, "value"),
        (lambda c: c.submit(sharing.whatever, "x" * 300_000), gtaskman.PayloadError, "limit"),
        (lambda c: c.submit_many([_plain]), gtaskman.TaskTravelError, "@gtaskman.task"),
        (lambda c: c.map(_plain, [1]).__next__(), gtaskman.TaskTravelError, "@gtaskman.task"),
        (lambda c: c.map(5, [1]), gtaskman.TaskDefinitionError, "callable"),
        (
            lambda c: c.submit(sharing.double.with_options(delay=-1), 1),
            gtaskman.TaskOptionError,
            "delay",
        ),
        (
            lambda c: c.submit(sharing.double.with_options(timeout=0), 1),
            gtaskman.TaskDefinitionError,
            "timeout",
        ),
    ],
)
def test_mistakes_are_told_at_once(scene, client, call, error, words):
    with pytest.raises(error) as caught:
        call(client)
    assert words in str(caught.value)
    assert client.count() == 0


def test_a_task_that_is_not_registered_under_its_name_does_not_travel(client, monkeypatch):
    monkeypatch.delitem(registry, _other.definition.name)
    with pytest.raises(gtaskman.TaskTravelError, match="top of a module"):
        client.submit(_other, 1)


@pytest.mark.parametrize("url", ["", "nowhere", "http://localhost", "redis://a,b"])
def test_a_url_that_leads_nowhere_is_refused(url):
    with pytest.raises(gtaskman.ConfigurationError):
        gtaskman.Client(url)


def test_a_task_that_the_manager_does_not_know_fails(scene, client, monkeypatch):
    handle = client.submit(_other, 1)
    monkeypatch.delitem(registry, _other.definition.name)
    scene.manager()
    error = fate(handle)
    assert type(error) is gtaskman.TaskFailed
    assert _other.definition.name in str(error)
    assert "import the module" in str(error)
    assert ids(client.dead()) == [handle.id]
    monkeypatch.undo()
    again = client.retry(handle.id)
    assert again.get(PATIENCE) == 1


# --- codecs and keys

OLD, NEW = {"2025": b"o" * 32}, {"2026": b"n" * 32}


@pytest.mark.parametrize("codec", ["json", "msgpack", "pickle"])
def test_signed_envelopes_between_those_who_have_the_keys(scene, codec):
    # given a manager that signs with another key than its client, each knowing both
    theirs = gtaskman.Keyring({**OLD, **NEW}, sign_with="2025")
    ours = gtaskman.Keyring({**OLD, **NEW}, sign_with="2026")
    scene.manager(queue=scene.queue(keyring=theirs, accept="jmp"))
    client = scene.client(codec=codec, keyring=ours)
    value = {1, (2, 3)} if codec == "pickle" else {"a": [1]}
    handle = client.submit(sharing.whatever, value)
    assert handle.get(PATIENCE) == value
    assert client.report(handle.id).result == value
    assert list(client.map(sharing.double, range(5), chunksize=2)) == [0, 2, 4, 6, 8]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (OLD, "not in the keyring"),
        ({"2026": b"wrong" * 8}, "signature is wrong"),
        (None, "not signed"),
    ],
)
def test_what_nobody_trusted_has_signed_fails(scene, path, keys, words):
    scene.manager(queue=scene.queue(keyring=gtaskman.Keyring(NEW)))
    client = scene.client(keyring=gtaskman.Keyring(keys) if keys else None)
    error = fate(client.submit(work.leave_mark, path))
    assert type(error) is gtaskman.TaskFailed
    assert error.exc_type == "gtaskman.errors.EnvelopeError"
    assert words in str(error)
    assert lines(path) == []


def test_a_codec_that_the_manager_does_not_let_in_fails(scene, path):
    keyring = gtaskman.Keyring(NEW)
    scene.manager(queue=scene.queue(keyring=keyring))
    error = fate(scene.client(codec="pickle", keyring=keyring).submit(work.leave_mark, path))
    assert "not accepted here" in str(error)
    assert lines(path) == []


def test_a_result_that_nobody_trusted_has_signed_is_not_read(scene):
    scene.manager()
    handle = scene.client().submit(sharing.double, 4)
    handle.get(PATIENCE)
    other = scene.client(keyring=gtaskman.Keyring(NEW))
    report = other.report(handle.id)
    assert (report.status, report.result) == (TaskStatus.COMPLETED, None)
    assert "cannot be read" in report.message
    assert ids(other.find()) == [handle.id]
    with pytest.raises(gtaskman.EnvelopeError, match="not signed"):
        other.handle(handle.id).get(PATIENCE)


def test_none_is_signed_like_any_other_result(scene):
    keyring = gtaskman.Keyring(NEW)
    scene.manager(queue=scene.queue(keyring=keyring))
    client = scene.client(keyring=keyring)
    handle = client.submit(sharing.whatever, None)
    assert handle.get(PATIENCE) is None
    assert client.handle(handle.id).get(PATIENCE) is None
    bare = scene.client(keyring=gtaskman.Keyring(OLD))
    with pytest.raises(gtaskman.EnvelopeError, match="not in the keyring"):
        bare.handle(handle.id).get(PATIENCE)


def _forge_an_end(scene, client, handle, way):
    """Whoever may write to the server says that the task has returned None."""
    ledger = client.ledger("default")
    end = end_of(msgspec.structs.replace(handle.report, status=TaskStatus.COMPLETED))
    if way == "message":
        channel = client.attendant().channel("default")
        body = b"C" + handle.id.encode() + b"\n" + body_of(end, b"")
        scene.running.command("PUBLISH", channel, body)
        return
    scene.running.command("HSET", f"{ledger.base}:t:{handle.id}", "st", "C")
    if way == "record":
        scene.running.command("SET", f"{ledger.base}:e:{handle.id}", body_of(end, b""))


@pytest.mark.parametrize("way", ["message", "record", "no end at all"])
@pytest.mark.parametrize("required", [True, False])
def test_an_end_without_a_signed_result_is_not_believed(scene, way, required):
    client = scene.client(keyring=gtaskman.Keyring(NEW, required=required))
    handle = client.submit(sharing.double, 1)
    _forge_an_end(scene, client, handle, way)
    if way != "message":
        handle = client.handle(handle.id)
    try:
        if required:
            with pytest.raises(gtaskman.EnvelopeError, match="no signed result"):
                handle.get(PATIENCE)
            assert "no signed result" in handle.report.message
        else:
            assert handle.get(PATIENCE) is None
    finally:
        base = client.ledger("default").base
        scene.running.command("HSET", f"{base}:t:{handle.id}", "st", "W")
        scene.running.command("DEL", f"{base}:e:{handle.id}")


def test_what_was_signed_for_one_namespace_does_not_run_in_another(scene, path):
    keyring = gtaskman.Keyring(NEW)
    staging = scene.client(url=scene.running.url, namespace="staging", keyring=keyring)
    handle = staging.submit(work.leave_mark, path)
    envelope = staging.ledger("default").envelope(handle.id)
    client = scene.client(keyring=keyring)
    client.ledger("default").enqueue(
        [entry(handle.id, name="scenarios.work.leave_mark", envelope=envelope)], "copied"
    )
    scene.manager(queue=scene.queue(keyring=keyring))
    error = fate(client.handle(handle.id))
    assert "signature is wrong" in str(error)
    assert lines(path) == []


def test_a_result_that_cannot_be_read_leaves_nobody_waiting(scene):
    # given a manager that signs with a key that the sender does not have (yet)
    client = scene.client(keyring=gtaskman.Keyring(NEW))
    theirs = gtaskman.Keyring({**OLD, **NEW}, sign_with="2025")
    handle = client.submit(sharing.double, 4)
    reader = gevent.spawn(list, handle.progress())
    waiters = [gevent.spawn(handle.get, PATIENCE) for _ in range(2)]
    gevent.sleep(0)
    scene.manager(queue=scene.queue(keyring=theirs))
    for each in waiters:
        with pytest.raises(gtaskman.EnvelopeError, match="not in the keyring"):
            each.get(timeout=PATIENCE)
    last = reader.get(timeout=PATIENCE)[-1]
    assert (last.status, last.result) == (TaskStatus.COMPLETED, None)
    assert "cannot be read" in last.message
    assert handle.report == last
    assert "completed" in repr(handle)


@pytest.mark.parametrize(
    ("options", "field"), [({"codec": "yaml"}, "codec"), ({"codec": "pickle"}, "codec")]
)
def test_a_codec_that_makes_no_sense_is_refused(scene, options, field):
    with pytest.raises(gtaskman.ConfigurationError) as caught:
        gtaskman.Client(scene.url, **options)
    assert caught.value.field == field


# --- life


def test_a_client_may_be_used_again_after_it_was_closed(scene):
    scene.manager()
    with scene.client() as client:
        handle = client.submit(work.nap, SHORT)
    # It is closed; who asks again connects again.
    assert handle.get(PATIENCE) == "rested"
    assert client.submit(sharing.double, 1).get(PATIENCE) == 2


def test_whoever_waits_when_his_client_is_closed_does_not_wait_for_ever(scene):
    scene.manager()
    client = scene.client()
    handle = client.submit(work.nap, SHORT)
    waiter = gevent.spawn(handle.get, PATIENCE)
    gevent.sleep(0)
    client.close()
    assert waiter.get(timeout=PATIENCE) == "rested"


def test_a_client_says_what_it_is(scene, client):
    assert "Client" in repr(client)
    assert "'default'" in repr(client)
    handle = client.submit(sharing.double, 1)
    assert "on its way" in repr(handle)
    scene.manager()
    handle.get(PATIENCE)
    assert "completed" in repr(handle)


def test_a_thousand_greenlets_wait_on_one_connection(scene, client):
    before = _connections(scene)
    handles = client.submit_many(work.add_async.task(each, 1) for each in range(1000))
    waiters = [gevent.spawn(each.get, PATIENCE) for each in handles]
    gevent.sleep(0)
    # given that all of them wait: one connection for the replies, one for commands
    made = [each for each in _connections(scene) if each["id"] not in {b["id"] for b in before}]
    assert sorted(int(each["sub"]) for each in made) == [0, 1]
    scene.manager()
    gevent.joinall(waiters, timeout=PATIENCE, raise_error=True)
    assert [each.value for each in waiters] == list(range(1, 1001))


def _connections(scene):
    found = scene.running.command("CLIENT LIST")
    return [each for each in found if each["cmd"] not in ("client|list", "client")]


def test_nobody_asks_while_a_task_runs_or_waits(scene, client):
    client.submit(sharing.double, 1)  # connected, by now
    handle = client.submit(work.nap)
    waiter = gevent.spawn(handle.get, PATIENCE)
    reader = gevent.spawn(list, handle.progress())
    gevent.sleep(SHORT)
    before = _commands(scene)
    gevent.sleep(1.0)
    assert _commands(scene) == before
    assert handle.cancel()
    gevent.joinall([waiter, reader], timeout=PATIENCE)
    assert [each.status for each in reader.value] == [TaskStatus.CANCELLED]


def _commands(scene):
    """How many commands the server has run, beside those of whoever asks this."""
    stats = scene.running.command("INFO", "commandstats")
    asking = ("info", "client", "hello")
    return {
        name: each["calls"]
        for name, each in stats.items()
        if not name.removeprefix("cmdstat_").startswith(asking)
    }


# --- the same id in two queues


def test_tasks_of_one_id_in_two_queues_are_two_tasks(scene, client):
    other = scene.client(queue="other")
    mine = client.submit(sharing.double.with_id("twin", 1))
    theirs = other.submit(sharing.double.with_id("twin", 10))
    both = [mine, client.submit(sharing.double.with_id("twin2", 100))]
    scene.manager("other")
    assert theirs.get(PATIENCE) == 20
    assert not mine.done()
    assert mine.report.status is TaskStatus.WAITING
    assert (theirs.report.status, theirs.report.result) == (TaskStatus.COMPLETED, 20)
    scene.manager("default")
    assert [each.get(PATIENCE) for each in both] == [2, 200]


def test_one_client_tells_tasks_of_one_id_apart(scene, client):
    """One line hears of both queues."""
    mine = client.submit(sharing.double.with_id("twin", 1))
    theirs = client.submit(sharing.double.with_options(queue="other").with_id("twin", 10))
    again = client.submit(sharing.double.with_options(queue="third").with_id("twin", 100))
    scene.manager("other")
    assert theirs.get(PATIENCE) == 20
    assert not mine.wait(SHORT)
    assert mine.report.status is TaskStatus.WAITING
    assert again.cancel()
    assert type(fate(again)) is gtaskman.TaskCancelled
    assert not mine.wait(SHORT)
    assert not theirs.cancel()
    assert mine.cancel()
    assert type(fate(mine)) is gtaskman.TaskCancelled
    assert theirs.report.status is TaskStatus.COMPLETED
    assert client.report("twin").status is TaskStatus.CANCELLED, "its own queue is asked first"


# --- looking through many


def test_pages_are_in_the_servers_order_whatever_the_senders_clocks_say(scene, client, monkeypatch):
    sent, ahead = [], time.time() + 3600
    for number in range(8):
        with monkeypatch.context() as context:
            if number < 2:  # a sender whose clock is an hour ahead
                context.setattr(time, "time", lambda: ahead)
            queue = "other" if number % 3 == 2 else "default"
            sent.append(client.submit(sharing.double.with_options(queue=queue), number).id)
        gevent.sleep(0.002)  # the server's clock tells milliseconds
    pages = [ids(client.find(offset=offset, limit=2)) for offset in range(0, 10, 2)]
    assert list(itertools.chain(*pages)) == sent
    mine = [each for number, each in enumerate(sent) if number % 3 != 2]
    pages = [ids(client.find(offset=at, limit=2, queue="default")) for at in range(0, 8, 2)]
    assert list(itertools.chain(*pages)) == mine
    assert ids(client.find(TaskStatus.WAITING, offset=7, limit=5)) == sent[7:]
    assert client.find(offset=8) == []


@pytest.mark.parametrize("queues", [1, 2])
def test_a_far_page_does_not_bring_the_pages_before_it(scene, client, queues):
    for number in range(queues):
        tasks = (sharing.whatever.task("x" * 1000) for _ in range(300))
        scene.client(queue=f"q{number}").submit_many(tasks)
    client.find()
    before = scene.running.command("INFO", "stats")["total_net_output_bytes"]
    assert len(client.find(offset=300 * queues - 2, limit=2)) == 2
    after = scene.running.command("INFO", "stats")["total_net_output_bytes"]
    assert after - before < 60_000


def test_a_page_goes_on_behind_records_that_were_deleted_by_hand(scene, client):
    sent = ids(client.submit_many(sharing.double.task(each) for each in range(200)))
    base = client.ledger("default").base
    scene.running.command("DEL", *(f"{base}:t:{each}" for each in sent[:150]))
    try:
        assert ids(client.find(limit=3)) == sent[150:153]
    finally:
        scene.running.command("ZREM", f"{base}:ws", *sent[:150])
        scene.running.command("DEL", *(f"{base}:p:{each}" for each in sent[:150]))


def test_a_page_goes_on_behind_a_record_whose_sequence_is_damaged(scene, client):
    sent = ids(client.submit_many(sharing.double.task(each) for each in range(200)))
    key = f"{client.ledger('default').base}:t:{sent[127]}"
    sequence = scene.running.command("HGET", key, "q")
    scene.running.command("HSET", key, "q", "zz")
    try:
        assert ids(client.find(limit=300)) == sent
    finally:
        scene.running.command("HSET", key, "q", sequence)


def test_a_record_without_status_and_kind_is_a_report_that_says_so(scene, client):
    sent = ids(client.submit_many(sharing.double.task(each) for each in range(3)))
    key = f"{client.ledger('default').base}:t:{sent[1]}"
    scene.running.command("HDEL", key, "st", "k")
    try:
        assert ids(client.find()) == sent
        assert client.report(sent[1]).message
    finally:
        scene.running.command("HSET", key, "st", "W", "k", "s")


@pytest.mark.parametrize("field", ["end", "body", "number", "status"])
def test_a_damaged_record_is_a_report_that_says_so(scene, client, field):
    with scene.manager():
        done = [client.submit(sharing.double, each) for each in range(3)]
        client.wait(done, PATIENCE)
    base, broken = client.ledger("default").base, done[1].id
    if field == "end":
        scene.running.command("SET", f"{base}:e:{broken}", b"3\n\xc1\xc1\xc1")
    elif field == "body":
        scene.running.command("SET", f"{base}:e:{broken}", b"nonsense")
    elif field == "number":
        scene.running.command("HSET", f"{base}:t:{broken}", "f", "soon")
    else:
        scene.running.command("HSET", f"{base}:t:{broken}", "st", "Q")
    try:
        found = client.find()
        assert ids(found) == ids(done)
        assert [each.result for each in found][::2] == [0, 4]
        assert found[1].message or field == "number"
        assert client.report(broken).id == broken
    finally:
        scene.running.command("HSET", f"{base}:t:{broken}", "st", "C")


def test_a_queue_is_listed_once_the_server_answers(scene, client, monkeypatch):
    failing = client.ledger("default").server
    with monkeypatch.context() as context:
        context.setattr(failing, "call", _refuse)
        with pytest.raises(gtaskman.ServerUnavailable):
            client.ledger("late")
    client.ledger("late")
    assert "late" in scene.queues()


def _refuse(*_args):
    raise gtaskman.ServerUnavailable("it is away")


def test_a_list_of_queues_that_was_lost_is_made_again(scene, client, monkeypatch):
    monkeypatch.setattr(lines_of_threads, "_LOOK_AGAIN", 0.05)
    client.submit(sharing.double, 1)
    scene.running.command("DEL", f"gtm:{{{scene.namespace}}}:queues")
    wait_until(lambda: scene.queues() == ["default"], PATIENCE, "it is listed again")


def test_a_manager_lists_its_queues(scene):
    scene.manager("served")
    wait_until(lambda: scene.queues() == ["served"], PATIENCE, "its queue is listed")


def test_limits_that_differ_with_each_call_are_not_kept_for_ever(scene, client):
    for number in range(1100):
        client.submit(sharing.double.with_options(timeout=10 + number / 1000), 1)
    assert len(client._options) <= 1024
