"""Listening sockets that outlive processes, and what is done while they do."""

from __future__ import annotations

import contextlib
import http.client
import importlib
import os
import signal
import socket
import stat
import sys
import threading

import gevent
import gevent.socket
import pytest
from services import acting
from worlds import PATIENCE, START_METHODS, alive, children_of, descriptors, wait_until

from gtaskman import ServiceFailed, ServiceOptions, ServiceState
from gtaskman.services.sockets import Listeners

LOOPBACK = {"http": ("127.0.0.1", 0)}


def get(address):
    """What a plain request for / is answered."""
    family = gevent.socket.AF_UNIX if isinstance(address, str) else gevent.socket.AF_INET
    with contextlib.closing(gevent.socket.socket(family)) as client:
        client.settimeout(PATIENCE)
        client.connect(address)
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        answer = b""
        while more := client.recv(65536):
            answer += more
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), answer
    return body.decode()


@pytest.mark.parametrize("start_method", START_METHODS)
def test_a_service_is_given_its_socket(make_services, start_method):
    services = make_services(start_method=start_method)
    status = services.add(
        acting.Web(id="web", greeting="Hello"), ServiceOptions(sockets=LOOPBACK, backoff=0.01)
    )
    status.started.get(timeout=PATIENCE)
    address = status.sockets["http"]
    assert address[1] != 0
    assert get(address) == f"Hello from {status.pid}"
    # the same one after a crash: whoever comes meanwhile waits in it
    os.kill(status.pid, signal.SIGKILL)
    assert get(address) == f"Hello from {status.started.get(timeout=PATIENCE).pid}"
    assert status.sockets["http"] == address
    services.remove("web")
    with pytest.raises(ConnectionRefusedError):
        get(address)


def test_a_service_has_no_socket_of_another(services):
    web = services.add(acting.Web(id="web", greeting=""), ServiceOptions(sockets=LOOPBACK))
    web.started.get(timeout=PATIENCE)
    actor = services.add(acting.Actor(id="actor"))
    actor.started.get(timeout=PATIENCE)
    listening = tcp_sockets(web.pid)
    assert len(listening) == 1
    assert not listening & tcp_sockets(actor.pid)


def tcp_sockets(pid):
    with open("/proc/net/tcp") as file:
        known = {line.split()[9] for line in file.readlines()[1:]}
    held = {what[8:-1] for what in descriptors(pid).values() if what.startswith("socket:[")}
    return known & held


@pytest.mark.parametrize("left_behind", [False, True])
def test_a_unix_socket(services, tmp_path, left_behind):
    path = str(tmp_path / "web.sock")
    if left_behind:
        # given the file of somebody who was killed
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as old:
            old.bind(path)
    status = services.add(
        acting.Web(id="web", greeting="Hello"), ServiceOptions(sockets={"http": path})
    )
    status.started.get(timeout=PATIENCE)
    assert status.sockets == {"http": path}
    assert get(path) == f"Hello from {status.pid}"
    services.remove("web")
    assert not os.path.exists(path)


def test_several_sockets_come_by_their_names(services, tmp_path):
    places = {f"s{at}": str(tmp_path / f"{at}.sock") for at in range(20)}
    places["http"] = ("127.0.0.1", 0)
    status = services.add(acting.Web(id="web", greeting="Hi"), ServiceOptions(sockets=places))
    status.started.get(timeout=PATIENCE)
    assert list(status.sockets) == list(places)
    assert get(status.sockets["http"]) == f"Hi from {status.pid}"
    assert stat.S_ISSOCK(os.stat(places["s19"]).st_mode)


def test_an_address_that_is_taken_is_told_and_tried_again(services):
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken:
        place = taken.getsockname()
        options = ServiceOptions(sockets={"http": place}, backoff=0.02)
        status = services.add(acting.Web(id="web", greeting="Hello"), options)
        wait_until(lambda: len(status.history) > 1)
        assert status.state is ServiceState.BACKOFF
        assert "cannot listen on its socket 'http'" in status.last_exit.message
        assert "Address already in use" in status.last_exit.message
        strict = options.replace(restart="never")
        other = services.add(acting.Web(id="other", greeting="Hello"), strict)
        with pytest.raises(ServiceFailed, match="Address already in use"):
            other.started.get(timeout=PATIENCE)
    status.started.get(timeout=PATIENCE)
    assert get(place) == f"Hello from {status.pid}"


