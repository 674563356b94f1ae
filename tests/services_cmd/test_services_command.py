"""``gtaskman services`` as an operator meets it: real processes, signals and HTTP."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import stat
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from worlds import PATIENCE, Program, alive, kill_hard, wait_until

GTASKMAN = [sys.executable, "-m", "gtaskman", "services"]
SYSTEM = """
[services.web]
task = "services.acting:Web"
instances = 2
sockets = { http = ["127.0.0.1", 0] }
[services.web.options]
greeting = "Hello"

[services.actor]
task = "services.acting:Actor"

[services.short]
task = "services.acting:Short"
restart = "never"
[services.short.options]
how = "raises"
"""
ACTOR = '[services.actor]\ntask = "services.acting:Actor"\n'
HERE = Path(__file__).resolve()
TESTS = HERE.parents[1]


class Place:
    """A directory, and supervisors whose sockets are in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.sockets = directory / "run" / "gtaskman"
        self.environment = {"XDG_RUNTIME_DIR": str(directory / "run")}
        self.write(SYSTEM)

    def write(self, text: str, name: str = "system.toml") -> Path:
        path = self.directory / name
        path.write_text(text)
        return path

    @contextlib.contextmanager
    def run(self, *words: str, ready: str = "listening for commands"):
        """``gtaskman services run`` with these words; afterwards nothing of it is left."""
        program = Program([*GTASKMAN, "run", *words], self.directory, self.environment)
        try:
            says(program, ready)
            yield program
        finally:
            program.kill()

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        """What a command says into pipes, and its exit code."""
        path = [str(self.directory), str(TESTS), str(TESTS.parent)]
        return subprocess.run(
            [*GTASKMAN, *words],
            cwd=self.directory,
            env={**os.environ, **self.environment, "PYTHONPATH": os.pathsep.join(path)},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )

    def ask(self, *words: str) -> str:
        """What a command says that ends well, and says nothing beside."""
        done = self.call(*words)
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout.removesuffix("\n")

    def read(self, *words: str):
        """The JSON that a command writes."""
        return json.loads(self.ask(*words, "--json"))

    def refused(self, code: int, *words: str) -> str:
        """What a command says, in one line, that ends with this code."""
        done = self.call(*words)
        assert (done.returncode, done.stdout) == (code, ""), done
        assert re.fullmatch(r"gtaskman: .+\n", done.stderr), done.stderr
        return done.stderr

    def up(self, name: str) -> list[int]:
        """The pids of a service, once it is up."""
        return self.read("start", name)[0]["pids"]


def says(program: Program, words: str, times: int = 1) -> None:
    """Wait until a program has said so."""

    def said() -> bool:
        assert program.processes(), program.story()
        return program.output.count(words) >= times

    wait_until(said, what=f"{words!r}\n{program.story()}")


def get(address: list) -> str:
    """What a web service answers."""
    with urllib.request.urlopen(f"http://{address[0]}:{address[1]}/", timeout=PATIENCE) as answer:
        return answer.read().decode()


def ends_well(program: Program) -> None:
    assert program.wait() == 0, program.story()
    program.assert_nothing_left()
    assert "Traceback" not in program.output.partition(": stopping")[2]


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


@pytest.fixture(scope="module", params=[(), ("--monkey",)], ids=["unpatched", "patched"])
def site(request, tmp_path_factory):
    """A supervisor at work, shared by the tests that leave it as it was."""
    shared = Place(tmp_path_factory.mktemp("site"))
    with shared.run(str(shared.directory / "system.toml"), *request.param) as shared.program:
        for name in ("web", "actor"):
            shared.up(name)
        says(shared.program, "service 'short' has failed")
        yield shared
        shared.program.signal(signal.SIGTERM)
        ends_well(shared.program)
        assert list(shared.sockets.iterdir()) == []


# --- how they stand


def test_status_shows_all_in_a_table(site):
    titles, *rows = site.ask("status").splitlines()
    assert titles.split("  ")[0] == "NAME"
    web, actor, short = rows
    assert re.match(r"web +running +\d+ \d+ +[\d.]+ \w+ +2 +127\.0\.0\.1:\d+$", web)
    assert re.match(r"actor +running +\d+ +[\d.]+ \w+ +1$", actor)
    assert re.match(r"short +failed +1 +it raised services\.acting\.Odd: \(3, 'by itself'\)", short)


