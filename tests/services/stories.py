"""Stories that are played in the worlds: see ``worlds``."""

from __future__ import annotations

import os
import signal
import threading

import gevent
import pytest
from scenarios import stage
from scenarios.stage import PATIENCE, wait_until
from services import acting

import gtaskman
from gtaskman import ServiceOptions, ServiceState


def manager(**config):
    return gtaskman.ServiceManager(gtaskman.Configuration(**config))


def hello_and_bye(**config):
    """Two say Hello and Bye, a third fails at its start; a call changes what one answers."""
    services = manager(**config)
    sockets = {"http": ("127.0.0.1", 0)}
    hello = services.add(acting.Web(id="hello", greeting="Hello"), ServiceOptions(sockets=sockets))
    bye = services.add(acting.Web(id="bye", greeting="Bye"), ServiceOptions(sockets=sockets))
    limited = ServiceOptions(restart="on-failure", backoff=0.01, max_restarts=2)
    third = services.add(acting.Short(id="third", how="raises"), limited)
    with services:
        for status in (hello, bye):
            status.started.get(timeout=PATIENCE)
        addresses = {"hello": hello.sockets["http"], "bye": bye.sockets["http"]}
        stage.tell("up", pids={"hello": hello.pid, "bye": bye.pid}, **addresses)
        stage.hold("asked")
        services["hello"].call("set_greeting", "Welcome").get(timeout=PATIENCE)
        stage.tell("changed")
        stage.hold("asked again")
        wait_until(lambda: third.state is ServiceState.FAILED)
        pids = [*hello.pids, *bye.pids]
        services.stop(timeout=15)
    return {
        "states": [hello.state.value, bye.state.value, third.state.value],
        "started": [hello.started_times, bye.started_times, third.started_times],
        "pids": pids,
    }


def calls_and_deaths(start_method):
    """Calls in both directions, a crash, a restart and a reload."""
    with manager(start_method=start_method) as services:
        task = acting.Actor(id="actor")
        status = services.add(task, ServiceOptions(backoff=0.01))
        status.started.get(timeout=PATIENCE)
        actor = services["actor"]
        assert actor.times(21).get(timeout=PATIENCE) == 42
        assert actor.ask_parent(3).get(timeout=PATIENCE) == (3, os.getpid())
        assert actor.ask_parent_from_thread(4).get(timeout=PATIENCE) == (7, os.getpid())
        nap, down = actor.nap(60), status.stopped
        actor.times(1).get(timeout=PATIENCE)
        os.kill(status.pid, signal.SIGKILL)
        with pytest.raises(gtaskman.ServiceDown, match="SIGKILL"):
            nap.get(timeout=PATIENCE)
        down.get(timeout=PATIENCE)
        status.started.get(timeout=PATIENCE)
        services.restart("actor").started.get(timeout=PATIENCE)
        services.reload("actor")
        assert actor.ask_parent(1).get(timeout=PATIENCE)[0] == 8 == task.notes
        ticks = []
        ticker = gevent.spawn(lambda: [ticks.append(gevent.sleep(0.005)) for _ in range(20)])
        assert actor.nap(0.15).get(timeout=PATIENCE) == 0.15
        assert len(ticks) > 5  # the hub goes on while somebody waits
        ticker.kill()
        return status.started_times


def standing(start_method, directory):
    """Services of all kinds are at work, until the test says so or kills."""
    with manager(start_method=start_method) as services:
        services.add(acting.Actor(id="actor"), ServiceOptions(instances=2, backoff=60))
        mark = os.path.join(directory, f"{start_method}-mark")
        services.add(acting.Computing(id="computing", mark=mark), ServiceOptions(backoff=60))
        services.add(acting.Stubborn(id="deaf", deaf=True), ServiceOptions(backoff=60))
        for status in services.statuses():
            status.started.get(timeout=PATIENCE)
        wait_until(lambda: os.path.exists(mark))
        stage.tell("ready", pids=[pid for each in services.statuses() for pid in each.pids])
        stage.hold()
        services.stop(timeout=0.2)


def left_to_the_end(start_method):
    """A manager that nobody stops, in a program that ends."""
    services = manager(start_method=start_method).start()
    status = services.add(acting.Actor(id="actor"))
    status.started.get(timeout=PATIENCE)
    return status.pids


def deserted():
    """A manager whose thread has ended, in a program that ends."""
    made = []

    def use():
        services = manager().start()
        services.add(acting.Actor(id="actor")).started.get(timeout=PATIENCE)
        made.append(services)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    [services] = made
    asked = (
        services.stop,
        lambda: services.restart("actor"),
        lambda: services["actor"].nap(1).get(),
        lambda: services.status("actor").stopped.get(),
    )
    for ask in asked:
        with pytest.raises(gtaskman.GTaskmanError, match="lived on a thread that has ended"):
            ask()


def forked_servers(start_method):
    """A service's socket is held by nobody else after the application has forked."""
    with manager(start_method=start_method) as services:
        options = ServiceOptions(sockets={"http": ("127.0.0.1", 0)})
        status = services.add(acting.Web(id="web", greeting=""), options)
        status.started.get(timeout=PATIENCE)
        address = status.sockets["http"]
        pid = os.fork()
        if pid == 0:
            signal.pause()
            os._exit(0)
        try:
            services.stop()
            with gevent.socket.socket() as client:
                return client.connect_ex(tuple(address)) != 0
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