def test_a_file_that_is_no_socket_is_left_alone(services, tmp_path):
    path = tmp_path / "data"
    path.write_text("precious")
    options = ServiceOptions(sockets={"http": str(path)}, restart="never")
    status = services.add(acting.Web(id="web", greeting=""), options)
    with pytest.raises(ServiceFailed, match="Address already in use"):
        status.started.get(timeout=PATIENCE)
    assert path.read_text() == "precious"


def test_other_threads_may_ask_for_addresses_while_sockets_come_and_go():
    listeners = Listeners("web", {"http": ("127.0.0.1", 0), "admin": ("127.0.0.1", 0)}, 5)
    opened, errors = threading.Event(), []

    def ask():
        while not opened.is_set():
            try:
                listeners.addresses()
            except Exception as error:
                errors.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    for _ in range(300):
        listeners.open()
        assert set(listeners.addresses()) == {"http", "admin"}
        listeners.close()
    opened.set()
    thread.join()
    assert (errors, listeners.addresses()) == ([], {})


def test_instances_share_it(services):
    options = ServiceOptions(sockets=LOOPBACK, instances=3, backoff=0.01)
    status = services.add(acting.Web(id="web", greeting="Hello", pause=0.05), options)
    status.started.get(timeout=PATIENCE)
    address, answers = status.sockets["http"], set()

    def all_have_answered():
        clients = [gevent.spawn(get, address) for _ in range(12)]
        answers.update(each.get(timeout=PATIENCE) for each in clients)
        return len(answers) >= 3

    wait_until(all_have_answered)
    assert answers == {f"Hello from {pid}" for pid in status.pids}
    # one of them that dies is replaced, and the others go on
    pids = status.pids
    os.kill(pids[1], signal.SIGKILL)
    wait_until(lambda: [each.state for each in status.instances].count(ServiceState.RUNNING) < 3)
    assert status.state is ServiceState.RUNNING
    status.started.get(timeout=PATIENCE)
    assert [new == old for new, old in zip(status.pids, pids, strict=True)] == [True, False, True]


# --- reload


@pytest.mark.parametrize("start_method", START_METHODS)
def test_a_reload_has_the_new_one_ready_before_the_old_one_goes(make_services, start_method):
    services = make_services(start_method=start_method)
    events = []
    for name in ("ready", "stopped"):
        services.on(f"service-{name}", lambda event: events.append((event.event, event.pid)))
    status = services.add(
        acting.Web(id="web", greeting="Hello"), ServiceOptions(sockets=LOOPBACK, instances=2)
    )
    status.started.get(timeout=PATIENCE)
    started, old, address = status.started, status.pids, status.sockets["http"]

    assert services.reload("web") is status

    assert status.started is started  # it has been up all the while
    wait_until(lambda: not set(old) & set(status.pids))
    assert not any(map(alive, old))
    assert get(address) in {f"Hello from {pid}" for pid in status.pids}
    assert status.started_times == 4
    wait_until(lambda: len(events) == 6)
    for number in range(2):
        came = events.index(("service-ready", status.pids[number]))
        went = events.index(("service-stopped", old[number]))
        assert came < went
    assert all(each.asked and each.failure is None for each in status.history)


def test_a_reload_that_fails_leaves_the_old_one(services, tmp_path):
    gate = tmp_path / "gate"
    gate.touch()
    options = ServiceOptions(start_timeout=0.3)
    status = services.add(acting.Slow(id="slow", gate=str(gate)), options)
    status.started.get(timeout=PATIENCE)
    pid = status.pid
    gate.write_text("fail")
    with pytest.raises(ServiceFailed, match=r"not this time.*the old process goes on"):
        services.reload("slow")
    gate.unlink()
    with pytest.raises(ServiceFailed, match=r"not ready within 0\.3 s.*the old process goes on"):
        services.reload("slow")
    assert (status.state, status.pids) == (ServiceState.RUNNING, [pid])
    assert services["slow"].whoami().get(timeout=PATIENCE) == pid
    gate.touch()
    services.reload("slow")
    assert services["slow"].whoami().get(timeout=PATIENCE) != pid


def test_the_heir_has_the_place_if_the_old_one_dies_meanwhile(services, tmp_path):
    gate = tmp_path / "gate"
    gate.touch()
    status = services.add(acting.Slow(id="slow", gate=str(gate)), ServiceOptions(backoff=60))
    status.started.get(timeout=PATIENCE)
    gate.unlink()
    reload = gevent.spawn(services.reload, "slow")
    wait_until(lambda: len(status.pids) == 2)
    old, heir = status.pids
    os.kill(old, signal.SIGKILL)
    wait_until(lambda: status.state is ServiceState.STARTING)
    gate.touch()
    reload.get(timeout=PATIENCE)
    assert status.pids == [heir]