def test_status_of_one_shows_all_that_is_known(site):
    web = site.ask("status", "web")
    assert re.search(r"^task +services\.acting\.Web$", web, re.M)
    assert re.search(r"^socket http +127\.0\.0\.1:\d+$", web, re.M)
    assert re.search(r"^instance 1 +running, process \d+, up ", web, re.M)
    failed = site.call("status", "short")
    assert failed.returncode == 1  # for scripts
    assert re.search(r"^ended [\d:]+ +process \d+: it raised", failed.stdout, re.M)
    assert 'raise Odd(3, "by itself")' in failed.stdout


def test_status_as_json_is_for_programs(site):
    web, actor, _ = site.read("status")
    assert (web["id"], web["state"], len(web["pids"])) == ("web", "running", 2)
    assert all(map(alive, [*web["pids"], *actor["pids"]]))
    assert get(web["sockets"]["http"]).startswith("Hello from ")


def test_what_happens_is_logged(site):
    said = site.program.output
    assert f"supervising 3 services of {site.directory / 'system.toml'}" in said
    assert re.search(r"INFO \d+ gtaskman\S+: service web \[1\]: ready, process \d+", said)
    assert re.search(r"service short: process \d+ has ended: it raised services\.acting\.Odd", said)


# --- calls


def test_call_writes_what_the_method_returns(site):
    assert site.ask("call", "actor", "times", "3", "again=5") == "30"
    assert site.ask("call", "actor", "echo", "who") == '"who"'
    assert site.ask("call", "actor", "echo", "--arg", "a=b") == '"a=b"'
    assert json.loads(site.ask("call", "actor", "echo", '{"a": [1, null]}')) == {"a": [1, None]}
    assert json.loads(site.ask("call", "actor", "whoami")) in site.read("status")[1]["pids"]


def test_a_call_goes_to_one_instance_or_to_each(site):
    called = ("call", "web", "set_greeting", "Good morning")
    assert json.loads(site.ask(*called)) is None
    assert json.loads(site.ask(*called, "--all-instances")) == [None, None]


def test_the_usage_says_that_a_name_may_be_left_out(site):
    for command in ("status", "start", "stop", "restart", "reload"):
        assert "[OPTIONS] [NAME]" in site.ask(command, "--help")


@pytest.mark.parametrize(
    ("code", "words", "told"),
    [
        (6, ("actor", "secret"), "no remote method 'secret' (it has: "),
        (6, ("nobody", "echo"), "no service has the id 'nobody' (there are: 'web', "),
        (5, ("actor", "nap", "30", "--timeout", "0.1"), "has not answered within 0.1 s"),
        (1, ("actor", "useless"), "what useless() of service 'actor' gave cannot travel: "),
    ],
)
def test_a_call_that_cannot_be_ends_with_one_line(site, code, words, told):
    assert told in site.refused(code, "call", *words)


def test_a_call_that_fails_shows_the_methods_traceback(site):
    done = site.call("call", "actor", "fail", "7")
    assert (done.returncode, done.stdout) == (1, "")
    first, *trace = done.stderr.splitlines()
    assert first.startswith("gtaskman: fail() of service 'actor': services.acting.Odd: ")
    assert '    raise Odd(code, "as asked")' in trace


# --- changes


def test_services_are_stopped_started_restarted_and_reloaded(site):
    (first,) = site.read("status", "actor")["pids"]
    assert re.search(r"^actor +stopped ", site.ask("stop", "actor"), re.M)
    assert not alive(first)
    assert "cannot be called: the service is stopped" in site.refused(1, "call", "actor", "whoami")
    ((second,),) = (each["pids"] for each in site.read("start", "actor"))
    ((third,),) = (each["pids"] for each in site.read("restart", "actor"))
    site.ask("reload", "actor")
    fourth = json.loads(site.ask("call", "actor", "whoami"))
    assert len({first, second, third, fourth}) == 4
    wait_until(lambda: not any(map(alive, (first, second, third))))


@pytest.mark.parametrize("do", ["start", "stop", "restart", "reload"])
def test_a_change_takes_a_name_or_all(site, do):
    for words in ((), ("web", "--all")):
        done = site.call(do, *words)
        assert done.returncode == 2
        assert f"which one? {do} takes the NAME of a service, or --all" in done.stderr


