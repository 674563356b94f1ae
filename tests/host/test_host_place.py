"""The path where a manager listens: private, for one manager at a time, left as it was found."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from scenarios import tasks
from worlds import PATIENCE, TESTS

import gtaskman
from gtaskman.errors import AccessRefused, BindError, ConfigurationError
from gtaskman.host import HostServer, connection
from gtaskman.host.address import LONGEST, SocketAddress
from gtaskman.host.peers import Peer, admit, uid_of

NOBODY = 65534
CONFIG = gtaskman.Configuration(max_processes=1)


def serve(path, **options):
    return HostServer(gtaskman.TaskManager(config=CONFIG), path, **options)


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


# --- addresses


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("unix:///run/app/m.sock", "/run/app/m.sock"),
        ("unix:/run/app/m.sock", "/run/app/m.sock"),
        ("UNIX:///run/app%20one/m.sock", "/run/app one/m.sock"),
        ("unix:m.sock", os.path.join(os.getcwd(), "m.sock")),
        ("unix:///run//app/../m.sock", "/run/m.sock"),
    ],
)
def test_a_url_names_a_path(url, path):
    address = SocketAddress.parse(url)
    assert address.path == path
    assert SocketAddress.parse(str(address).replace(" ", "%20")) == address


@pytest.mark.parametrize(
    "url",
    ["unix:", "unix:///", "unix://run/app.sock", "unix:///a?x=1", "unix:///a#b", "unix:///a/",
     "unix:///%00", "unix:///" + "x" * LONGEST],
)  # fmt: skip
def test_what_is_no_path_is_refused_and_the_right_form_is_shown(url):
    with pytest.raises(ConfigurationError, match=r"unix:///run/app/gtaskman\.sock|has more"):
        gtaskman.Client(url)


def test_what_is_for_servers_alone_is_refused():
    with pytest.raises(ConfigurationError, match="namespace"):
        gtaskman.Client("unix:///x", namespace="shop")


# --- the directory and the socket


def test_the_directory_and_the_socket_are_ours_alone(site, no_leaks):
    with serve(site.path) as server:
        assert mode(site.path.parent) == 0o700
        assert mode(site.path) == 0o600
        assert mode(f"{site.path}.lock") == 0o600
        assert server.url == site.url
        assert site.client().submit(tasks.double, 4).get(PATIENCE) == 8
    assert not site.path.exists()


def test_a_directory_that_others_may_write_is_refused(site):
    site.path.parent.mkdir()
    site.path.parent.chmod(0o770)
    with pytest.raises(BindError, match=r"others may write.*chmod go-w"):
        serve(site.path).start()
    site.path.parent.chmod(0o755)
    with serve(site.path):
        assert site.path.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_somebody_else_is_refused(site):
    site.path.parent.mkdir()
    os.chown(site.path.parent, NOBODY, NOBODY)
    with pytest.raises(BindError, match=f"belongs to user {NOBODY}"):
        serve(site.path).start()


def test_a_directory_that_cannot_be_had(site):
    (site.directory / "app").write_text("a file")
    with pytest.raises(BindError, match="cannot be had"):
        serve(site.path).start()


def test_two_managers_never_have_one_path(site):
    with serve(site.path):
        with pytest.raises(BindError, match=f"taken by process {os.getpid()}"):
            serve(site.path).start()
        assert site.client().submit(tasks.double, 4).get(PATIENCE) == 8
    with serve(site.path):
        pass


def test_what_a_dead_manager_left_is_in_nobodys_way(site):
    site.path.parent.mkdir(mode=0o700)
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(site.path))
    stale.close()
    (site.path.parent / "manager.sock.lock").write_text("process 1\n")
    with serve(site.path):
        assert site.client().submit(tasks.double, 4).get(PATIENCE) == 8


def test_a_manager_that_was_not_started_or_stopped_before_stops(site):
    server = serve(site.path)
    server.stop()
    again = serve(site.path)
    again.start()
    again.start()
    again.stop()
    again.stop()
    assert not site.path.exists()


def test_a_manager_on_a_thread_of_its_own(site, no_leaks):
    config = gtaskman.Configuration(max_processes=1, background=True)
    server = HostServer(gtaskman.TaskManager(config=config), site.path).start()
    try:
        with gtaskman.Client(site.url, patience=PATIENCE) as client:
            assert client.submit(tasks.double, 4).get(PATIENCE) == 8
    finally:
        server.stop()
    assert not site.path.exists()


# --- who may come


def test_only_our_user_and_those_that_are_allowed(monkeypatch):
    ours = os.geteuid()
    admit(Peer(1, ours, 0), frozenset())
    admit(Peer(1, ours + 1, 0), {ours + 1})
    with pytest.raises(AccessRefused, match=f"runs as user {ours + 1}.*serves user {ours}"):
        admit(Peer(1, ours + 1, 0), frozenset())
    with pytest.raises(AccessRefused, match="--allow"):
        admit(Peer(1, ours + 1, 0), {ours + 2})
    assert (uid_of("0"), uid_of(7), uid_of("root")) == (0, 7, 0)
    with pytest.raises(ConfigurationError, match="no user 'nobody knows'"):
        uid_of("nobody knows")


def test_the_overflow_user_of_another_namespace_is_a_stranger(monkeypatch):
    """The kernel shows everybody of another user namespace as that user."""
    overflow = int(Path("/proc/sys/kernel/overflowuid").read_text())
    monkeypatch.setattr(os, "geteuid", lambda: overflow)
    assert Peer(os.getpid(), overflow, 0).is_us, "of this namespace"
    assert not Peer(0, overflow, 0).is_us, "its pid is not of this namespace either"


@pytest.mark.parametrize(
    ("uid", "owner", "mode", "trusted"),
    [
        ("us", "other", 0o1777, True),
        ("root", "other", 0o777, True),
        ("other", "other", 0o755, True),
        ("other", "us", 0o755, True),
        ("other", "root", 0o1777, False),
        ("other", "root", 0o775, False),
        ("other", "third", 0o755, False),
    ],
)
def test_a_listener_of_another_user_is_trusted_by_its_directory(
    monkeypatch, uid, owner, mode, trusted
):
    users = {"us": 1000, "root": 0, "other": 1001, "third": 1002}
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    found = os.stat_result((mode, 0, 0, 0, users[owner], 0, 0, 0, 0, 0))
    monkeypatch.setattr(os, "stat", lambda path: found)
    peer = Peer(1, users[uid], 0)
    address = SocketAddress.of("/run/x/gtaskman.sock")
    if trusted:
        connection._check_listener(address, peer)
    else:
        with pytest.raises(gtaskman.ConfigurationError, match="user 1001 listens"):
            connection._check_listener(address, peer)


def test_others_can_be_allowed_only_if_they_can_come(site):
    with pytest.raises(ConfigurationError, match="group="):
        serve(site.path, allow=["root"])
    with pytest.raises(BindError, match="no group"):
        serve(site.path, allow=["root"], group="nobody knows")


# Everything is imported before: another user may not be allowed to read it.
STRANGER = """
import os, sys
import cloudpickle, gevent.hub, gtaskman, gtaskman.host.client
from scenarios import tasks, work
gevent.get_hub()
os.setgroups([]); os.setgid({gid}); os.setuid({uid})
client = gtaskman.Client(sys.argv[1], patience=5)
try:
    print(client.submit(tasks.double, 21).get(20))
    print(client.send("scenarios.work.add", a=1, b=2).get(20))
    for what, argument in ((print, 1), (work.echo, {{1: object()}})):
        try:
            print(client.submit(what, argument).get(20))
        except gtaskman.GTaskmanError as error:
            print(type(error).__name__)
    print(client.report(sys.argv[2]).result)
