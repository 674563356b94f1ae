"""What the storage in Redis does beside the contract of all storages."""

from __future__ import annotations

import itertools
import threading

import msgspec
import pytest
from entries import LEASE, entry, let_pass

import gtaskman
from gtaskman import ConfigurationError, Report, TaskStatus
from gtaskman.envelope import Keyring, seal_result
from gtaskman.redis.ledger import Settlement
from gtaskman.redis.record import end_of
from gtaskman.storages.redis import RedisTaskStorage

WAITING, PROCESSING, COMPLETED, FAILED, CANCELLED = TaskStatus
names = (f"storage{number}" for number in itertools.count(1))


@pytest.fixture
def storage(ledger):
    """An empty one, over the connection of a ledger: each script runs once, or twice."""
    return RedisTaskStorage(ledger.server, next(names), ttl=50)


def report(task_id, status=WAITING, revision=1, **values):
    return Report(task_id, "tests.name", "sync", status, 5.0, revision=revision, **values)


def later(made, status, **values):
    values = {"revision": made.revision + 1, **values}
    return msgspec.structs.replace(made, status=status, **values)


def pass_by(storage, seconds, served=True):
    """Time passes for a storage; it has a server and a base, as a ledger has."""
    storage.server, storage.base = storage._servers.here(), storage._base
    let_pass(storage, seconds, served)


def test_finished_tasks_are_kept_for_their_time(storage):
    for name in "ab":
        storage.insert(report(name))
    storage.update(later(report("a"), COMPLETED))
    pass_by(storage, 49)
    assert storage.count() == 2
    pass_by(storage, 2)
    assert (storage.report("a"), storage.count(COMPLETED)) == (None, 0)
    assert [each.id for each in storage.find()] == ["b"]


def test_a_finished_task_may_have_a_time_of_its_own(storage):
    for name in "abc":
        storage.insert(report(name))
        if name != "c":
            storage.update(later(report(name), FAILED))
    for name, seconds in {"a": 5, "b": 100, "c": 1, "nobody": 1}.items():
        storage.expire(name, seconds)
    pass_by(storage, 6)
    assert [each.id for each in storage.find()] == ["b", "c"]
    pass_by(storage, 90)
    assert [each.id for each in storage.find()] == ["b", "c"]
    pass_by(storage, 10)
    assert [each.id for each in storage.find()] == ["c"]


def test_a_task_that_begins_anew_is_kept(storage):
    storage.insert(report("a"))
    storage.update(later(report("a"), COMPLETED))
    storage.insert(report("a"))
    pass_by(storage, 60)
    assert storage.report("a") == report("a")


def test_a_result_that_cannot_travel_is_left_out_and_the_report_kept(storage, caplog):
    storage.insert(report("a"))
    last = later(report("a"), COMPLETED, result=object(), result_size=5)
    assert storage.update(last)
    assert storage.report("a") == msgspec.structs.replace(last, result=None)
    assert "the result of task a is not kept" in caplog.text


@pytest.mark.parametrize("codec", "jmp")
def test_a_signed_result_is_read_with_the_key_only(server, codec):
    name, keyring = next(names), Keyring({"one": b"k" * 32})
    signing = RedisTaskStorage(server, name, codec=codec, keyring=keyring)
    value = {"a": [1, None, "x"]} if codec != "p" else {"a": (1, {2})}
    signing.insert(report("a", COMPLETED, result=value))
    assert signing.report("a").result == value
    other = Keyring({"two": b"x" * 32})
    unread = RedisTaskStorage(server, name, codec=codec, keyring=other).report("a")
    assert (unread.status, unread.result) == (COMPLETED, None)
    assert "its result cannot be read" in unread.message


def test_storages_of_other_names_are_other_storages(server):
    name = next(names)
    one, other = RedisTaskStorage(server, name), RedisTaskStorage(server, next(names))
    elsewhere = RedisTaskStorage(server, name, namespace="elsewhere")
    one.insert(report("a"))
    assert (other.count(), elsewhere.count()) == (0, 0)
    with pytest.raises(ConfigurationError, match="braces"):
        RedisTaskStorage(server, "a{b")


def test_a_storage_made_of_a_url_serves_any_thread(running):
    storage = RedisTaskStorage(running.url + "?namespace=mine", next(names))
    storage.insert(report("a"))
    found = []
    thread = threading.Thread(target=lambda: (found.extend(storage.find()), storage.close()))
    thread.start()
    thread.join(20)
    assert found == [report("a")]
    assert "{mine:" in repr(storage)
    storage.close()
    assert storage.report("a") == report("a")
    storage.close()


def writer(server, name):
    """A storage as a manager has it."""
    made = RedisTaskStorage(server, name)
    made.attend()
    return made