def test_a_change_that_fails_ends_with_1(place):
    place.write(ACTOR + '[services.slow]\ntask = "services.acting:Slow"\nrestart = "never"\n'
                f'[services.slow.options]\ngate = "{place.write("fail", "gate")}"')  # fmt: skip
    with place.run(str(place.directory / "system.toml")):
        done = place.call("restart", "--all")
        assert done.returncode == 1
        assert re.search(r"^actor +running ", done.stdout, re.M)
        assert re.search(r"^slow +failed ", done.stdout, re.M)
        assert done.stderr.startswith("gtaskman: service 'slow' has failed: it raised")
        assert place.call("reload", "slow", "--json").returncode == 1


def test_a_change_that_is_not_waited_for_to_its_end_ends_with_5(place):
    place.write('[services.slow]\ntask = "services.acting:Slow"\n'
                f'[services.slow.options]\ngate = "{place.directory}/nowhere"')  # fmt: skip
    with place.run(str(place.directory / "system.toml")):
        done = place.call("start", "slow", "--timeout", "0.1")
        assert done.returncode == 5
        assert re.search(r"^slow +starting ", done.stdout, re.M)
        assert "has not started within 0.1 s" in done.stderr


# --- what is supervised

MODULE = """
from services import acting
import gtaskman

manager = gtaskman.ServiceManager(gtaskman.Configuration(background=True))
manager.add(acting.Actor(id="made", factor=5))

def make():
    services = gtaskman.ServiceManager()
    services.add(acting.Actor(id="factory", factor=7))
    return services

def fail():
    raise LookupError("no such thing")
"""


@pytest.mark.parametrize(
    ("name", "service", "factor"), [("manager", "made", 5), ("make", "factory", 7)]
)
def test_a_manager_of_a_module_is_supervised(place, name, service, factor):
    place.write(MODULE, "site_of_ours.py")
    with place.run(f"site_of_ours:{name}") as program:
        place.up(service)
        assert place.ask("call", service, "times", "1") == str(factor)
        assert [each.name for each in place.sockets.glob("*.sock")] == [
            "services-site_of_ours.sock"
        ]
        program.signal(signal.SIGINT)
        ends_well(program)


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("nothing.toml", "nothing.toml: No such file or directory"),
        ("wrong.toml", "wrong.toml: services.a.instance: there is no such key; did you mean"),
        ("site_of_ours", "write module:name"),
        ("nowhere:manager", "the module 'nowhere' cannot be imported: ModuleNotFoundError"),
        ("site_of_ours:nothing", "the module 'site_of_ours' has no 'nothing'"),
        ("site_of_ours:fail", "site_of_ours:fail() has failed: LookupError: no such thing ("),
        ("site_of_ours:acting", "after the colon comes the name of a ServiceManager"),
    ],
)
def test_what_cannot_be_supervised_is_told_in_one_line(place, target, told):
    place.write(MODULE, "site_of_ours.py")
    place.write('[services.a]\ntask = "services.acting:Actor"\ninstance = 2', "wrong.toml")
    assert told in place.refused(2, "run", target)


# --- the end


def test_a_second_signal_ends_at_once(place):
    place.write('[services.deaf]\ntask = "services.acting:Stubborn"\nterminate_timeout = 50\n'
                "terminate_timeout_hard = 60\n[services.deaf.options]\ndeaf = true")  # fmt: skip
    with place.run(str(place.directory / "system.toml")) as program:
        place.up("deaf")
        program.signal(signal.SIGTERM)
        says(program, "stopping 1 service")
        assert place.read("status", "deaf")["state"] == "stopping"  # it can still be asked
        program.signal(signal.SIGTERM)
        says(program, "stopping now")
        ends_well(program)


def test_the_time_at_the_end_can_be_limited(place):
    place.write('[services.deaf]\ntask = "services.acting:Stubborn"\n'
                "[services.deaf.options]\ndeaf = true")  # fmt: skip
    system = str(place.directory / "system.toml")
    with place.run(system, "--stop-timeout", "0.1") as program:
        place.up("deaf")
        program.signal(signal.SIGTERM)
        ends_well(program)
        assert "the manager was stopped" in program.output


def test_kill_9_leaves_nothing_and_the_next_one_takes_the_place(place):
    system = str(place.directory / "system.toml")
    with place.run(system) as program:
        place.up("web")
        kill_hard([program.leader])
        program.assert_nothing_left()
    assert "nobody supervises services here" in place.refused(3, "status")
    with place.run(system) as program:
        assert place.up("actor")
        program.signal(signal.SIGTERM)
        ends_well(program)


# --- who is meant


