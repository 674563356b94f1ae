"""The line in ``gunicorn.conf.py``, and the joining of hooks, without a server."""

from __future__ import annotations

import inspect

import pytest

import gtaskman
from gtaskman.contrib.gunicorn import hooks, install

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
    server = Server(Setting(**namespace, **{name: theirs}))
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


def test_the_early_hooks_take_what_gunicorn_gives():
    namespace = {}
    install(namespace)
    wanted = {"nworkers_changed": 3, "on_starting": 1, "pre_fork": 2}
    assert {name: len(inspect.signature(namespace[name]).parameters) for name in wanted} == wanted
