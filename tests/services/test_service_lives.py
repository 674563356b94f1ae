"""Services that come, run and go: their states, their statuses, and who is told."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
import weakref

import gevent
import pytest
from services import acting
from worlds import PATIENCE, START_METHODS, alive, wait_until

import gtaskman
from gtaskman import (
    Configuration,
    DuplicateServiceError,
    ManagerStopped,
    ServiceDown,
    ServiceFailed,
    ServiceManager,
    ServiceOptions,
    ServiceState,
    TaskDefinitionError,
    TaskStatus,
    UnknownServiceError,
)

SOON = ServiceOptions(backoff=0.01)


class Ear:
    """Hears all events of a manager, in order."""

    def __init__(self, services):
        self.heard = []
        for name in ("started", "ready", "stopped", "failed", "restarting", "message"):
            services.on(f"service-{name}", self.heard.append)

    def names(self):
        return [each.event.removeprefix("service-") for each in self.heard]


@pytest.mark.parametrize("start_method", START_METHODS)
def test_a_service_starts_runs_and_stops(make_services, start_method):
    services = make_services(start_method=start_method)
    ear = Ear(services)
    actor = acting.Actor(id="actor")
    status = services.add(actor)
    assert status.started.get(timeout=PATIENCE) is status
    assert status.state is ServiceState.RUNNING
    assert status.started_times == 1
    assert services["actor"].whoami().get(timeout=PATIENCE) == status.pid != os.getpid()
    assert alive(status.pid)
    assert 0 <= status.uptime < PATIENCE
    pid, stopped = status.pid, status.stopped
    assert not stopped.done()

    services.stop_service("actor")
    stopped.get(timeout=PATIENCE)

    assert not alive(pid)
    assert (status.state, status.pid, status.uptime) == (ServiceState.STOPPED, None, None)
    assert status.last_exit.asked
    assert (status.last_exit.failure, status.last_exit.pid) == (None, pid)
    wait_until(lambda: ear.names() == ["started", "ready", "stopped"])
    assert {each.service for each in ear.heard} == {"actor"}
    assert {each.pid for each in ear.heard} == {pid}


def test_its_pen_writes_its_report(services):
    status = services.add(acting.Actor(id="actor"))
    assert status.report.status is TaskStatus.WAITING
    status.started.get(timeout=PATIENCE)
    wait_until(lambda: status.report.message == "waiting")
    report = status.report
    assert (report.completed, report.target) == (1, 2)
    assert (report.id, report.kind, report.status) == ("actor", "service", TaskStatus.PROCESSING)
    assert report.worker == status.pid
    assert abs(report.started_at - time.time()) < PATIENCE
    services.remove("actor")
    assert status.report.status is TaskStatus.COMPLETED


def test_services_may_be_added_before_the_start_and_after():
    services = ServiceManager()
    early = services.add(acting.Actor(id="early"))
    assert early.state is ServiceState.STOPPED
    assert early.pids == []
    with services:
        late = services.add(acting.Actor(id="late"))
        assert services.start() is services  # again, to no effect
        for status in (early, late):
            status.started.get(timeout=PATIENCE)
        assert [each.id for each in services.tasks()] == ["early", "late"] == list(services)
        assert services.statuses() == [early, late]
        assert services.status("early") is early
        assert services.options("early") == ServiceOptions()
        assert "early" in services
        assert "never" not in services
        assert len(services) == 2
    assert [each.state for each in (early, late)] == [ServiceState.STOPPED] * 2


def test_ids_are_taken_once_and_known(services):
    first = acting.Actor(id="mine")
    services.add(first)
    with pytest.raises(DuplicateServiceError, match="'mine' was added already") as caught:
        services.add(acting.Actor(id="mine"))
    assert caught.value.service == "mine"
    assert isinstance(caught.value, KeyError)
    assert services.task("mine") is first
    for ask in (services.status, services.task, services.restart, services.reload, services.remove):
        with pytest.raises(UnknownServiceError, match=r"no service .*'yours' .*there are: 'mine'"):
            ask("yours")
    with pytest.raises(KeyError):
        services["yours"]


@pytest.mark.parametrize("thing", [acting.Actor, "actor", len, None])
def test_only_services_are_taken(services, thing):
    with pytest.raises(TaskDefinitionError, match="ServiceTask"):
        services.add(thing)


def test_a_removed_service_is_gone_and_its_id_free(services):
    status = services.add(acting.Actor(id="actor"))
    status.started.get(timeout=PATIENCE)
    pid = status.pid
    services.remove("actor")
    assert not alive(pid)
    assert list(services) == []
    services.add(acting.Actor(id="actor")).started.get(timeout=PATIENCE)


def test_a_restart_gives_another_process(services):
    status = services.add(acting.Actor(id="actor"), ServiceOptions(backoff=30))
    first = status.started.get(timeout=PATIENCE).pid
    services["actor"].set_factor(5).get(timeout=PATIENCE)

    services.restart("actor").started.get(timeout=PATIENCE)

    assert status.pid != first
    assert not alive(first)
    assert status.started_times == 2
    # what it was told has gone with the process that knew it
    assert services["actor"].times(1).get(timeout=PATIENCE) == 2


def test_a_stopped_service_can_be_started_again(services):
    status = services.add(acting.Actor(id="actor"))
    status.started.get(timeout=PATIENCE)
    services.stop_service("actor").stopped.get(timeout=PATIENCE)
    with pytest.raises(ServiceFailed, match="'actor' is stopped"):
        status.started.get(timeout=PATIENCE)
    services.start_service("actor").started.get(timeout=PATIENCE)
    pid = status.pid
    assert services.start_service("actor").pid == pid  # it runs: nothing to do
    assert status.started_times == 2


def test_it_may_be_stopped_before_it_is_ready(services, tmp_path):
    status = services.add(acting.Slow(id="slow", gate=str(tmp_path / "gate")))
    ear = Ear(services)
    wait_until(lambda: "started" in ear.names())
    with pytest.raises(TimeoutError, match=r"has not started within 0\.05 s: it is starting"):
        status.started.get(timeout=0.05)
    with pytest.raises(ServiceDown, match="starting"):
        services["slow"].whoami()
    started = status.started
    # its stop raises, since run has not come so far: then it is cancelled
    services.stop_service("slow")
    with pytest.raises(ServiceFailed, match="'slow' is stopped"):
        started.get(timeout=PATIENCE)
    status.stopped.get(timeout=PATIENCE)


def test_it_may_be_stopped_at_once(services):
    status = services.add(acting.Actor(id="actor"))
    started = status.started
    services.remove("actor")
    with pytest.raises(ServiceFailed):
        started.get(timeout=PATIENCE)
    assert status.pids == []


def test_who_says_when_it_is_ready_is_ready_then(services, tmp_path):
    gate = tmp_path / "gate"
    ear = Ear(services)
    status = services.add(acting.Slow(id="slow", gate=str(gate)))
    wait_until(lambda: ear.names() == ["started"])
    assert status.state is ServiceState.STARTING
    assert status.started_times == 0
    assert status.uptime is None
    gate.touch()
    status.started.get(timeout=PATIENCE)
    assert status.started_times == 1
    wait_until(lambda: ear.names() == ["started", "ready"])


def test_the_parents_hook_is_called_after_each_end(services):
    class Told(acting.Actor):
        ends = 0

        def stopped(self):
            self.ends += 1
            raise acting.Odd(1, "a hook that raises disturbs nobody")

    told = Told(id="told")
    status = services.add(told, SOON)
    status.started.get(timeout=PATIENCE)
    os.kill(status.pid, signal.SIGKILL)
    wait_until(lambda: told.ends == 1)
    status.started.get(timeout=PATIENCE)
    services.remove("told")
    wait_until(lambda: told.ends == 2)


class Farewell(acting.Actor):
    """Takes its time for its farewell, and may stop its manager then."""

    services = None
    said = False

    def stopped(self):
        gevent.sleep(0.2)
        if self.services is not None:
            self.services.stop()
        self.said = True


@pytest.mark.parametrize("background", [False, True])
def test_a_stop_does_not_cut_the_parents_hook_off(make_services, background):
    services = make_services(background=background)
    farewell = Farewell(id="farewell")
    services.add(farewell).started.get(timeout=PATIENCE)
    services.stop()
    assert farewell.said


def test_the_parents_hook_may_stop_the_manager(services):
    farewell = Farewell(id="farewell")
    farewell.services = services
    services.add(farewell).started.get(timeout=PATIENCE)
    services.stop_service("farewell")
    begin = time.monotonic()
    assert services.wait(PATIENCE)
    assert time.monotonic() - begin < 4  # it does not wait for itself
    wait_until(lambda: farewell.said)


def test_events_of_one_service_are_heard_alone(services):
    heard = []
    services.on("service-ready-one", heard.append)
    for name in ("one", "other"):
        services.add(acting.Actor(id=name)).started.get(timeout=PATIENCE)
    wait_until(lambda: heard)
    assert [each.service for each in heard] == ["one"]
    services.off("service-ready-one")
    services.restart("one").started.get(timeout=PATIENCE)
    assert len(heard) == 1


@pytest.mark.parametrize("spinning", [False, True])
def test_every_process_tells_what_it_is_doing(services, spinning):
    status = services.add(acting.Actor(id="actor"), ServiceOptions(terminate_timeout=0))
    status.started.get(timeout=PATIENCE)
    services["actor"].spin() if spinning else services["actor"].nap(60)
    function = "in spin" if spinning else "in nap"
    wait_until(lambda: function in services.stacks()[status.pid])
    assert list(services.stacks()) == [status.pid]


# --- the manager


def test_a_stop_that_is_not_needed_is_no_error():
    ServiceManager().stop()
    services = ServiceManager()
    services.add(acting.Actor(id="actor"))
    services.stop()
    with pytest.raises(ManagerStopped):
        services.start()
    with pytest.raises(ManagerStopped):
        services.add(acting.Actor(id="another"))


def test_a_stop_ends_all_and_may_be_said_twice(services):
    statuses = [services.add(acting.Actor(id=f"actor-{at}")) for at in range(3)]
    for status in statuses:
        status.started.get(timeout=PATIENCE)
    pids = [status.pid for status in statuses]
    waiter = gevent.spawn(services.wait, PATIENCE)
    first = gevent.spawn(services.stop)
    services.stop()
    first.get(timeout=PATIENCE)
    assert waiter.get(timeout=PATIENCE) is True
    assert not any(map(alive, pids))
    assert {each.state for each in statuses} == {ServiceState.STOPPED}
    services.stop()
    with pytest.raises(ManagerStopped):
        services.restart("actor-0")
    with pytest.raises(ServiceDown, match="stopped"):
        services["actor-0"].whoami()
    assert services.wait(0) is True


def test_a_manager_that_has_not_been_started_can_wait(services):
    assert services.wait(0.01) is False


def test_what_is_not_started_cannot_be_restarted():
    services = ServiceManager()
    services.add(acting.Actor(id="actor"))
    with pytest.raises(ServiceDown, match="has not been started"):
        services.restart("actor")
    services.remove("actor")
    assert list(services) == []


def test_an_error_leaves_nothing_behind():
    services = ServiceManager()
    status = services.add(acting.Actor(id="actor"))
    pids = []

    def use():
        with services:
            pids.append(status.started.get(timeout=PATIENCE).pid)
            raise acting.Odd(1, "in the body")

    with pytest.raises(acting.Odd):
        use()
    assert not alive(pids[0])


LATE = {
    "add": lambda services: services.add(acting.Actor(id="another")),
    "start": lambda services: services.start_service("actor"),
    "restart": lambda services: services.restart("actor"),
    "reload": lambda services: services.reload("actor"),
}


@pytest.mark.parametrize("what", LATE)
def test_what_another_thread_asks_for_may_come_too_late(services, what):
    services.add(acting.Actor(id="actor")).started.get(timeout=PATIENCE)
    asked, errors = threading.Event(), []

    def ask():
        asked.set()
        try:
            LATE[what](services)
        except ManagerStopped as error:
            errors.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    asked.wait()
    time.sleep(0.1)  # (our hub must not run before it is stopped)
    services.stop()
    wait_until(lambda: not thread.is_alive())
    assert len(errors) == 1
    assert list(services) == ["actor"]


def test_a_service_may_be_removed_while_all_are_stopped(services):
    options = ServiceOptions(terminate_timeout=0.3)
    status = services.add(acting.Stubborn(id="stubborn"), options)
    status.started.get(timeout=PATIENCE)
    pid = status.pid
    stop = gevent.spawn(services.stop)
    wait_until(lambda: status.state is ServiceState.STOPPING)
    services.remove("stubborn")
    # it was forgotten when it was gone, not before
    assert not alive(pid)
    stop.get(timeout=PATIENCE)


def test_what_is_being_removed_cannot_be_started_again(services):
    options = ServiceOptions(terminate_timeout=0.3)
    status = services.add(acting.Stubborn(id="stubborn"), options)
    status.started.get(timeout=PATIENCE)
    remove = gevent.spawn(services.remove, "stubborn")
    wait_until(lambda: status.state is ServiceState.STOPPING)
    for ask in (services.start_service, services.restart, services.reload):
        with pytest.raises(UnknownServiceError, match="'stubborn' has been removed"):
            ask("stubborn")
    with pytest.raises(DuplicateServiceError):
        services.add(acting.Stubborn(id="stubborn"))
    remove.get(timeout=PATIENCE)
    assert len(services) == 0


def test_who_waits_for_what_never_starts_is_told():
    services = ServiceManager()
    removed, stopped = (services.add(acting.Actor(id=name)) for name in ("removed", "stopped"))
    services.remove("removed")
    services.stop()
    for status in (removed, stopped):
        with pytest.raises(ServiceFailed, match="is stopped"):
            status.started.get(timeout=PATIENCE)
        assert status.stopped.wait(PATIENCE)


def test_a_stop_that_may_not_last_kills(services):
    status = services.add(acting.Stubborn(id="deaf", deaf=True))
    status.started.get(timeout=PATIENCE)
    begin = time.monotonic()
    services.stop(timeout=0.1)
    assert time.monotonic() - begin < 4  # and not the ten seconds of its options
    assert "the manager was stopped" in status.last_exit.message


def test_a_manager_in_the_background_serves_threads_without_a_hub():
    results = []
    services = ServiceManager(Configuration(background=True)).start()

    def use():
        status = services.add(acting.Actor(id="actor"))
        status.started.get(timeout=PATIENCE)
        results.append(services["actor"].times(4).get(timeout=PATIENCE))
        services.restart("actor").started.get(timeout=PATIENCE)
        services.reload("actor")
        results.append(services["actor"].times(5).get(timeout=PATIENCE))
        services.remove("actor")
        services.stop()

    thread = threading.Thread(target=use)
    thread.start()
    wait_until(lambda: not thread.is_alive())
    assert results == [8, 10]
    services.stop()


def test_a_manager_of_this_thread_serves_others(services):
    hub = gevent.get_hub()
    services.add(acting.Actor(id="actor")).started.get(timeout=PATIENCE)

    def use():
        status = services.status("actor")
        before = services["actor"].whoami().get(timeout=PATIENCE)
        services.restart("actor")
        status.started.get(timeout=PATIENCE)
        after = services["actor"].whoami().get(timeout=PATIENCE)
        services.add(acting.Actor(id="another")).started.get(timeout=PATIENCE)
        services.remove("another")
        return before != after

    assert hub.threadpool.apply(use) is True
    assert list(services) == ["actor"]


def test_a_fork_of_the_process_has_no_services(services):
    status = services.add(acting.Actor(id="actor"), ServiceOptions(sockets={"s": ("::1", 0)}))
    status.started.get(timeout=PATIENCE)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            services["actor"].whoami()
        except gtaskman.ForkedManagerError:
            os.write(writer, b"refused")
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(reader, 100) == b"refused"
    os.close(reader)
    os.close(writer)
    assert services["actor"].times(3).get(timeout=PATIENCE) == 6


def test_beside_a_pool(services, manager):
    services.add(acting.Actor(id="actor")).started.get(timeout=PATIENCE)
    assert manager.submit(os.getpid).get(timeout=PATIENCE) != os.getpid()
    assert services["actor"].times(2).get(timeout=PATIENCE) == 4


def test_a_manager_that_is_done_is_let_go():
    services = ServiceManager()
    with services:
        services.add(acting.Actor(id="actor")).started.get(timeout=PATIENCE)
    gone = weakref.ref(services)
    del services
    gevent.sleep(0)
    gc.collect()
    assert gone() is None
