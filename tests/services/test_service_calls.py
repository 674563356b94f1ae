"""Calls into a service, out of it, and messages."""

from __future__ import annotations

import os
import signal
import threading
import time

import gevent
import numpy
import pytest
from services import acting
from worlds import PATIENCE, START_METHODS, wait_until

from gtaskman import (
    PayloadError,
    ServiceCallFailed,
    ServiceDown,
    ServiceManager,
    ServiceMethodError,
    ServiceOptions,
)
from gtaskman.errors import RemoteTraceback


@pytest.fixture(scope="module")
def keep():
    """A manager for all tests of a module that do no harm to its service."""
    with ServiceManager() as services:
        services.add(acting.Actor(id="actor", factor=2)).started.get(timeout=PATIENCE)
        yield services


@pytest.fixture
def actor(keep):
    return keep["actor"]


# --- values


def test_a_call_gives_what_the_method_returns(actor):
    assert actor.call("times", 21).get(timeout=PATIENCE) == 42
    assert actor.times(3, again=5).get(timeout=PATIENCE) == 30
    call = actor.times("ab")
    assert call.get(timeout=PATIENCE) == "abab"
    assert call.get() == "abab"  # as often as one likes
    assert call.done() and call.successful()


@pytest.mark.parametrize(
    "value",
    [
        *(None, 0, "", b"", 10**30, 1.5, (1, (2, 3)), {1, 2}, {"a": [1]}, acting.Odd(1, "x").args),
        b"x" * 5_000_000,
        bytearray(b"y" * 200_000),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_travels_arrives_as_it_was(actor, value):
    echo = actor.echo(value).get(timeout=PATIENCE)
    assert echo == value
    assert type(echo) is type(value)


def test_arrays_travel_too(actor):
    array = numpy.arange(300_000, dtype="float64").reshape(3, -1)
    echo = actor.echo(array).get(timeout=PATIENCE)
    assert (echo == array).all()


def test_calls_run_side_by_side(actor):
    begin = time.monotonic()
    slow = [actor.nap(0.3) for _ in range(200)]
    quick = actor.times(1)
    assert quick.get(timeout=PATIENCE) == 2
    assert not slow[0].done()
    assert [each.get(timeout=PATIENCE) for each in slow] == [0.3] * 200
    assert time.monotonic() - begin < 30  # not 60, one after the other


def test_calls_can_be_waited_for_like_handles(actor):
    calls = [actor.nap(0.01 * at) for at in range(3)]
    assert len(list(gevent.iwait(calls, timeout=PATIENCE))) == 3
    called = []
    actor.times(1).rawlink(called.append)
    wait_until(lambda: called)


def test_a_wait_may_end_before_the_method(actor):
    call = actor.nap(0.2)
    with pytest.raises(TimeoutError, match=r"has not answered within 0\.01 s, and goes on"):
        call.get(timeout=0.01)
    assert call.get(timeout=PATIENCE) == 0.2


def test_a_call_has_the_service_as_its_current_task(actor):
    assert actor.task_id().get(timeout=PATIENCE) == "actor"


def test_many_threads_may_call_at_once(actor):
    results = []

    def use(number):
        results.extend(actor.times(number).get(timeout=PATIENCE) for _ in range(50))

    threads = [threading.Thread(target=use, args=(at,)) for at in range(8)]
    for each in threads:
        each.start()
    wait_until(lambda: not any(each.is_alive() for each in threads))
    assert sorted(results) == sorted(2 * at for at in range(8) for _ in range(50))


# --- errors


def test_an_error_comes_back_as_its_own_type(actor):
    with pytest.raises(acting.Odd) as caught:
        actor.fail(13).get(timeout=PATIENCE)
    assert caught.value.code == 13
    cause = caught.value.__cause__
    assert isinstance(cause, RemoteTraceback)
    assert 'raise Odd(code, "as asked")' in cause.text
    assert "calls.py" not in cause.text  # our own frames tell the reader nothing


def test_an_error_that_cannot_travel_is_told_in_words(actor):
    call = actor.fail_unportably()
    with pytest.raises(ServiceCallFailed, match="Unportable: 1 and 2") as caught:
        call.get(timeout=PATIENCE)
    assert caught.value.exc_type.endswith("acting.Unportable")
    assert (caught.value.service, caught.value.method) == ("actor", "fail_unportably")
    assert "fail_unportably" in caught.value.traceback
    assert not call.successful()


def test_a_request_to_stop_that_is_raised_there_stops_nobody_here(actor):
    with pytest.raises(ServiceCallFailed, match="GreenletExit"):
        actor.leave().get(timeout=PATIENCE)


def test_a_value_that_cannot_travel_is_an_error(actor):
    with pytest.raises(PayloadError, match="lock"):
        actor.useless().get(timeout=PATIENCE)
    with pytest.raises(PayloadError, match=r"arguments of echo\(\) of service 'actor'"):
        actor.echo(threading.Lock())


def test_a_wrong_call_is_the_methods_own_error(actor):
    with pytest.raises(TypeError, match="positional"):
        actor.times().get(timeout=PATIENCE)


@pytest.mark.parametrize("name", ["secret", "nothing", "run", "stop", "note"])
def test_what_is_not_remote_cannot_be_called(actor, name):
    with pytest.raises(ServiceMethodError, match=f"no remote method '{name}' .*it has: .*echo"):
        actor.call(name)
    assert not hasattr(actor, name)
    assert name not in dir(actor)
    assert "echo" in dir(actor)


def test_private_names_are_no_methods(actor):
    with pytest.raises(AttributeError):
        _ = actor._nothing


# --- death


@pytest.mark.parametrize("start_method", START_METHODS)
def test_who_waits_is_told_at_once_when_the_service_dies(make_services, start_method):
    services = make_services(start_method=start_method)
    status = services.add(acting.Actor(id="actor"), ServiceOptions(backoff=0.01))
    status.started.get(timeout=PATIENCE)
    naps = [services["actor"].nap(60) for _ in range(10)]
    services["actor"].times(1).get(timeout=PATIENCE)  # they have all begun
    restarted = status.stopped

    os.kill(status.pid, signal.SIGKILL)

    for nap in naps:
        with pytest.raises(ServiceDown, match=r"ended before it answered: .*SIGKILL") as caught:
            nap.get(timeout=PATIENCE)
        assert caught.value.service == "actor"
    restarted.get(timeout=PATIENCE)
    status.started.get(timeout=PATIENCE)
    assert services["actor"].times(1).get(timeout=PATIENCE) == 2


def test_a_service_that_waits_to_be_restarted_cannot_be_called(services):
    status = services.add(acting.Actor(id="actor"), ServiceOptions(backoff=30))
    status.started.get(timeout=PATIENCE)
    assert services["actor"].exit(1).wait(PATIENCE)
    with pytest.raises(ServiceDown, match=r"times\(\) .* cannot be called: the service is backoff"):
        services["actor"].times(1)
    assert services["actor"].call_all("times", 1) == []


def test_a_call_that_is_under_way_is_answered_by_the_process_that_is_replaced(services):
    status = services.add(acting.Actor(id="actor"))
    status.started.get(timeout=PATIENCE)
    call = services["actor"].whoami()
    services.reload("actor")
    assert call.get(timeout=PATIENCE) != services["actor"].whoami().get(timeout=PATIENCE)


# --- several instances


def test_instances_are_called_in_turn_or_all(services):
    status = services.add(acting.Actor(id="actor"), ServiceOptions(instances=3))
    status.started.get(timeout=PATIENCE)
    actor = services["actor"]
    turns = [actor.place().get(timeout=PATIENCE) for _ in range(6)]
    assert sorted(turns) == [0, 0, 1, 1, 2, 2]
    assert turns[:3] == turns[3:]
    pids = [call.get(timeout=PATIENCE) for call in actor.call_all("whoami")]
    assert sorted(pids) == sorted(status.pids)
    assert [each.instance for each in status.instances] == [0, 1, 2]
    assert [each.pid for each in status.instances] == status.pids
    assert status.started_times == 3


# --- from the service to its parent


def test_a_service_calls_its_parent(services):
    task = acting.Actor(id="actor")
    status = services.add(task, ServiceOptions(backoff=0.01))
    status.started.get(timeout=PATIENCE)
    actor = services["actor"]
    assert actor.ask_parent(3).get(timeout=PATIENCE) == (3, os.getpid())
    assert actor.ask_parent_by_name("note", 4).get(timeout=PATIENCE) == (7, os.getpid())
    assert actor.ask_parent_from_thread(5).get(timeout=PATIENCE) == (12, os.getpid())
    # what the parent keeps outlives the process
    services.restart("actor").started.get(timeout=PATIENCE)
    assert actor.ask_parent(1).get(timeout=PATIENCE)[0] == 13 == task.notes


def test_the_parents_errors_come_to_the_service(actor):
    with pytest.raises(acting.Odd, match="not in here"):
        actor.ask_parent_by_name("refuse").get(timeout=PATIENCE)
    for name in ("secret", "nothing", "echo"):
        with pytest.raises(ServiceMethodError, match=f"{name}.*parent=True"):
            actor.ask_parent_by_name(name).get(timeout=PATIENCE)


# --- messages


def test_a_service_emits_messages(keep, actor):
    heard, own = [], []
    keep.on("service-message", heard.append)
    keep.on("service-message-actor", own.append)
    actor.tell("changed", {"to": (1, 2)}).get(timeout=PATIENCE)
    actor.tell_from_thread("also").get(timeout=PATIENCE)
    wait_until(lambda: len(heard) == 2 and len(own) == 2)
    assert [(each.service, each.instance, each.name) for each in heard] == [
        ("actor", 0, "changed"),
        ("actor", 0, "also"),
    ]
    assert heard[0].payload == {"to": (1, 2)}
    assert own == heard
    with pytest.raises(PayloadError, match="lock"):
        actor.tell_useless().get(timeout=PATIENCE)
    keep.off("service-message")
    keep.off("service-message-actor")


def test_a_message_that_cannot_be_read_here_ends_nothing(keep, actor, caplog):
    pid = actor.whoami().get(timeout=PATIENCE)
    actor.tell_of_its_own().get(timeout=PATIENCE)
    assert "cannot be decoded here" in caplog.text
    assert actor.whoami().get(timeout=PATIENCE) == pid
    assert keep.status("actor").started_times == 1


def test_messages_come_in_order_and_before_the_answer(keep, actor):
    heard = []
    keep.on("service-message", lambda message: heard.append(message.payload))
    for at in range(100):
        actor.tell("count", at)
    actor.tell("count", 100).get(timeout=PATIENCE)
    wait_until(lambda: len(heard) == 101)
    assert heard == list(range(101))
    keep.off("service-message")
