"""The command line as a person and a script meet it: real servers, processes and signals."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.metadata
import itertools
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import click
import pytest
from servers import RunningServer, any_kind
from worlds import PATIENCE, Program, alive, wait_until

import gtaskman
from gtaskman.cli.main import main
from gtaskman.cli.values import keywords_of, value_of
from gtaskman.terms import DEFAULT, Terms

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
NOWHERE = "redis://127.0.0.1:1"
_names = itertools.count(1)


class Place:
    """A directory with the application in it, and a namespace on the server."""

    def __init__(self, directory: Path, server: RunningServer) -> None:
        self.directory = directory
        self.url = f"{server.url}?namespace=cli{next(_names)}"
        self.source = directory / "shop.py"
        shutil.copy(HERE / "cli_tasks.py", self.source)
        self._environment = {
            **{name: value for name, value in os.environ.items() if name != "COLUMNS"},
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
            "GTASKMAN_URL": self.url,
        }

    def call(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """What a command says into pipes, and its exit code."""
        return subprocess.run(
            [sys.executable, "-m", "gtaskman", *words],
            cwd=self.directory,
            env=self._environment | environment,
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

    @contextlib.contextmanager
    def run(self, *words: str, ready: bool = True):
        """``gtaskman run`` with these words; afterwards nothing of it is left."""
        before = os.getcwd()
        os.chdir(self.directory)
        try:
            program = Program(
                [sys.executable, "-m", "gtaskman", "run", *words],
                self.directory,
                {"GTASKMAN_URL": self.url, "PWD": str(self.directory)},
            )
        finally:
            os.chdir(before)
        try:
            if ready:
                says(program, "ready")
            yield program
        finally:
            program.kill()

    @contextlib.contextmanager
    def terminal(self, *words: str, columns: int = 80):
        """A command in a terminal; afterwards it has ended."""
        pid, fd = pty.fork()
        if pid == 0:
            os.chdir(self.directory)
            # What was started in the background may ignore it; a command in a terminal does not.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            argv = [sys.executable, "-m", "gtaskman", *words]
            os.execve(sys.executable, argv, self._environment | {"TERM": "xterm"})
        fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        screen = Terminal(pid, fd)
        try:
            yield screen
        finally:
            screen.close()

    def client(self) -> gtaskman.Client:
        return gtaskman.Client(self.url)

    def send(self, name: str, *args, terms: Terms = DEFAULT, **keywords) -> str:
        """The id of a task that was sent from here."""
        with self.client() as client:
            return client.send_under(terms, name, *args, **keywords).id

    def report(self, task_id: str) -> gtaskman.Report:
        """How a task stands."""
        with self.client() as client:
            found = client.report(task_id)
            assert found is not None
            return found

    def result(self, task_id: str):
        """What a task comes to."""
        with self.client() as client:
            handle = client.handle(task_id)
            assert handle is not None
            return handle.get(PATIENCE)


class Terminal:
    """What a command writes to a terminal, and what is typed there."""

    def __init__(self, pid: int, fd: int) -> None:
        self._pid, self._fd = pid, fd
        self._end = time.monotonic() + PATIENCE
        self.text = ""
        self.code: int | None = None

    def read_until(self, words: str = "") -> str:
        """All that was written until these words are; without any, until the end."""
        while not words or words not in self.text:
            assert time.monotonic() < self._end, self.text
            if not select.select([self._fd], [], [], 0.1)[0]:
                continue
            try:
                self.text += os.read(self._fd, 65536).decode(errors="replace")
            except OSError:  # the other side is closed
                assert not words, self.text
                break
        return self.text

    def type(self, keys: str) -> None:
        os.write(self._fd, keys.encode())

    def wait(self) -> int:
        """Its exit code, once it has ended."""
        self.read_until()
        self.code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        return self.code

    def close(self) -> None:
        if self.code is None:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
        os.close(self._fd)


def says(program: Program, words: str, times: int = 1) -> None:
    """Wait until a program has said so."""
    wait_until(lambda: program.output.count(words) >= times, what=f"{words!r}\n{program.story()}")


def managers(program: Program) -> list[int]:
    """The pids of the managers that it consists of."""
    return [each.pid for each in program.processes() if "gtaskman: manager of" in each.title]


def ends_well(program: Program) -> None:
    assert program.wait() == 0, program.story()
    program.assert_nothing_left()
    assert "Traceback" not in program.output


def says_in_one_line(done: subprocess.CompletedProcess[str], code: int, words: str) -> None:
    """A command failed with this code and one line."""
    assert done.returncode == code, done
    assert done.stdout == ""
    assert re.fullmatch(r"gtaskman: .+\n", done.stderr), done.stderr
    assert words in done.stderr


@pytest.fixture(scope="module")
def server():
    with RunningServer(any_kind()) as running:
        yield running


@pytest.fixture
def place(tmp_path, server):
    """A directory and a namespace of its own."""
    return Place(tmp_path, server)


@pytest.fixture(scope="module")
def shop(tmp_path_factory, server):
    """Another one, whose tasks are served; shared by the tests that only send and ask."""
    shared = Place(tmp_path_factory.mktemp("shop"), server)
    with shared.run("shop", "--max", "2"):
        yield shared


def start_hold(place: Place, name: str = "hold") -> tuple[str, Path]:
    """The id of a task that runs, and the file that lets it end."""
    running = place.directory / f"running-{next(_names)}"
    task_id = place.send(name, str(running))
    wait_until(running.exists)
    return task_id, Path(f"{running}.go")


# --- words -> arguments --------------------------------------------------------------------------


@pytest.mark.quick
@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-1.5", -1.5),
        ("true", True),
        ("null", None),
        ('"3"', "3"),
        ("[1, 2]", [1, 2]),
        ('{"a": []}', {"a": []}),
        ("world", "world"),
        ("NaN", "NaN"),
        ("", ""),
        ("[" * 100_000, "[" * 100_000),
    ],
)
def test_values_are_json_or_else_text(text, value):
    assert value_of(text) == value


@pytest.mark.quick
def test_keywords_may_hold_anything_behind_the_first_equals_sign():
    assert keywords_of(["a=1", "b=x=y", "c="]) == {"a": 1, "b": "x=y", "c": ""}


@pytest.mark.quick
@pytest.mark.parametrize("words", [["a"], ["=1"], ["a b=1"], ["a=1", "a=2"]])
def test_words_that_are_no_keywords_are_refused(words):
    with pytest.raises(click.UsageError):
        keywords_of(words)


# --- submit --------------------------------------------------------------------------------------


def test_submit_writes_the_result(shop):
    assert (
        shop.ask("submit", "echo", "--arg", "1", "n=[2]", "who=me")
        == "[[1], {'n': [2], 'who': 'me'}]"
    )
    assert shop.read("submit", "echo", "n=1.5") == [[], {"n": 1.5}]
    assert shop.ask("submit", "version") == "one"


def test_submit_without_waiting_writes_the_id(shop):
    task_id = shop.ask("submit", "echo", "n=1", "--no-wait")

    assert shop.ask("status", task_id, "--wait") == "[[], {'n': 1}]"
    assert shop.read("status", task_id)["status"] == "completed"
    assert shop.read("submit", "echo", "--no-wait", "--delay", "60").keys() == {"id"}


def test_submit_tells_of_a_failure_with_the_workers_traceback(shop):
    done = shop.call("submit", "fail", "words=it is [broken]")

    assert (done.returncode, done.stdout) == (1, "")
    first, *more = done.stderr.splitlines()
    assert re.fullmatch(r"gtaskman: task fail \(\S+\) failed: ValueError: it is \[broken\]", first)
    assert more[0].startswith("Traceback")
    assert any("in fail" in line for line in more)


def test_submit_writes_a_text_as_it_is_and_nothing_for_none(shop):
    assert shop.ask("submit", "say", "what=two words\n and a line") == "two words\n and a line"
    assert shop.ask("submit", "say") == ""
    assert shop.read("submit", "say") is None
    assert shop.ask("submit", "count_to", "number=3") == "3"


def test_an_argument_of_the_wrong_type_takes_one_line(shop):
    done = shop.call("submit", "count_to", "number=three")
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "count_to" in done.stderr
    assert "number" in done.stderr


ESCAPES = "\x1b]0;title\x07\x1b[2J\x9b1m\u202etxt"


def test_what_a_task_says_cannot_steer_the_terminal(shop):
    done = shop.call("submit", "fail", f"words={ESCAPES}")
    failed = shop.send("fail", ESCAPES)
    wait_until(lambda: shop.call("status", failed).returncode == 1)
    told = [done, shop.call("status", failed), shop.call("tasks"), shop.call("dead"),
            shop.call("dead", "--json"), shop.call("status", failed, "--wait"),
            shop.call("status", ESCAPES), shop.call("submit", ESCAPES)]  # fmt: skip
    for each in told:
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", each.stdout + each.stderr), each
    assert "\\x1b[2J" in done.stderr
    with shop.terminal("submit", "say", f"what={ESCAPES}") as terminal:
        terminal.read_until("\\x1b]0;title")
        assert terminal.wait() == 0
        assert "\x1b]0" not in terminal.text


@pytest.mark.parametrize("words", [("status",), ("cancel",), ("retry",), ("submit",)])
def test_what_is_not_utf_8_is_refused_in_one_line(shop, words):
    done = shop.call(*words, "caf\udce9")
    assert done.returncode != 0
    assert done.stdout == ""
    assert re.fullmatch(r"gtaskman: .+\n", done.stderr), done.stderr


def test_submit_refuses_a_name_that_nobody_serves(shop):
    says_in_one_line(shop.call("submit", "nothing"), 1, "they have: count_to, echo, fail, hold")


def test_submit_refuses_what_is_no_argument(shop):
    done = shop.call("submit", "echo", "3")

    assert done.returncode == 2
    assert "write key=value, or --arg" in done.stderr


def test_a_wait_may_end_before_the_task(shop):
    done = shop.call("submit", "hold", f"path={shop.directory / 'late'}", "--timeout", "0.3")

    says_in_one_line(done, 5, "goes on")
    task_id = re.search(r"task (\S+) has not ended", done.stderr)[1]
    assert shop.ask("cancel", task_id, "--reason", "it takes too long") in (
        "its worker is asked to stop",
        "cancelled",
    )
    says_in_one_line(shop.call("status", task_id, "--wait"), 4, "it takes too long")
    assert shop.call("status", task_id).returncode == 4


def test_in_a_terminal_progress_is_shown_and_goes(shop):
    with shop.terminal("submit", "steps", "count=4", columns=100) as terminal:
        text = terminal.read_until("━")
        terminal.read_until("%")
        assert terminal.wait() == 0
    assert "steps" in text
    assert re.search(r"(25|50|75)%", terminal.text)
    assert "a long message [of" in terminal.text  # and not taken for markup
    # The bar is erased, and the result stands alone.
    assert terminal.text.rpartition("\x1b[2K")[2].strip() == "all steps"


def test_control_c_ends_the_wait_and_not_the_task(shop):
    path = shop.directory / "interrupted"
    with shop.terminal("submit", "hold", f"path={path}") as terminal:
        terminal.read_until("━")
        wait_until(path.exists)
        terminal.type("\x03")
        assert terminal.wait() == 130
    task_id = re.search(r"task (\S+) goes on", terminal.text)[1]
    Path(f"{path}.go").touch()
    assert shop.result(task_id) == "one"


# --- asking --------------------------------------------------------------------------------------


def test_status_says_all_that_is_known(shop):
    task_id = shop.send("fail", "no")
    with pytest.raises(gtaskman.TaskFailed):
        shop.result(task_id)

    done = shop.call("status", task_id)

    assert done.returncode == 1
    facts = dict(line.split(maxsplit=1) for line in done.stdout.split("\n\n")[0].splitlines())
    assert facts["id"] == task_id
    assert facts["task"] == "fail (sync)"
    assert (facts["status"], facts["error"]) == ("failed", "ValueError: no")
    assert "Traceback" in done.stdout


@pytest.mark.parametrize("command", ["status", "cancel", "retry"])
def test_an_unknown_task_has_an_exit_code_of_its_own(shop, command):
    says_in_one_line(shop.call(command, "nobody"), 6, "'nobody'")


def test_what_has_ended_is_not_cancelled(shop):
    task_id = shop.send("version")
    shop.result(task_id)

    says_in_one_line(shop.call("cancel", task_id), 6, "ended already: completed")
    says_in_one_line(shop.call("retry", task_id), 6, "completed")


def test_tasks_are_listed_in_order_and_in_pages(place):
    with place.run("shop", "--burst", ready=False) as program:
        ends_well(program)  # its names are known now
    sent = [place.send("echo", n=n) for n in range(3)]
    sent.append(place.send("steps", 1))
    with place.run("shop", "--burst", ready=False) as program:
        ends_well(program)
    waiting = place.send("echo")

    title, *lines = place.ask("tasks").splitlines()
    assert title.split() == ["ID", "TASK", "STATUS", "SUBMITTED", "TOOK", "TRY", "MESSAGE"]
    assert [line.split()[0] for line in lines] == [*sent, waiting]
    assert [line.split()[2] for line in lines] == ["completed"] * 4 + ["waiting"]
    # A pipe has no width, no colours, and no spaces at the ends of its lines.
    assert lines[3].endswith("of several words],") and len(lines[3]) > 250
    assert "\x1b" not in "".join(lines)

    assert [each["id"] for each in place.read("tasks", "--limit", "2", "--offset", "1")] == sent[
        1:3
    ]
    assert [each["id"] for each in place.read("tasks", "--status", "waiting")] == [waiting]
    assert [each["id"] for each in place.read("tasks", "--finished")] == sent
    assert [each["id"] for each in place.read("tasks", "--unfinished")] == [waiting]
    assert place.read("tasks", "--queue", "other") == []
    none = place.call("tasks", "--status", "failed")
    assert (none.returncode, none.stdout, none.stderr) == (0, "", "no tasks\n")

    with place.terminal("tasks", columns=90) as terminal:
        assert terminal.wait() == 0
    plain = re.sub(r"\x1b\[[0-9;]*m", "", terminal.text).splitlines()
    assert [line.split()[0] for line in plain[1:]] == [*sent, waiting]
    assert max(map(len, plain)) <= 90 and plain[4].endswith("…")
    assert "\x1b[32mcompleted" in terminal.text


def test_dead_letters_are_listed_and_sent_back(shop):
    path = shop.directory / "there"
    task_id = shop.send("once_there", str(path))
    with pytest.raises(gtaskman.TaskFailed):
        shop.result(task_id)
    assert task_id in shop.ask("dead")
    assert task_id in [each["id"] for each in shop.read("dead")]

    path.write_text("now it is")

    assert shop.ask("retry", task_id) == "it waits again"
    assert shop.result(task_id) == "now it is"
    assert task_id not in [each["id"] for each in shop.read("dead")]


def test_a_paused_queue_begins_nothing(shop):
    assert shop.ask("pause") == "queue default is paused"
    task_id = shop.send("version")

    says_in_one_line(shop.call("status", task_id, "--wait", "--timeout", "0.3"), 5, task_id)
    (numbers,) = shop.read("stats")
    assert numbers["paused"] is True
    assert (numbers["queue"], numbers["managers"], numbers["waiting"]) == ("default", 1, 1)
    titles, row = shop.ask("stats").splitlines()
    assert titles.split()[:3] == ["QUEUE", "MANAGERS", "WAITING"]
    assert row.split()[:4] == ["default", "(paused)", "1", "1"]

    assert shop.read("resume") == {"queue": "default", "paused": False}
    assert shop.result(task_id) == "one"


# --- what is wrong -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [["run", "shop"], ["submit", "version"], ["status", "x"], ["tasks"], ["stats"], ["pause"]],
    ids=lambda words: words[0],
)
def test_a_server_that_is_away_is_said_in_one_line(place, words):
    done = place.call(*words, "--patience", "0.1", GTASKMAN_URL=NOWHERE)

    says_in_one_line(done, 3, "refused")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "set GTASKMAN_URL"),
        ("memory://", "takes the URL of a server"),
        ("http://x", "no server behind http"),
        ("redis://u:secret@/x", "the database is a number"),
    ],
)
def test_a_url_that_leads_nowhere_is_a_mistake_of_the_command_line(place, url, words):
    done = place.call("tasks", GTASKMAN_URL=url)

    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert "secret" not in done.stderr


@pytest.mark.parametrize(
    ("words", "code", "answer"),
    [
        (["nowhere"], 1, "No module named 'nowhere'"),
        (["shop.py"], 1, "such as 'shop'"),
        (["broken"], 1, "NameError: name 'nonsense' is not defined"),
        (["json"], 1, "defines no task"),
        (["shop:nothing"], 1, "has no 'nothing'"),
        (["shop:LONG"], 1, "after the colon"),
        (["shop:local"], 1, "TaskManager('redis://...')"),
        (["shop", "--min", "3", "--max", "2"], 2, "min_processes=3 is more than"),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, list) else "",
)
def test_an_application_that_cannot_be_served_is_said_in_one_line(place, words, code, answer):
    (place.directory / "broken.py").write_text("\nnonsense\n")

    says_in_one_line(place.call("run", *words), code, answer)


def test_debug_shows_the_traceback(place):
    (place.directory / "broken.py").write_text("\nnonsense\n")
    done = place.call("run", "broken", "--debug")

    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert 'broken.py", line 2' in done.stderr


def test_a_task_manager_has_a_configuration_already(place):
    done = place.call("run", "shop:manager", "--max", "2")

    assert done.returncode == 2
    assert "leave out --max" in " ".join(done.stderr.split())


# --- run -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("application", "most"),
    [
        ("shop", gtaskman.Configuration().max_processes),
        ("shop:configuration", 2),
        ("shop:configure", 3),
        ("shop:manager", 2),
    ],
)
def test_an_application_may_say_how_it_is_served(place, application, most):
    with place.run(application) as program:
        assert f"with 1 to {most} workers" in program.output
        assert place.ask("submit", "version") == "one"
        program.signal(signal.SIGTERM)
        ends_well(program)


def test_tasks_and_their_logs_are_seen_and_passwords_are_not(tmp_path):
    with RunningServer(any_kind(), password="secret") as locked:
        place = Place(tmp_path, locked)
        with place.run("shop", "--url", place.url) as program:
            assert place.ask("submit", "echo") == "[[], {}]"
            says(program, "INFO")
            says(program, "shop: echo is called")
            titles = [each.title for each in program.processes()]
            assert "gtaskman: manager of shop, queues default" in titles
            assert "gtaskman: worker 1 of shop" in titles
            assert "secret" not in program.output + " ".join(titles)
            program.signal(signal.SIGTERM)
            ends_well(program)


def test_one_manager_serves_several_queues(place):
    with place.run("shop", "--queues", "first, second") as program:
        for queue in ("second", "first"):
            assert place.ask("submit", "version", "--queue", queue) == "one"
        served = {each["queue"]: each["managers"] for each in place.read("stats")}
        assert served.items() >= {"first": 1, "second": 1}.items()
        program.signal(signal.SIGTERM)
        ends_well(program)


@pytest.mark.parametrize("monkey", [True, False])
def test_the_application_is_patched_on_demand(place, monkey):
    with place.run("shop", *["--monkey"] * monkey):
        assert place.read("submit", "patched") is monkey


def test_burst_ends_when_the_work_is_done(place):
    with place.run("shop", "--burst", ready=False) as program:
        ends_well(program)
    sent = [place.send("version"), place.send("second_time", str(place.directory / "x"))]
    later = place.send("version", terms=Terms(delay=600))

    with place.run("shop", "--burst", ready=False) as program:
        ends_well(program)

    assert [place.report(each).status.value for each in sent] == ["completed"] * 2
    assert place.report(sent[1]).attempt == 2
    assert place.report(later).status.value == "waiting"


# --- signals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_lets_running_tasks_finish(place, number):
    with place.run("shop", "--max", "1", "--stop-timeout", "60") as program:
        task_id, go = start_hold(place)
        program.signal(number)
        says(program, "stopping")
        waiting = place.send("version")
        go.touch()

        ends_well(program)
    assert place.report(task_id).result == "one"
    assert place.report(waiting).status.value == "waiting"


@pytest.mark.parametrize("hold", ["hold", "hold_async"])
def test_at_the_deadline_running_tasks_go_back_to_the_queue(place, hold):
    with place.run("shop", "--stop-timeout", "0.1") as program:
        task_id, go = start_hold(place, hold)
        program.signal(signal.SIGTERM)
        ends_well(program)
    assert place.report(task_id).status.value == "waiting"

    go.touch()
    with place.run("shop", "--burst", ready=False) as program:
        ends_well(program)
    assert place.report(task_id).result == "one"


def test_a_second_signal_ends_it_now(place):
    with place.run("shop", "--stop-timeout", "600") as program:
        task_id, _go = start_hold(place)
        program.signal(signal.SIGTERM)
        says(program, "stopping:")
        program.signal(signal.SIGINT)
        ends_well(program)
    assert place.report(task_id).status.value == "waiting"


def test_tstp_takes_no_more_tasks_until_cont(place):
    with place.run("shop") as program:
        running, go = start_hold(place)
        program.signal(signal.SIGTSTP)
        says(program, "taking no more tasks")
        waiting = place.send("version")
        go.touch()

        assert place.result(running) == "one"
        assert place.report(waiting).status.value == "waiting"

        program.signal(signal.SIGCONT)
        assert place.result(waiting) == "one"


def test_ttin_tells_what_everybody_is_doing(place):
    with place.run("shop", "--min", "2") as program:
        _, go = start_hold(place)
        # The second worker may still be starting: until it answers, it is listed as silent.
        busy, idle = wait_until(lambda: stacks_of_two_workers(program), every=0.1)
        assert "in hold\n" in busy
        assert idle == "idle\n"
        go.touch()


def stacks_of_two_workers(program: Program) -> list[str] | None:
    """The stacks of both workers, as SIGTTIN has them written, the longer one first."""
    before = program.output.count("--- manager\n")
    program.signal(signal.SIGTTIN)
    wait_until(lambda: program.output.count("--- manager\n") > before)
    written = program.output.split("--- manager\n")[-2]
    workers = re.findall(r"--- worker \d+\n(.*?)(?=--- |\Z)", written, re.DOTALL)
    return sorted(workers, key=len, reverse=True) if len(workers) == 2 else None


def write_version(place: Place, version: str) -> None:
    text = place.source.read_text().replace('VERSION = "one"', f'VERSION = "{version}"')
    place.source.write_text(text)


def test_hup_brings_new_code_without_a_gap_and_under_the_same_pid(place):
    with place.run("shop", "--stop-timeout", "600") as program:
        task_id, go = start_hold(place)
        write_version(place, "another")

        program.signal(signal.SIGHUP)
        says(program, "serves with the new code")

        # The old code still runs a task, and the new one serves already.
        assert place.ask("submit", "version") == "another"
        go.touch()
        assert place.result(task_id) == "one"
        says(program, "stopped")
        wait_until(lambda: managers(program) == [program.leader])
        assert place.ask("submit", "version") == "another"

        program.signal(signal.SIGTERM)
        ends_well(program)


def test_new_code_that_does_not_come_up_changes_nothing(place):
    with place.run("shop") as program:
        sound = place.source.read_text()
        place.source.write_text(sound + "\nbroken(")

        program.signal(signal.SIGHUP)
        says(program, "going on with the old code")

        assert "SyntaxError" in program.output
        assert managers(program) == [program.leader]
        assert place.ask("submit", "version") == "one"

        place.source.write_text(sound.replace('"one"', '"another"'))
        program.signal(signal.SIGHUP)
        says(program, "stopped")
        wait_until(lambda: managers(program) == [program.leader])
        assert place.ask("submit", "version") == "another"


def test_nobody_outlives_a_manager_that_ends_while_its_relief_serves(place):
    with place.run("shop", "--stop-timeout", "600") as program:
        start_hold(place)
        program.signal(signal.SIGHUP)
        says(program, "serves with the new code")

        program.signal(signal.SIGTERM)
        says(program, "stopping:", 2)
        program.signal(signal.SIGTERM)

        ends_well(program)


def test_nobody_outlives_a_manager_that_is_killed_while_its_relief_serves(place):
    with place.run("shop", "--stop-timeout", "600") as program:
        start_hold(place)
        program.signal(signal.SIGHUP)
        says(program, "serves with the new code")
        (relief,) = set(managers(program)) - {program.leader}

        program.signal(signal.SIGKILL)

        assert program.wait() == -signal.SIGKILL
        wait_until(lambda: not alive(relief))
        program.assert_nothing_left(PATIENCE)


# --- itself --------------------------------------------------------------------------------------


def test_the_command_is_installed():
    (command,) = importlib.metadata.entry_points(group="console_scripts", name="gtaskman")

    assert command.load() is main


def test_it_says_its_version_and_its_commands(place):
    assert place.ask("--version") == f"gtaskman, version {gtaskman.__version__}"
    text = place.ask("--help")
    assert "Exit codes:" in text
    for command in ("run", "submit", "status", "tasks", "cancel", "retry", "dead", "stats"):
        assert re.search(rf"^  {command} ", text, re.M)
    assert "..." not in text.replace("COMMAND [ARGS]...", "")
