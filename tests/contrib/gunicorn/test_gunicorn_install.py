"""The line in ``gunicorn.conf.py``, and the joining of hooks, without a server."""

from __future__ import annotations

import fcntl
import inspect
import os
import sys
import tempfile
import threading
from pathlib import Path

import msgspec
import pytest

import gtaskman
from gtaskman.contrib.gunicorn import hooks, install, places
from gtaskman.contrib.gunicorn.generation import Generation, Settings

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    ("given", "words", "field"),
    [
        ({"mode": "shared"}, "mode must be one of embedded, host, not 'shared'", "mode"),
        ({"max_proceses": 2}, "did you mean 'max_processes'", "max_proceses"),
        ({"max_processes": 0}, "max_processes must be at least 1", "max_processes"),
        ({"queue": "memory://"}, "queue has no meaning in the mode 'embedded'", "queue"),
        ({"directory": "/run"}, "directory has no meaning in the mode 'embedded'", "directory"),
        ({"mode": "host", "start": True}, "start has no meaning in the mode 'host'", "start"),
        ({"mode": "host", "queue": "memroy://"}, "memroy", None),
    ],
)
def test_a_mistake_is_told_at_once(given, words, field):
    namespace = {}
    with pytest.raises(gtaskman.ConfigurationError, match=words) as caught:
        install(namespace, **given)
    if field is not None:
        assert caught.value.field == field
    assert namespace == {}


def test_it_wants_the_globals():
    with pytest.raises(gtaskman.ConfigurationError, match=r"install takes the globals\(\)"):
        install("embedded")


@pytest.mark.parametrize("mode", ["embedded", "host"])
def test_twice_is_once_too_often(mode):
    namespace = {}
    install(namespace, mode)
    before = dict(namespace)
    with pytest.raises(gtaskman.ConfigurationError, match="already"):
        install(namespace)
    assert namespace == before


@pytest.mark.parametrize(
    ("hook", "words"), [("no.such.module.hook", "No module named"), (5, "not something to call")]
)
def test_a_hook_that_is_none_is_told(hook, words):
    with pytest.raises(gtaskman.ConfigurationError, match=words) as caught:
        install({"pre_fork": hook})
    assert caught.value.field == "pre_fork"


class Setting:
    """As much of gunicorn's configuration as holds hooks."""

    def __init__(self, **given):
        self.__dict__.update(given)

    def set(self, name, value):
        setattr(self, name, value)

    def __getattr__(self, name):
        return lambda *given: None


class Server:
    def __init__(self, cfg):
        self.cfg = cfg


class Ours(hooks.Hooks):
    def __init__(self, calls):
        self.calls = calls

    def post_worker_init(self, worker):  # noqa: ARG002 - a hook's signature
        self.calls.append("ours")

    def worker_exit(self, server, worker):  # noqa: ARG002 - as above
        self.calls.append("ours")


@pytest.mark.parametrize(
    ("name", "arguments", "order"),
    [("post_worker_init", 1, ["ours", "theirs"]), ("worker_exit", 2, ["theirs", "ours"])],
)
@pytest.mark.parametrize("fails", [False, True])
def test_both_hooks_are_called_whatever_the_first_one_does(name, arguments, order, fails):
    calls, namespace = [], {}

    def theirs(*given):
        calls.append("theirs")
        if fails:
            raise KeyError(name)

    hooks.install(namespace, Ours(calls))
    server = Server(Setting(**{**namespace, name: theirs}))
    server.cfg.nworkers_changed(server, 1, None)
    server.cfg.pre_fork(server, None)  # and does nothing more
    joined = getattr(server.cfg, name)

    assert len(inspect.signature(joined).parameters) == arguments
    if fails:
        with pytest.raises(KeyError):
            joined(*range(arguments))
    else:
        joined(*range(arguments))
    assert calls == order


LATE = ("nworkers_changed", "on_starting", "pre_fork", "when_ready", "post_fork")


