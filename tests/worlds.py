"""Real processes to test in: the *worlds* ``unpatched``, ``patched`` and ``gunicorn``.

How to use it::

    # tests/process/scenarios/mine.py: importable in every process, it does nothing when imported
    from scenarios import stage, tasks

    def doubling(number, **config):                     # takes JSON, returns JSON
        with stage.manager(**config) as manager:
            return manager.submit(tasks.double, number).get(timeout=stage.PATIENCE)

    # tests/process/test_mine.py
    from scenarios import mine

    def test_doubling(world):                           # runs in each of the three worlds
        assert world.run(mine.doubling, number=4, start_method="zygote") == 8

    @pytest.mark.parametrize("world", ["patched"], indirect=True)     # in this one only
    @pytest.mark.parametrize("start_method", START_METHODS)

``run`` starts a fresh process (or a fresh ``gunicorn -k gevent -w 1``, and performs the scenario in
a request), gives the scenario's value, raises :class:`ScenarioFailed` with the traceback if it
raised, stops everything, and fails if a process is left over. Whatever happens, nothing survives.

Where the test must do something to the living process::

    with world.start(mine.holding) as run:
        facts = run.told("ready")            # the scenario called stage.tell("ready", pids=[...])
        os.kill(run.pid, signal.SIGKILL)     # the application; run.leader is gunicorn's arbiter
        wait_until(lambda: not run.processes())
        ...                                  # or run.release(), for which stage.hold() waits,
                                             # and run.result()

``run.url`` is the server of the gunicorn world. ``run_python`` runs a script of its own main
module. In-process fixtures (conftest): ``manager`` and ``make_manager(**config)``: unpatched, on
pytest's own hub, stopped for you, with a check that nothing leaked and every task has settled.

``wait_until`` is only for what nothing here can be woken by: processes, files, other machines.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import gevent

TESTS = Path(__file__).resolve().parent
WORLDS = ("unpatched", "patched", "gunicorn")
START_METHODS = ("zygote", "spawn", "fork")
PATIENCE = 30.0  # seconds for what should take a moment, on a machine that others use as well
SOON = 2.0  # seconds within which what ends by itself must be gone
_TAG = "GTASKMAN_TEST_RUN"


class ScenarioFailed(AssertionError):
    """The scenario raised, or did not end in time; its traceback and output are the message."""


# --- waiting -------------------------------------------------------------------------------------


def wait_until(
    predicate: Callable[[], Any], timeout: float = PATIENCE, what: str = "", every: float = 0.002
) -> Any:
    """What ``predicate`` gives once that is true. Raises AssertionError after ``timeout``."""
    end = time.monotonic() + timeout
    while True:
        found = predicate()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout} s: {what or predicate}")
        gevent.sleep(every)


# --- what the system knows of processes ----------------------------------------------------------


class Process(NamedTuple):
    """One process, as the system sees it right now."""

    pid: int
    state: str  # R S D Z ...
    parent: int
    session: int
    title: str


def process(pid: int) -> Process | None:
    """The process, zombie or not, or None if there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        cmdline = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
    except OSError:
        return None
    name = stat[stat.index("(") + 1 : stat.rindex(")")]
    state, parent, _group, session = stat[stat.rindex(")") + 2 :].split()[:4]
    # Any process of the machine: its words may be of any encoding.
    title = cmdline.decode(errors="replace").strip()
    return Process(pid, state, int(parent), int(session), title or name)


def every_process() -> list[Process]:
    """All of them."""
    return [each for pid in _pids() if (each := process(pid)) is not None]


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def alive(pid: int) -> bool:
    """Whether it runs; a zombie does not."""
    found = process(pid)
    return found is not None and found.state not in "ZX"


def parent_of(pid: int) -> int:
    """Its parent; for a worker of a zygote that is the zygote."""
    found = process(pid)
    assert found is not None, f"process {pid} is gone"
    return found.parent


