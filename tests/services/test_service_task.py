"""How a service is written, as far as it needs no process."""

from __future__ import annotations

import subprocess
import sys

import pytest
from services import acting

import gtaskman
from gtaskman import ServiceError, TaskDefinitionError, TaskOptionError
from gtaskman.services.task import remotes

pytestmark = pytest.mark.quick


def test_its_options_are_checked_like_those_of_any_task():
    assert acting.Short(how="returns").after == 0.0
    with pytest.raises(TaskOptionError, match="'how'"):
        acting.Short()
    with pytest.raises(TaskOptionError, match="'after'"):
        acting.Short(how="returns", after="later")
    with pytest.raises(TaskOptionError, match="no option 'when'"):
        acting.Short(how="returns", when=1)


@pytest.mark.parametrize("name", ["stop", "ready", "emit", "sockets", "instance", "parent", "run"])
def test_an_option_may_not_hide_what_every_service_has(name):
    with pytest.raises(TaskDefinitionError, match=f"Hiding: {name!r} cannot be an option"):
        type("Hiding", (gtaskman.ServiceTask,), {"__annotations__": {name: int}})


@pytest.mark.parametrize("option", [{"timeout": 5}, {"retries": 1}, {"delay": 1}, {"queue": "q"}])
def test_it_has_no_limits_of_a_task(option):
    with pytest.raises(TaskDefinitionError, match="ServiceOptions"):
        type("Limited", (gtaskman.ServiceTask,), {}, **option)
    with pytest.raises(TaskDefinitionError, match="ServiceOptions"):
        acting.Actor().with_options(**option)


def test_what_may_be_called_is_marked():
    assert {"echo", "times"} <= remotes(acting.Actor)
    assert remotes(acting.Actor, parent=True) == {"note", "refuse"}
    assert "secret" not in remotes(acting.Actor)


def test_marks_are_inherited():
    class Heir(acting.Actor):
        @gtaskman.services.remote
        def more(self):
            pass

        def echo(self, value):  # overridden, and not marked again
            return value

    assert "more" in remotes(Heir)
    assert "times" in remotes(Heir)
    assert "echo" not in remotes(Heir)


@pytest.mark.parametrize("wrong", [property(lambda self: 1), 5, acting.Actor])
def test_only_methods_are_marked(wrong):
    with pytest.raises(TaskDefinitionError, match="@remote takes a plain method"):
        gtaskman.services.remote(wrong)


@pytest.mark.parametrize("name", ["call", "call_all"])
def test_a_remote_method_may_not_hide_how_others_are_called(name):
    method = gtaskman.services.remote(lambda self: None)
    with pytest.raises(TaskDefinitionError, match=repr(name)):
        type("Hiding", (gtaskman.ServiceTask,), {name: method})


def test_called_directly_it_is_a_plain_object():
    service = acting.Short(how="returns")
    assert service() is None
    assert service.instance == 0
    service.ready()
    service.emit("anything", 1)
    service.stop()
    assert acting.Actor(factor=3).times(5) == 15
    for what in ("sockets", "parent"):
        with pytest.raises(ServiceError, match=what):
            getattr(service, what)


def test_no_pool_takes_it(manager):
    with pytest.raises(TaskDefinitionError, match="ServiceManager"):
        manager.submit(acting.Actor())


def test_whoever_only_defines_services_does_not_load_what_manages_them():
    script = (
        "import gtaskman, sys\n"
        "class Web(gtaskman.ServiceTask):\n"
        "    port: int\n"
        "    @gtaskman.remote\n"
        "    def f(self): pass\n"
        "Web(port=1), gtaskman.ServiceOptions(), gtaskman.RestartPolicy.NEVER\n"
        "print(*sorted(each for each in sys.modules if each.startswith('gtaskman')))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    loaded = ran.stdout.split()
    assert "gtaskman.services.task" in loaded
    rooms = ("services.manager", "services.inside", "pool", "manager", "wire", "child", "handle")
    assert [each for each in loaded if each.startswith(tuple(f"gtaskman.{r}" for r in rooms))] == []
