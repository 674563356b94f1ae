"""Talking to the services of a running application: a real socket, real services."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import socket
import stat
import subprocess
import sys
from pathlib import Path

import gevent
import gevent.socket
import pytest
from services import acting
from services_cmd.asked import Asked, Leisurely, Unsayable
from worlds import PATIENCE, alive, wait_until

from gtaskman import (
    Configuration,
    ConfigurationError,
    GTaskmanError,
    PayloadError,
    ServerUnavailable,
    ServiceCallFailed,
    ServiceDown,
    ServiceManager,
    ServiceMethodError,
    ServiceOptions,
    ServiceState,
    UnknownServiceError,
    WaitTimeout,
)
from gtaskman.rendezvous import Nobody, Rendezvous, RendezvousTaken, found_in
from gtaskman.services import control
from gtaskman.services.control import Control, Supervisor

HOST = {"on this hub": False, "on a thread of its own": True}


class Place:
    """A manager with a socket beside it, and who asks it."""

    def __init__(self, manager: ServiceManager, path: Path) -> None:
        self.manager = manager
        self.path = path
        self.supervisor = Supervisor(Rendezvous(path))

    def say(self, words: bytes, shut: bool = True) -> bytes:
        """What is answered to these bytes."""
        with contextlib.closing(gevent.socket.socket(socket.AF_UNIX)) as client:
            client.settimeout(PATIENCE)
            client.connect(str(self.path))
            client.sendall(words)
            if shut:
                client.shutdown(socket.SHUT_WR)
            with client.makefile("rb") as answer:
                return answer.read()


@pytest.fixture(scope="module", params=HOST)
def place(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("control") / "private" / "services.sock"
    config = Configuration(background=HOST[request.param])
    with ServiceManager(config) as manager, Control(manager, path, "a test"):
        sockets = {"http": ("127.0.0.1", 0)}
        manager.add(acting.Web(id="web", greeting="Hello"), ServiceOptions(sockets=sockets))
        manager.add(acting.Actor(id="actor"), ServiceOptions(backoff=0.01))
        manager.add(acting.Short(id="short", how="raises"), ServiceOptions(restart="never"))
        manager.add(Asked(id="asked"))
        for name in ("web", "actor", "asked"):
            manager.status(name).started.get(timeout=PATIENCE)
        wait_until(lambda: manager.status("short").state is ServiceState.FAILED)
        wait_until(lambda: manager.status("actor").report.message)
        yield Place(manager, path)


# --- how they stand


def test_all_are_shown_as_they_stand(place):
    web, actor, short, asked = place.supervisor.status()

    assert [each.id for each in (web, actor, short, asked)] == ["web", "actor", "short", "asked"]
    assert (web.state, short.state) == (ServiceState.RUNNING, ServiceState.FAILED)
    assert web.sockets == {"http": list(place.manager.status("web").sockets["http"])}
    assert actor.pids == place.manager.status("actor").pids
    assert (actor.message, actor.started_times) == ("waiting", 1)
    assert actor.uptime > 0
    assert (short.pids, short.uptime) == ([], None)
    (end,) = short.history
    assert end.message.startswith("it raised services.acting.Odd")
    assert "by itself" in end.failure.traceback


def test_one_is_shown_alone_and_a_stranger_is_unknown(place):
    (one,) = place.supervisor.status("web")
    assert one.id == "web"
    with pytest.raises(UnknownServiceError, match=r"'nobody' \(there are: 'web'") as caught:
        place.supervisor.status("nobody")
    assert caught.value.service == "nobody"


# --- calls


@pytest.mark.parametrize("value", [None, 3, "é", [1, {"a": None}], "x" * 3_000_000])
def test_a_call_gives_what_the_method_returns(place, value):
    assert place.supervisor.call("actor", "echo", (value,)) == value


def test_a_call_takes_arguments_by_place_and_by_name(place):
    assert place.supervisor.call("actor", "times", (3,), {"again": 5}) == 30


def test_the_methods_own_error_is_told_with_its_traceback(place):
    with pytest.raises(ServiceCallFailed, match=r"fail\(\) .*'actor'.*services\.acting\.Odd") as it:
        place.supervisor.call("actor", "fail", (7,))
    assert it.value.exc_type == "services.acting.Odd"
    assert 'raise Odd(code, "as asked")' in it.value.traceback
    with pytest.raises(ServiceCallFailed, match=r"Unportable: 1 and 2"):
        place.supervisor.call("actor", "fail_unportably")


@pytest.mark.parametrize(
    ("service", "method", "args", "kind", "words"),
    [
        ("nobody", "echo", (1,), UnknownServiceError, "there are: 'web', 'actor', 'short'"),
        ("actor", "secret", (), ServiceMethodError, "no remote method 'secret' .*it has: "),
        ("short", "echo", (1,), ServiceMethodError, "it has: none"),
        ("actor", "useless", (), PayloadError, "lock"),
        ("actor", "times", (), ServiceCallFailed, "TypeError.*positional"),
    ],
)
def test_what_is_wrong_with_a_call_is_told(place, service, method, args, kind, words):
    with pytest.raises(kind, match=words):
        place.supervisor.call(service, method, args)


def test_what_json_has_no_form_for_comes_as_a_text(place):
    assert place.supervisor.call("asked", "objects") == {
        "at": "/srv",
        "on": "2026-01-02",
        "of": [3],
        "raw": "AAE=",
    }


def test_texts_that_no_encoding_has_are_said_as_well_as_may_be(place, caplog):
    # Not to be logged: what pytest keeps of that it could not send to where it is shown.
    caplog.set_level(logging.CRITICAL + 1, "gtaskman")
    said = r"caf\udce9"
    assert place.supervisor.call("asked", "unsayable", (False,)) == {said: [said, 1]}
    with pytest.raises(ServiceCallFailed) as caught:
        place.supervisor.call("asked", "unsayable", (True,))
    assert (caught.value.exc_type, caught.value.message) == ("ValueError", said)
    status = place.manager.add(Unsayable(id="unsayable"), ServiceOptions(restart="never"))
    status.stopped.get(timeout=PATIENCE)
    found = {each.id: each for each in place.supervisor.status()}
    place.manager.remove("unsayable")
    assert found["unsayable"].history[-1].message == f"it raised ValueError: {said}"


def test_what_cannot_be_said_is_refused_on_either_side(place):
    with pytest.raises(PayloadError, match=r"cannot be said in JSON: .*object"):
        place.supervisor.call("actor", "echo", (object(),))
    with pytest.raises(PayloadError, match="too long for a command"):
        place.supervisor.call("actor", "times", ("x",), {"again": 9_000_000})


def test_a_wait_may_end_before_the_method(place):
    with pytest.raises(WaitTimeout, match=r"has not answered within 0\.05 s, and goes on"):
        place.supervisor.call("actor", "nap", (30,), timeout=0.05)
    assert place.supervisor.call("actor", "times", (1,)) == 2


def test_others_are_answered_while_somebody_waits(place):
    slow = gevent.spawn(place.supervisor.call, "actor", "nap", (0.5,))
    assert [place.supervisor.call("actor", "times", (n,)) for n in range(20)][19] == 38
    assert not slow.ready()
    assert slow.get(timeout=PATIENCE) == 0.5


# --- changes


def test_a_service_is_stopped_and_started(place):
    supervisor = place.supervisor
    (before,) = supervisor.status("actor")
    (stopped,) = supervisor.change("stop", "actor")
    assert (stopped.state, stopped.pids) == (ServiceState.STOPPED, [])
    assert not any(map(alive, before.pids))
    with pytest.raises(ServiceDown, match="the service is stopped"):
        supervisor.call("actor", "whoami")
    (again,) = supervisor.change("stop", "actor")  # a second time is no error
    assert again.state is ServiceState.STOPPED
    (started,) = supervisor.change("start", "actor")
    assert started.state is ServiceState.RUNNING
    assert supervisor.call("actor", "whoami") == started.pids[0]
    (as_before,) = supervisor.change("start", "actor")
    assert as_before.pids == started.pids


@pytest.mark.parametrize("change", ["restart", "reload"])
def test_a_service_gets_another_process(place, change):
    old = place.supervisor.call("actor", "whoami")
    (found,) = place.supervisor.change(change, "actor")
    assert found.state is ServiceState.RUNNING
    assert place.supervisor.call("actor", "whoami") != old
    wait_until(lambda: not alive(old))


@pytest.fixture
def failing(place, tmp_path):
    """A service that is never ready."""
    gate = tmp_path / "gate"
    gate.write_text("fail")
    options = ServiceOptions(restart="never")
    place.manager.add(acting.Slow(id="failing", gate=str(gate)), options)
    yield "failing"
    place.manager.remove("failing")


@pytest.mark.parametrize("change", ["start", "restart", "reload"])
def test_a_change_that_fails_is_told(place, failing, change):
    wait_until(lambda: place.manager.status(failing).state is ServiceState.FAILED)
    (found,) = place.supervisor.change(change, failing)
    assert found.state is ServiceState.FAILED
    assert re.search("service 'failing' (has failed|could not be reloaded)", found.error)
    assert place.supervisor.status(failing)[0].error is None


def test_a_change_of_all_leaves_out_who_was_stopped_and_tells_who_failed(place, failing):
    place.supervisor.change("stop", "actor")
    before = place.supervisor.status("web")[0].pids
    found = {each.id: each for each in place.supervisor.change("restart", None)}
    assert list(found) == ["web", "short", "asked", "failing"]
    assert found["web"].error is None
    assert not set(found["web"].pids) & set(before)
    assert "has failed: it raised services.acting.Odd" in found["failing"].error
    assert place.supervisor.status("actor")[0].state is ServiceState.STOPPED
    place.supervisor.change("start", "actor")


def test_a_reload_goes_on_when_nobody_waits_for_it_any_more(place):
    status = place.manager.add(Leisurely(id="leisurely"), ServiceOptions(instances=2))
    status.started.get(timeout=PATIENCE)
    before = set(status.pids)
    (found,) = place.supervisor.change("reload", "leisurely", timeout=0.05)
    assert "takes longer, and goes on" in found.error
    assert found.late
    wait_until(lambda: len(status.pids) == 2 and not before & set(status.pids))
    place.manager.remove("leisurely")


def test_who_need_not_wait_does_not(place, tmp_path):
    gate = tmp_path / "gate"
    place.manager.add(acting.Slow(id="slow", gate=str(gate)))
    (found,) = place.supervisor.change("restart", "slow", wait=False)
    assert found.state is not ServiceState.RUNNING
    (late,) = place.supervisor.change("start", "slow", timeout=0.2)
    assert late.error.startswith("service 'slow' has not started within")
    gate.touch()
    (found,) = place.supervisor.change("start", "slow")
    assert (found.state, found.error) == (ServiceState.RUNNING, None)
    gate.unlink()
    (late,) = place.supervisor.change("reload", "slow", timeout=0.2)
    assert late.error == "the reload of service 'slow' takes longer, and goes on"
    assert late.state is ServiceState.RUNNING
    gate.touch()
    place.manager.remove("slow")


# --- nonsense


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (b"hello\n", "malformed"),
        (b"\xff\xfe\x00\n", "cannot be read"),
        (b"[]\n", "Expected `object`"),
        (b'{"do":"dance"}\n', "Invalid enum value 'dance'"),
        (b'{"do":"status","shell":"rm"}\n', "unknown field `shell`"),
        (b'{"do":"call"}\n', "takes the id of a service"),
        (b'{"do":"call","service":"actor","method":"__init__"}\n', "no remote method"),
        (b'{"do":"status","timeout":"long"}\n', "Expected `float`"),
        (b'{"a":' * 20_000 + b"\n", "cannot be read"),
    ],
)
def test_nonsense_is_answered_with_an_error(place, words, error):
    answer = json.loads(place.say(words))
    assert error in answer["error"]["message"]


@pytest.mark.parametrize("words", [b"", b'{"do":"sta'])
def test_who_leaves_before_all_is_said_is_no_harm(place, words):
    assert place.say(words) == b""
    assert place.supervisor.status()


def test_a_line_without_end_is_cut_off(place):
    with contextlib.suppress(ConnectionError):
        place.say(b"x" * 17 * 2**20, shut=False)
    assert place.supervisor.status()


# --- privacy


def test_the_socket_and_its_directory_are_for_their_owner_alone(place):
    assert stat.S_IMODE(place.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(place.path.parent.stat().st_mode) == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_another_user_is_not_listened_to(tmp_path_factory):
    # Given a socket that somebody has opened to all by mistake,
    folder = Path(f"/tmp/{tmp_path_factory.mktemp('open').name}-{os.getpid()}")
    path = folder / "services.sock"
    ask = (
        "import os, socket, sys\n"
        "os.setuid(65534)\n"
        "client = socket.socket(socket.AF_UNIX)\n"
        "client.connect(sys.argv[1])\n"
        """client.sendall(b'{"do":"status"}\\n')\n"""
        "print(client.makefile().read())\n"
    )
    try:
        with ServiceManager() as manager, Control(manager, path, "a test"):
            folder.chmod(0o755)
            path.chmod(0o666)
            # if another user asks, then nothing is told but why.
            done = gevent.get_hub().threadpool.apply(
                subprocess.run,
                ([sys.executable, "-c", ask, str(path)],),
                {"cwd": "/", "capture_output": True, "text": True, "timeout": PATIENCE},
            )
    finally:
        folder.rmdir()
    assert "only that user may talk to them" in json.loads(done.stdout)["error"]["message"]


def test_a_directory_that_others_may_write_is_refused(tmp_path):
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    rendezvous = Rendezvous(folder / "services.sock")
    for use in (rendezvous.connect, lambda: rendezvous.listen("a test")):
        with pytest.raises(ConfigurationError, match=r"open will not do .*others may write in it"):
            use()
    assert list(folder.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_another_user_is_refused(tmp_path):
    folder = tmp_path / "theirs"
    folder.mkdir(mode=0o700)
    os.chown(folder, 65534, 65534)
    with pytest.raises(ConfigurationError, match=r"theirs will not do .*it belongs to"):
        Rendezvous(folder / "services.sock").connect()


# --- who has it


def test_one_place_has_one_supervisor(tmp_path):
    path = tmp_path / "services.sock"
    manager = ServiceManager()
    with Control(manager, path, "the first one"):
        second = Control(manager, path, "the second one")
        words = rf"is taken by process {os.getpid()}, the first one: end it, or name another"
        with pytest.raises(RendezvousTaken, match=words):
            second.start()
        second.stop()
        assert Supervisor(Rendezvous(path)).status() == []  # the first one is as it was
    assert list(tmp_path.iterdir()) == []
    with second:
        assert Supervisor(Rendezvous(path)).status() == []
    with pytest.raises(Nobody, match="nobody listens at"):
        Supervisor(Rendezvous(path)).status()


def test_who_lets_too_many_wait_is_said_to_be_busy(tmp_path):
    rendezvous = Rendezvous(tmp_path / "a" / "services.sock")
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.closing(rendezvous.listen("somebody who is stopped")))
        stack.callback(rendezvous.leave)

        def come():
            while True:
                stack.enter_context(contextlib.closing(rendezvous.connect()))

        with gevent.Timeout(PATIENCE), pytest.raises(ServerUnavailable, match="too busy to answer"):
            come()
        # all the same, somebody is there
        assert [each.path for each in found_in(tmp_path / "a", "services")] == [rendezvous.path]


def test_clients_that_trickle_shut_nobody_out(tmp_path):
    path = tmp_path / "services.sock"
    with contextlib.ExitStack() as stack:
        serving = stack.enter_context(Control(ServiceManager(), path, "a test"))
        for _ in range(100):
            slow = stack.enter_context(contextlib.closing(gevent.socket.socket(socket.AF_UNIX)))
            slow.connect(str(path))
            slow.sendall(b'{"do":')
            gevent.sleep(0)
        with gevent.Timeout(PATIENCE):
            assert Supervisor(Rendezvous(path)).status() == []
        wait_until(lambda: serving.busy < 100)


def test_a_request_must_come_in_time_as_a_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(control, "_ASKING", 0.3)
    path = tmp_path / "services.sock"
    with Control(ServiceManager(), path, "a test"):
        slow = gevent.socket.socket(socket.AF_UNIX)
        slow.settimeout(PATIENCE)
        slow.connect(str(path))

        def trickle():
            with contextlib.suppress(OSError):
                while True:
                    slow.sendall(b" ")
                    gevent.sleep(0.05)

        trickling = gevent.spawn(trickle)
        assert slow.recv(1) == b"", "it is given up although bytes come all the time"
        trickling.kill()
        slow.close()


def test_what_a_killed_one_has_left_is_replaced(tmp_path):
    path = tmp_path / "services.sock"
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as stale:
        stale.bind(str(path))
    (tmp_path / "services.sock.lock").write_text("process 1, which is gone")
    with Control(ServiceManager(), path, "a test"):
        assert Supervisor(Rendezvous(path)).status() == []
    assert list(tmp_path.iterdir()) == []


def test_many_that_begin_at_once_are_one_in_the_end(tmp_path):
    path = tmp_path / "services.sock"
    controls = [Control(ServiceManager(), path, f"number {at}") for at in range(10)]
    for _ in range(5):
        started = []
        for each in controls:
            with contextlib.suppress(RendezvousTaken):
                started.append(each.start())
        assert len(started) == 1
        started[0].stop()


def test_the_path_may_be_longer_than_a_sockets_can_be(tmp_path):
    folder = tmp_path / ("d" * 100) / ("e" * 100)
    path = folder / "services.sock"
    with Control(ServiceManager(), path, "a test"):
        assert Supervisor(Rendezvous(path)).status() == []
    with pytest.raises(ConfigurationError, match="too long: it may have 64 bytes"):
        Rendezvous(tmp_path / ("s" * 65))


def test_who_ends_before_it_answers_is_told(place, tmp_path):
    path = tmp_path / "services.sock"
    control = Control(place.manager, path, "a test").start()
    asking = gevent.spawn(Supervisor(Rendezvous(path)).call, "actor", "nap", (30,))
    wait_until(lambda: control.busy)
    control.stop()
    with pytest.raises(Nobody, match="ended before it answered"):
        asking.get(timeout=PATIENCE)


def test_all_errors_are_gtaskmans_own():
    for kind in (Nobody, RendezvousTaken):
        assert issubclass(kind, GTaskmanError)