def test_open_reports_of_a_manager_that_died_fail_and_are_forgotten(make_server):
    server, name = make_server(), next(names)
    dead, alive = writer(server, name), writer(server, name)
    dead.insert(report("waits"))
    dead.insert(report("runs"))
    dead.update(later(dead.report("runs"), PROCESSING))
    dead.insert(report("done"))
    dead.update(later(dead.report("done"), COMPLETED))
    RedisTaskStorage(server, name).insert(report("of no manager"))
    alive.insert(report("lives"))
    assert alive.renew()
    pass_by(alive, 40)
    assert alive.renew()
    assert alive.count(FAILED) == 0
    pass_by(alive, 40)
    assert alive.renew()
    assert {each.id for each in alive.find(FAILED)} == {"waits", "runs"}
    failed = alive.report("runs")
    assert failed.error.kind is gtaskman.FailureKind.CRASH
    assert "died" in failed.message
    assert failed.created_at > 0
    assert {each.id for each in alive.find(finished=False)} == {"lives", "of no manager"}
    # One that lives after all has the last word.
    assert dead.update(later(report("runs", revision=5), COMPLETED))
    assert alive.report("runs").status is COMPLETED
    assert not alive.update(later(report("waits", revision=5), COMPLETED))
    pass_by(alive, 7 * 86400 + 1)
    assert alive.report("waits") is None
    assert not dead.renew()


def test_no_open_report_is_given_up_while_the_server_is_away(make_server):
    server, name = make_server(), next(names)
    one, other = writer(server, name), writer(server, name)
    one.insert(report("a"))
    other.insert(report("b"))
    assert one.renew()
    pass_by(one, 3600, served=False)
    assert other.renew()
    assert one.count(FAILED) == 0


# --- the records of a queue


def work_off(ledger):
    """One task of each status, in the order of their names."""
    ledger.beat("me", LEASE, first=True)
    names = ["completed", "failed", "cancelled", "running"]
    ledger.enqueue([entry(each) for each in names], "one")
    ledger.enqueue([entry("waiting", delay=50)], "two")
    claims = ledger.turn("me", "three", [], 3, 0, LEASE).claims
    ended = [
        report("completed", COMPLETED, result_size=3, message="done"),
        report("failed", FAILED),
        report("cancelled", CANCELLED),
    ]
    results = [seal_result([1, "two"]), b"", b""]
    settlements = [
        Settlement(claim.id, claim.token, letter, end_of(last), result)
        for claim, letter, last, result in zip(claims, "CFX", ended, results, strict=True)
    ]
    claims = ledger.turn("me", "four", settlements, 1, 0, LEASE).claims
    ledger.progress("me", [("running", claims[0].token, end_of(report("running", message="half")))])
    return ended


def test_the_records_of_a_queue_are_read_as_a_storage(ledger):
    completed, failed, cancelled = work_off(ledger)
    view = RedisTaskStorage.of(ledger)
    assert view.report("completed") == msgspec.structs.replace(completed, result=[1, "two"])
    assert (view.report("failed"), view.report("cancelled")) == (failed, cancelled)
    running, waiting = view.find(finished=False)
    assert (running.status, running.message) == (PROCESSING, "half")
    assert (waiting.id, waiting.status, waiting.kind) == ("waiting", WAITING, "sync")
    assert len(view.find()) == view.count() == 5
    for status in TaskStatus:
        assert view.count(status) == len(view.find(status)) == 1
    assert view.count(COMPLETED, finished=False) == 0
    assert view.report("nobody") is None


def test_a_queue_keeps_its_records_itself(ledger):
    work_off(ledger)
    view = RedisTaskStorage.of(ledger)
    view.insert(report("new"))
    assert view.update(report("waiting", COMPLETED, revision=99)) is False
    assert (view.report("new"), view.report("waiting").status) == (None, WAITING)


def test_tasks_of_a_queue_are_cancelled_and_deleted_through_the_view(ledger):
    work_off(ledger)
    view = RedisTaskStorage.of(ledger)
    assert view.cancel("waiting", "enough").message == "enough"
    assert view.cancel("running", "enough").status is PROCESSING, "its owner is asked"
    assert ledger.record("running").stopping == "enough"
    assert view.cancel("completed") is view.cancel("nobody") is None
    view.delete("failed")
    assert view.report("failed") is None
    assert view.delete("running") is False


def test_a_decoder_of_ones_own_reads_the_results(ledger):
    work_off(ledger)
    view = RedisTaskStorage.of(ledger, lambda record: (record.id, len(record.result)))
    assert view.report("completed").result == ("completed", len(seal_result([1, "two"])))


def test_a_manager_with_a_queue_of_its_own_keeps_its_reports_on_the_server(running):
    config = gtaskman.Configuration(max_processes=1)
    storage = RedisTaskStorage(running.url, "embedded-manager")
    with gtaskman.TaskManager(config=config, storage=storage) as manager:
        handles = [manager.submit(abs, -number) for number in range(50)]
        assert [handle.get(timeout=20) for handle in handles] == list(range(50))
        failed = manager.submit(int, "x")
        failed.wait(timeout=20)
        assert running.command("EXISTS", f"{storage._base}:own") == 1, "it writes under a lease"
    # What was told last is written before the manager has stopped.
    assert storage.count(gtaskman.TaskStatus.COMPLETED) == 50
    assert [each.id for each in storage.find(gtaskman.TaskStatus.FAILED)] == [failed.id]
    assert storage.report(handles[7].id).result == 7
    storage.close()