def test_a_stop_ends_a_reload(services, tmp_path):
    gate = tmp_path / "gate"
    gate.touch()
    status = services.add(acting.Slow(id="slow", gate=str(gate)))
    status.started.get(timeout=PATIENCE)
    gate.unlink()
    reload = gevent.spawn(services.reload, "slow")
    wait_until(lambda: len(status.pids) == 2)
    pids = status.pids
    services.remove("slow")
    with pytest.raises(ServiceFailed, match="could not be reloaded: the service was stopped"):
        reload.get(timeout=PATIENCE)
    assert not any(map(alive, pids))


def test_a_service_at_rest_is_started_by_a_reload(services):
    status = services.add(acting.Actor(id="actor"))
    status.started.get(timeout=PATIENCE)
    services.stop_service("actor").stopped.get(timeout=PATIENCE)
    services.reload("actor")
    assert status.state is ServiceState.RUNNING


VERSIONED = """
import gtaskman
from gevent.event import Event
class Versioned(gtaskman.ServiceTask):
    def run(self, progress):
        Event().wait()
    @gtaskman.remote
    def version(self):
        return {version!r}
"""


@pytest.mark.parametrize("start_method", ["zygote", "spawn"])
def test_a_renewed_manager_has_the_code_that_is_on_disk(
    make_services, start_method, tmp_path, monkeypatch
):
    module = tmp_path / "versioned.py"
    module.write_text(VERSIONED.format(version="one"))
    monkeypatch.syspath_prepend(str(tmp_path))
    versioned = importlib.import_module("versioned").Versioned(id="versioned")
    services = make_services(start_method=start_method)
    services.add(versioned).started.get(timeout=PATIENCE)
    other = services.add(acting.Actor(id="other"))
    other.started.get(timeout=PATIENCE)
    pid = other.pid
    module.write_text(VERSIONED.format(version="the second"))
    templates = template_pids()
    assert services["versioned"].version().get(timeout=PATIENCE) == "one"

    services.renew()
    services.reload("versioned")

    assert services["versioned"].version().get(timeout=PATIENCE) == "the second"
    assert other.pid == pid  # nobody else is disturbed
    services.reload("other")
    # a template that nothing is left of goes
    wait_until(lambda: not templates & template_pids())
    del sys.modules["versioned"]


def template_pids():
    return {each.pid for each in children_of(os.getpid()) if "template" in each.title}


class Load:
    """Clients in native threads of this process, which ask without a pause."""

    def __init__(self, address, keep_alive, count=4):
        self._address, self._keep_alive = address, keep_alive
        self._over = False
        self.answers, self.errors = [], []
        self._threads = [threading.Thread(target=self._run) for _ in range(count)]
        for each in self._threads:
            each.start()

    def _run(self):
        client = None
        while not self._over:
            try:
                client = client or http.client.HTTPConnection(*self._address, timeout=PATIENCE)
                client.request("GET", "/")
                answer = client.getresponse()
                self.answers.append((answer.status, answer.read().decode()))
            except Exception as error:
                self.errors.append(repr(error))
                client = None
                continue
            # A server that drains says that this was the last one.
            if not self._keep_alive or answer.will_close:
                client.close()
                client = None
        if client is not None:
            client.close()

    def stop(self):
        self._over = True
        wait_until(lambda: not any(each.is_alive() for each in self._threads))


@pytest.mark.parametrize("keep_alive", [False, True])
@pytest.mark.parametrize("how", ["reload", "outgrown"])
def test_a_reload_under_load_loses_no_request(make_services, keep_alive, how):
    services = make_services(background=True)  # its hub must run while ours waits
    options = ServiceOptions(
        sockets=LOOPBACK, instances=2, max_age=0.3 if how == "outgrown" else None
    )
    status = services.add(acting.Web(id="web", greeting="Hello"), options)
    status.started.get(timeout=PATIENCE)
    # (a request on a connection that is kept may take 40 ms, for the system's own reasons)
    load = Load(status.sockets["http"], keep_alive, count=16 if keep_alive else 4)
    try:
        for _ in range(5):
            enough = len(load.answers) + 150
            if how == "reload":
                services.reload("web")
            else:
                times = status.started_times
                wait_until(lambda at=times: status.started_times > at)
            wait_until(lambda at=enough: len(load.answers) > at)
    finally:
        load.stop()
    assert load.errors == []
    assert len(load.answers) > 750
    assert {code for code, _ in load.answers} == {200}
    assert len({body for _, body in load.answers}) >= 6  # so many processes have answered