except gtaskman.GTaskmanError as error:
    print(type(error).__name__, error)
"""


def stranger(site, task_id):
    """What a process of another user comes to."""
    path = os.pathsep.join([str(TESTS / "process"), str(TESTS), str(TESTS.parent)])
    done = subprocess.run(
        [sys.executable, "-c", STRANGER.format(uid=NOBODY, gid=NOBODY), site.url, task_id],
        env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture
def reachable(site):
    """The site, whose directories others may enter."""
    site.directory.chmod(0o755)
    site.path.parent.mkdir(mode=0o755)
    with contextlib.suppress(FileNotFoundError):
        Path(site.path).unlink()
    return site


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_stranger_is_told_why_he_is_not_let_in(reachable):
    reachable.host(options={"mode": 0o666})
    (line,) = stranger(reachable, "x")
    assert line.startswith("AccessRefused")
    assert f"runs as user {NOBODY}" in line
    assert "--allow" in line


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_who_is_allowed_calls_tasks_by_their_names(reachable):
    reachable.host(options={"allow": [NOBODY], "mode": 0o666})
    mine = reachable.client().submit(tasks.double, 5)
    assert mine.get(PATIENCE) == 10
    expected = ["42", "3", "TaskTravelError", "PayloadError", "None"]
    assert stranger(reachable, mine.id) == expected