def test_a_place_has_one_supervisor_and_a_second_one_is_told_who(place):
    system = place.write(ACTOR)
    with place.run(str(system)) as program:
        place.up("actor")
        told = place.refused(1, "run", str(system), "--log-level", "error")
        assert f"is taken by process {program.leader}, which supervises {system}" in told
        assert place.up("actor")
        # under another name it is another one, and then it must be said which is meant
        own = place.directory / "private" / "own.sock"
        with place.run(str(system), "--socket", str(own)):
            assert stat.S_IMODE(own.parent.stat().st_mode) == 0o700
            assert place.up("actor")  # the one of the usual place is found
            pids = [place.read("status", "actor", "--socket", str(own))["pids"], place.up("actor")]
            assert pids[0] != pids[1]
        assert f"nobody listens at {own}" in place.refused(3, "status", "--socket", str(own))
        with place.run(str(place.write(ACTOR, "other.toml"))):
            told = place.refused(2, "status")
            assert "which supervisor? Give --socket, one of: " in told
            assert "services-other.sock" in told
            assert "services-system.sock" in told


def test_without_a_supervisor_a_command_says_so(place):
    told = place.refused(3, "status")
    assert f"(looked in {place.sockets}): start them with gtaskman services run" in told
    assert not place.sockets.exists()


# --- HUP and TTIN

CODE = """
import gtaskman
from gevent.event import Event

class Version(gtaskman.ServiceTask):
    def run(self, progress):
        Event().wait()

    @gtaskman.remote
    def version(self):
        return 1
"""


@pytest.mark.parametrize("start_method", ["zygote", "spawn"])
def test_hup_brings_new_code(place, start_method):
    code = place.write(CODE, "versioned.py")
    place.write(f'[manager]\nstart_method = "{start_method}"\n'
                '[services.v]\ntask = "versioned:Version"\ninstances = 2')  # fmt: skip
    with place.run(str(place.directory / "system.toml")) as program:
        old = place.up("v")
        assert place.ask("call", "v", "version") == "1"
        code.write_text(CODE.replace("return 1", "return 22"))
        program.signal(signal.SIGHUP)
        says(program, "service v: reloaded")
        assert [place.ask("call", "v", "version") for _ in range(2)] == ["22", "22"]
        assert not set(old) & set(place.up("v"))
        # code that fails leaves the old processes as they are
        code.write_text("import nowhere_at_all")
        program.signal(signal.SIGHUP)
        says(program, "the old process goes on")
        assert [place.ask("call", "v", "version") for _ in range(2)] == ["22", "22"]
        program.signal(signal.SIGTERM)
        ends_well(program)


def test_hup_follows_the_file(place):
    system = place.write(SYSTEM)
    with place.run(str(system)) as program:
        (actor,) = place.up("actor")
        web = place.read("status", "web")
        place.ask("stop", "actor")
        # Given a file in which one is new, one is gone, one is another, and one as it was,
        extra = '[services.more]\ntask = "services.acting:Actor"\n'
        text = SYSTEM.replace("services.short", "services.new").replace('"raises"', '"returns"')
        system.write_text(text.replace('"Hello"', '"Bye"') + extra)
        # if it is told to follow,
        program.signal(signal.SIGHUP)
        # then it does, and who was stopped stays so.
        says(program, "service short: taken out of the file")
        says(program, "service web: changed")
        says(program, "service more: ready")
        place.up("web")
        found = {each["id"]: each for each in place.read("status")}
        assert set(found) == {"web", "actor", "new", "more"}
        assert get(found["web"]["sockets"]["http"]).startswith("Bye from ")
        assert not set(web["pids"]) & set(found["web"]["pids"])
        assert (found["actor"]["state"], alive(actor)) == ("stopped", False)
        # A file with a mistake changes nothing.
        system.write_text(text.replace("instances", "instance"))
        program.signal(signal.SIGHUP)
        says(program, "going on as before: ")
        assert "services.web.instance: there is no such key" in program.output
        assert place.up("web") == found["web"]["pids"]
        program.signal(signal.SIGTERM)
        ends_well(program)


def test_ttin_writes_the_stacks(site):
    site.program.signal(signal.SIGTTIN)
    says(site.program, "--- supervisor")
    pids = {each["id"]: each["pids"] for each in site.read("status")}
    says(site.program, "_await_end")
    said = site.program.output
    for pid in pids["web"]:
        assert f"--- service web, process {pid}\n" in said
    assert "serve_forever" in said
    assert "self.told.wait()" in said