def children_of(pid: int) -> list[Process]:
    """Its children, zombies included."""
    return [each for each in every_process() if each.parent == pid]


def descendants_of(pid: int) -> list[Process]:
    """Its children, theirs, and so on, zombies included."""
    found, new = [], [pid]
    everything = every_process()
    while new:
        children = [each for each in everything if each.parent in new]
        found += children
        new = [each.pid for each in children]
    return found


def threads_of(pid: int) -> int:
    """How many native threads it has."""
    return len(os.listdir(f"/proc/{pid}/task"))


def descriptors(pid: int | str = "self") -> dict[int, str]:
    """Its open descriptors, and what they are."""
    found = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            found[int(name)] = os.readlink(f"/proc/{pid}/fd/{name}")
    return found


def sockets(pid: int | str = "self") -> set[str]:
    """The inodes of its sockets, of whatever kind."""
    return {what[8:-1] for what in descriptors(pid).values() if what.startswith("socket:[")}


def internet_sockets(pid: int | str = "self") -> set[str]:
    """The inodes of its TCP sockets, listening ones included."""
    return sockets(pid) & {line[9] for line in _tcp()}


def listening(port: int) -> bool:
    """Whether anybody on this machine listens on that TCP port of a loopback address."""
    return any(line[3] == "0A" and line[1].endswith(f":{port:04X}") for line in _tcp())


def _tcp() -> list[list[str]]:
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return [line.split() for line in lines]