@pytest.mark.parametrize("count", range(len(LATE) + 1))
def test_a_file_may_define_hooks_after_the_line(count):
    """However many of the early ones it replaces: the first that is left joins the rest."""
    calls, namespace = [], {}

    class All(Ours):
        def when_ready(self, server):  # noqa: ARG002 - a hook's signature
            self.calls.append("when_ready")

        def post_fork(self, server, worker):  # noqa: ARG002 - as above
            self.calls.append("post_fork")

    hooks.install(namespace, All(calls))
    later = {name: lambda *given: None for name in (*LATE[:count], "worker_exit")}
    server = Server(Setting(**{**namespace, **later}))
    cfg = server.cfg
    cfg.nworkers_changed(server, 1, None)
    cfg.on_starting(server)
    cfg.when_ready(server)
    cfg.pre_fork(server, server)
    cfg.post_fork(server, server)
    cfg.post_worker_init(server)
    cfg.worker_exit(server, server)
    missed = {4: ["when_ready"], 5: ["when_ready", "post_fork"]}.get(count, [])
    wanted = ["when_ready", "post_fork", "ours", "ours"]
    assert calls == [name for name in wanted if name not in missed]


def test_host_mode_says_so_if_its_hooks_were_replaced(monkeypatch):
    namespace = {}
    install(namespace, "host")
    monkeypatch.setattr("gtaskman.contrib.gunicorn.host._generations", [])
    server = Server(Setting(**namespace))
    with pytest.raises(gtaskman.ConfigurationError, match="move the line to the end"):
        server.cfg.post_fork(server, server)


# --- the directory and the program of a manager


@pytest.fixture
def base():
    with tempfile.TemporaryDirectory(prefix="g", dir="/tmp") as directory:
        yield directory


def made(base):
    return Generation(base, os.geteuid(), os.getegid())


def test_what_a_killed_server_left_is_removed_by_the_next_one(base):
    left = made(base)
    os.mkdir(os.path.join(base, "gtaskman-other"))  # not one of these
    left.forget()  # as the end of the last process of it does
    lock = places.open_directory(left.directory)
    fcntl.flock(lock, fcntl.LOCK_EX)
    used = made(base)
    assert os.path.exists(left.directory), "a manager lives in it"
    os.close(lock)
    third = made(base)
    assert not os.path.exists(left.directory)
    assert os.path.exists(used.directory)
    assert os.path.exists(os.path.join(base, "gtaskman-other"))
    for each in (used, third):
        each.forget()


def test_a_fork_of_a_worker_keeps_no_manager_alive(base):
    generation = made(base)
    generation.enter()
    fds = [*generation._lifeline, generation._used]
    pid = os.fork()
    if pid == 0:
        closed = [not os.path.exists(f"/proc/self/fd/{fd}") for fd in fds]
        os._exit(0 if all(closed) else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert all(os.path.exists(f"/proc/self/fd/{fd}") for fd in fds)
    generation.forget()


def test_the_settings_are_no_argument_that_every_user_can_read(base, monkeypatch):
    started = []

    def start(code, fds):
        started.append((code, os.read(fds[2], 100_000)))
        return os.posix_spawn("/bin/true", ["true"], {})

    monkeypatch.setattr("gtaskman.contrib.gunicorn.generation.exec_python", start)
    monkeypatch.setattr(sys, "path", [*sys.path, Path("/no/text")])
    generation = made(base)
    settings = Settings(generation.directory, "redis://:s3cret@h", ("app",), {}, 20)
    generation._await_turn(settings)
    ((code, told),) = started
    assert "s3cret" not in code
    assert msgspec.json.decode(told, type=Settings).queue == settings.queue
    compile(code, "program", "exec")
    assert "PosixPath" not in code
    generation.forget()


def test_a_manager_that_cannot_be_started_is_tried_again(base, monkeypatch):
    outcomes = [OSError(24, "Too many open files")] * 3
    told, started = [], threading.Event()

    def start(code, fds):
        if outcomes:
            raise outcomes.pop()
        started.set()
        generation.remove()
        return os.posix_spawn("/bin/true", ["true"], {})

    monkeypatch.setattr("gtaskman.contrib.gunicorn.generation.exec_python", start)
    generation = made(base)
    generation._watch(Settings(generation.directory, "memory://", (), {}, 20), told.append)
    assert started.is_set()
    assert len(told) == 2, told
    assert "Too many open files" in told[0]
    assert "was removed" in told[1]
    generation.forget()


def test_the_early_hooks_take_what_gunicorn_gives():
    namespace = {}
    install(namespace)
    wanted = {"nworkers_changed": 3, "on_starting": 1, "pre_fork": 2}
    assert {name: len(inspect.signature(namespace[name]).parameters) for name in wanted} == wanted
