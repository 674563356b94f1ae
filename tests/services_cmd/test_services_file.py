"""Files of services: what they may say, and what is said of a mistake."""

from __future__ import annotations

import pytest
from services import acting

from gtaskman import Backoff, Configuration, RestartPolicy, ServiceOptions
from gtaskman.services.file import ServiceFileError, TargetError, find, read

pytestmark = pytest.mark.quick

FULL = """
[manager]
start_method = "spawn"
preload = ["json", "csv"]

[services.web]
task = "services.acting:Web"
restart = "on-failure"
instances = 2
start_timeout = 7
backoff = { first = 0.5, maximum = 8 }
max_restarts = 3
sockets = { http = ["127.0.0.1", 0], unix = "web.sock" }
[services.web.options]
greeting = "Hello"
pause = 1

[services.actor]
task = "services.acting:Actor"
backoff = 0.25
health = "whoami"
"""


@pytest.fixture
def said(tmp_path):
    """Writes a file; gives its path."""

    def write(text: str, name: str = "system.toml"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def test_a_file_says_all_that_a_program_could(said):
    plan = read(said(FULL))

    assert plan.config == Configuration(start_method="spawn", preload=("json", "csv"))
    assert list(plan.services) == ["web", "actor"]
    web, actor = plan.services.values()
    assert web.options == ServiceOptions(
        restart=RestartPolicy.ON_FAILURE,
        instances=2,
        start_timeout=7.0,
        backoff=Backoff(first=0.5, maximum=8.0),
        max_restarts=3,
        sockets={"http": ("127.0.0.1", 0), "unix": "web.sock"},
    )
    assert (type(web.task), web.task.id) == (acting.Web, "web")
    assert (web.task.greeting, web.task.pause) == ("Hello", 1.0)
    assert actor.options == ServiceOptions(backoff=0.25, health="whoami")
    assert (type(actor.task), actor.task.factor) == (acting.Actor, 2)
    assert [task.id for task in plan.manager().tasks()] == ["web", "actor"]


def test_a_plan_knows_what_has_changed(said):
    manager = read(said(FULL)).manager()
    for old, new in [
        ('greeting = "Hello"', 'greeting = "Bye"'),
        ("instances = 2", "instances = 3"),
        ("acting:Web", "acting:Actor"),
    ]:
        text = FULL.replace(old, new)
        if "acting:Web" not in text:
            text = text.replace('greeting = "Hello"\npause = 1', "")
        plan = read(said(text))
        assert [name for name in plan.services if not plan.is_kept(name, manager)] == ["web"]
    more = read(said(FULL + '[services.more]\ntask = "services.acting:Actor"\n'))
    assert [name for name in more.services if not more.is_kept(name, manager)] == ["more"]


def test_modules_are_found_beside_the_file(said):
    said("import gtaskman\nclass Here(gtaskman.ServiceTask):\n  def run(self, p): ...", "beside.py")
    (entry,) = read(said('[services.a]\ntask = "beside:Here"')).services.values()
    assert entry.task.definition.name == "beside.Here"


ACTOR = '[services.a]\ntask = "services.acting:Actor"\n'
WEB = '[services.a]\ntask = "services.acting:Web"\n'
MISTAKES = {
    "no TOML": ("a = 1\nb = ?", None, "it is no TOML: .*line 2"),
    "nothing": ("", "services", "describe one in .services.ID."),
    "another table": (
        "[service.a]\n" + ACTOR,
        "service",
        "no such key; did you mean 'services'",
    ),
    "no table": ("services = 3", "services", r"takes a table, \[services\], not 3"),
    "a service that is none": ("[services]\na = 3", "services.a", "takes a table"),
    "no task": ("[services.a]\ninstances = 2", "services.a.task", "name of a class, such as"),
    "a task that is no name": (
        '[services.a]\ntask = "acting.py"',
        "services.a.task",
        "write module:name",
    ),
    "a module that is not there": (
        '[services.a]\ntask = "nowhere:Web"',
        "services.a.task",
        "the module 'nowhere' cannot be imported: ModuleNotFoundError",
    ),
    "a class that is not there": (
        '[services.a]\ntask = "services.acting:Nothing"',
        "services.a.task",
        "the module 'services.acting' has no 'Nothing'",
    ),
    "a class of another kind": (
        '[services.a]\ntask = "services.acting:Odd"',
        "services.a.task",
        "no class derived from gtaskman.ServiceTask",
    ),
    "an option that there is not": (
        ACTOR + "instance = 2",
        "services.a.instance",
        "did you mean 'instances'",
    ),
    "an option out of range": (
        ACTOR + "instances = 0",
        "services.a.instances",
        "must be at least 1, not 0",
    ),
    "an option of the wrong type": (
        ACTOR + 'start_timeout = "soon"',
        "services.a.start_timeout",
        "Expected `float`",
    ),
    "a policy that there is not": (
        ACTOR + 'restart = "often"',
        "services.a.restart",
        "one of 'always', 'on-failure', 'never'",
    ),
    "a socket that is none": (
        ACTOR + "sockets = { http = 8000 }",
        "services.a.sockets",
        "takes a host and a port",
    ),
    "a back-off that is none": (
        ACTOR + "backoff = { first = -1 }",
        "services.a.backoff",
        "first takes a number from 0",
    ),
    "a back-off with a key too many": (
        ACTOR + "backoff = { fist = 1 }",
        "services.a.backoff.fist",
        "did you mean 'first'",
    ),
    "a health check that is no method": (
        ACTOR + 'health = "secret"',
        "services.a.health",
        "has no such remote method; it has: .*whoami",
    ),
    "a field that is missing": (WEB, "services.a.options.greeting", "greeting"),
    "a field that there is not": (
        WEB + "[services.a.options]\ngreeting='x'\ncolour='red'",
        "services.a.options.colour",
        "colour",
    ),
    "a field of the wrong type": (
        WEB + "[services.a.options]\ngreeting=3",
        "services.a.options.greeting",
        "Expected `str`",
    ),
    "a second id": (
        ACTOR + "[services.a.options]\nid='b'",
        "services.a.options.id",
        "the id of this service is 'a' already",
    ),
    "a setting that there is not": (
        "[manager]\nstart = 'spawn'\n" + ACTOR,
        "manager.start",
        "no such key",
    ),
    "a setting of the wrong value": (
        "[manager]\nstart_method = 'magic'\n" + ACTOR,
        "manager.start_method",
        "one of zygote, spawn, fork",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_with_the_file_the_key_and_the_mend(said, mistake):
    text, key, mend = MISTAKES[mistake]
    path = said(text)
    with pytest.raises(ServiceFileError, match=mend) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: {f'{key}: ' if key else ''}")
    assert (caught.value.file, caught.value.field) == (path, key)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ServiceFileError, match=r"nothing\.toml: No such file"):
        read(tmp_path / "nothing.toml")


def test_a_module_that_fails_is_told_with_the_place(said):
    said("def boom():\n  raise LookupError('lost')\nboom()\n", "failing.py")
    with pytest.raises(ServiceFileError, match=r"LookupError: lost \(.*failing\.py:2\)"):
        read(said('[services.a]\ntask = "failing:Web"'))


@pytest.mark.parametrize("target", ["json", "json:", "json.dumps", "a b:c", "./x.py:c", ":c"])
def test_what_is_no_name_of_something_in_a_module_is_refused(target):
    with pytest.raises(TargetError, match="write module:name"):
        find(target)


def test_what_is_named_is_found():
    assert find("services.acting:Actor.times") is acting.Actor.times