def kill_hard(pids: list[int]) -> None:
    """Kill those that are still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


# --- a program and everything that it starts -----------------------------------------------------


class Program:
    """A program in a session of its own, under a mark by which all its offspring is found."""

    def __init__(
        self,
        argv: list[str],
        directory: Path,
        env: dict[str, str] | None = None,
        stdin: str | None = None,
    ) -> None:
        self.tag = uuid.uuid4().hex
        self._output = directory / f"output-{self.tag}"
        path = [str(TESTS / "process"), str(TESTS), str(TESTS.parent)]
        with open(self._output, "wb") as output:
            self._popen = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join([str(directory), *path]),
                    "PYTHONUNBUFFERED": "1",
                    "PYTHONFAULTHANDLER": "1",
                    # The process title may not overwrite the environment, where the mark is.
                    "SPT_NOENV": "1",
                    _TAG: self.tag,
                    **(env or {}),
                },
            )
        if stdin is not None:
            assert self._popen.stdin is not None
            self._popen.stdin.write(stdin.encode())
            self._popen.stdin.close()

    @property
    def leader(self) -> int:
        """The pid of what was started."""
        return self._popen.pid

    @property
    def output(self) -> str:
        """What it and its offspring have written so far."""
        return self._output.read_text(errors="replace")

    def processes(self, zombies: bool = False) -> list[Process]:
        """All that belongs to it and lives: found by session, and by the mark."""
        self._popen.poll()
        return [
            each
            for each in every_process()
            if (zombies or each.state not in "ZX") and self._owns(each)
        ]

    def _owns(self, one: Process) -> bool:
        if one.session == self.leader:
            return True
        try:
            return f"{_TAG}={self.tag}".encode() in Path(f"/proc/{one.pid}/environ").read_bytes()
        except OSError:
            return False

    def signal(self, number: int) -> None:
        """Send a signal to what was started."""
        self._popen.send_signal(number)

    def wait(self, timeout: float = PATIENCE) -> int:
        """Its exit code, once it has ended."""
        end = time.monotonic() + timeout
        while self._popen.poll() is None:
            if time.monotonic() > end:
                raise ScenarioFailed(f"not ended within {timeout} s\n{self.story()}")
            gevent.sleep(0.002)
        return self._popen.returncode

    def assert_nothing_left(self, timeout: float = SOON) -> float:
        """Seconds until nothing of it is left; raises if that takes longer than ``timeout``."""
        begin = time.monotonic()
        while left := self.processes():
            if time.monotonic() - begin > timeout:
                raise ScenarioFailed(f"left over after {timeout} s: {left}\n{self.story()}")
            gevent.sleep(0.001)
        return time.monotonic() - begin

    def kill(self) -> None:
        """Kill all of it, until nothing is left."""
        end = time.monotonic() + PATIENCE
        while left := self.processes():
            kill_hard([each.pid for each in left])
            assert time.monotonic() < end, f"these cannot be killed: {left}"
            gevent.sleep(0.005)
        self._popen.wait()

    def story(self) -> str:
        """What it has written, for a failing test."""
        return f"--- output of {self._popen.args}:\n{self.output[-8000:]}"


class Completed(NamedTuple):
    """How a program went."""

    code: int
    output: str


def run_python(
    *arguments: str,
    directory: Path,
    timeout: float = PATIENCE,
    env: dict[str, str] | None = None,
    stdin: str | None = None,
) -> Completed:
    """Run ``python arguments``; afterwards nothing of it may be left.

    ``directory`` is its import path's first entry and where its output is kept.
    """
    program = Program([sys.executable, *arguments], directory, env, stdin)
    try:
        code = program.wait(timeout)
        program.assert_nothing_left()
        return Completed(code, program.output)
    finally:
        program.kill()


# --- a scenario in a world -----------------------------------------------------------------------


class World:
    """One of the worlds: see the module's docstring."""

    def __init__(self, kind: str, directory: Path) -> None:
        assert kind in WORLDS
        self.kind = kind
        self._directory = directory

    @property
    def patched(self) -> bool:
        """Whether the application is monkey-patched there."""
        return self.kind != "unpatched"

    def run(self, scenario: Callable[..., Any], *, timeout: float = PATIENCE, **params: Any) -> Any:
        """Perform the scenario and give its value, when everything of it is gone."""
        with self.start(scenario, **params) as run:
            value = run.result(timeout)
        assert run.wait() == 0, run.story()
        return value

    @contextlib.contextmanager
    def start(
        self,
        scenario: Callable[..., Any],
        *,
        gunicorn: dict[str, Any] | None = None,
        env: dict[str, str] | None = None,
        **params: Any,
    ) -> Iterator[Run]:
        """Perform the scenario while the body goes on; ``gunicorn`` adds to its settings."""
        with self.serve(gunicorn=gunicorn, env=env, first=spec_of(scenario, params)) as run:
            yield run

    @contextlib.contextmanager
    def serve(
        self,
        *,
        gunicorn: dict[str, Any] | None = None,
        env: dict[str, str] | None = None,
        first: dict[str, Any] | None = None,
    ) -> Iterator[Run]:
        """The world itself; in gunicorn's, scenarios may be performed in it by ``run.post``."""
        run = Run(self.kind, self._directory, first, gunicorn or {}, env or {})
        try:
            yield run
            run.finish()
        finally:
            run.kill()


def spec_of(scenario: Callable[..., Any], params: dict[str, Any]) -> dict[str, Any]:
    """A scenario as JSON."""
    return {"module": scenario.__module__, "name": scenario.__qualname__, "params": params}


class Run(Program):
    """A world that lives, and the scenario in it."""

    def __init__(
        self,
        kind: str,
        directory: Path,
        first: dict[str, Any] | None,
        gunicorn: dict[str, Any],
        env: dict[str, str],
    ) -> None:
        self.kind = kind
        self._news = directory / f"news-{uuid.uuid4().hex}"
        self._news.touch()
        self.url = ""
        self.port = 0
        argv = [sys.executable, "-m", "scenarios.host"]
        if kind == "gunicorn":
            argv = [sys.executable, "-m", "gunicorn", "-c", "python:scenarios.gunicorn_conf"]
            argv += ["scenarios.gunicorn_app:app"]
        super().__init__(
            argv,
            directory,
            {
                "WORLD": kind,
                "WORLD_NEWS": str(self._news),
                "WORLD_GUNICORN": json.dumps(gunicorn),
                "WORLD_SCENARIO": json.dumps(first),
                **env,
            },
        )
        try:
            if kind == "gunicorn":
                self.port = self.told("listening")["port"]
                self.url = f"http://127.0.0.1:{self.port}"
                self.pid: int = self.told("worker")["pid"]
                if first is not None:
                    self.post(first)
            else:
                self.pid = self.leader
        except BaseException:
            self.kill()
            raise

    # --- what the scenario says

    def news(self) -> list[dict[str, Any]]:
        """All that was told so far."""
        return [json.loads(line) for line in self._news.read_text().splitlines()]

    def all_told(self, event: str) -> list[dict[str, Any]]:
        """Everything told under this name so far."""
        return [each for each in self.news() if each["event"] == event]

    def told(self, event: str, timeout: float = PATIENCE) -> dict[str, Any]:
        """What the scenario told under this name, as soon as it has."""
        found: dict[str, Any] = self._await(event, timeout)
        return found

    def result(self, timeout: float = PATIENCE) -> Any:
        """The scenario's value."""
        return self._await("result", timeout)["value"]

    def _await(self, event: str, timeout: float) -> dict[str, Any]:
        end = time.monotonic() + timeout
        while True:
            over = self._popen.poll() is not None  # first: it may tell with its last breath
            for each in self.news():
                if each["event"] == event:
                    return each
                if each["event"] == "error":
                    raise ScenarioFailed(f"in {self.kind}:\n{each['traceback']}\n{self.story()}")
            if over:
                code = self._popen.returncode
                raise ScenarioFailed(
                    f"{self.kind} ended ({code}) without {event!r}\n{self.story()}"
                )
            if time.monotonic() > end:
                raise ScenarioFailed(
                    f"{self.kind} has not told {event!r} within {timeout} s, only"
                    f" {[each['event'] for each in self.news()]}\n{self._stacks()}{self.story()}"
                )
            gevent.sleep(0.002)

    def _stacks(self) -> str:
        """Have its faulthandler write where everybody is, into the output."""
        if self.kind != "gunicorn" and self._popen.poll() is None:
            self.signal(signal.SIGABRT)
            self._popen.wait()
        return ""

    # --- what is said to it

    def release(self, step: str = "") -> None:
        """Let the scenario go on from its ``stage.hold(step)``; without a step from all of them."""
        Path(f"{self._news}.released{step}").touch()

    def post(self, spec: dict[str, Any]) -> None:
        """Have a request of its own perform a scenario; answers when that has begun."""
        gevent.get_hub().threadpool.spawn(_post, f"{self.url}/perform", json.dumps(spec).encode())

    def get(self, path: str = "/", timeout: float = PATIENCE) -> Any:
        """What the application answers, from JSON; waits without a hub."""
        with urllib.request.urlopen(f"{self.url}{path}", timeout=timeout) as answer:
            return json.load(answer)

    # --- its end

    def finish(self) -> None:
        """End as a good world ends, and leave nothing."""
        if self.kind == "gunicorn" and self._popen.poll() is None:
            # gunicorn waits in vain for one that it stops before it can hear.
            wait_until(self._all_up)
            self.signal(signal.SIGTERM)
        self.release()
        self.wait()
        self.assert_nothing_left()

    def _all_up(self) -> bool:
        up = {each["pid"] for each in self.all_told("worker")}
        own = [each for each in children_of(self.leader) if "gtaskman" not in each.title]
        return {each.pid for each in own if each.state != "Z"} <= up


def _post(url: str, body: bytes) -> None:
    # How it went is told in the news; the connection may die with the server.
    with contextlib.suppress(OSError), urllib.request.urlopen(url, body, timeout=300) as answer:
        answer.read()


def words(text: str) -> str:
    """Text with every run of white space made one space, to compare messages."""
    return re.sub(r"\s+", " ", text)
