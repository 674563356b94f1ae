"""``flask gtaskman``: the commands as a user calls them, against a real server."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import flask_apps.shop
import pytest
from flask_apps.shop import tasks
from servers import RunningServer, any_kind
from worlds import SOON, Completed, Program, run_python, wait_until

import gtaskman

HERE = Path(__file__).resolve().parent
ENDING = 30  # seconds, for whatever is on its way


@pytest.fixture(scope="module")
def server():
    with RunningServer(any_kind()) as running:
        yield running


@pytest.fixture
def url(server):
    """A server that is empty: it is not the environment that names it, but the application."""
    server.command("FLUSHALL")
    return server.url


def environment(url: str) -> dict[str, str]:
    return {
        "PYTHONPATH": str(HERE),
        "SHOP_GTASKMAN_URL": url,
        "SHOP_GTASKMAN_MAX_PROCESSES": "2",
        "GTASKMAN_URL": "redis://127.0.0.1:1",
        "COLUMNS": "100",
    }


@pytest.fixture
def flask(url, tmp_path):
    """Runs a command to its end."""

    def call(*words: str) -> Completed:
        return run_python(
            "-m", "flask", "--app", "flask_apps.shop", "gtaskman", *words,
            directory=tmp_path, env=environment(url), timeout=ENDING,
        )  # fmt: skip

    return call


def is_ready(program: Program) -> bool:
    assert program.processes(), program.story()
    return "ready" in program.output


@contextlib.contextmanager
def serving(url: str, directory: Path, *words: str) -> Iterator[Program]:
    command = ["-m", "flask", "--app", "flask_apps.shop", "gtaskman", "run", *words]
    program = Program([sys.executable, *command], directory, environment(url))
    try:
        wait_until(lambda: is_ready(program), ENDING, "the manager is ready")
        yield program
    finally:
        program.kill()


def test_they_are_those_of_gtaskman(flask):
    text = flask("--help").output
    for name in ("run", "submit", "status", "tasks", "cancel", "retry", "dead", "stats", "pause"):
        assert re.search(rf"^  {name} ", text, re.M)


def test_run_takes_no_module(flask):
    text = flask("run", "--help").output
    assert "MODULE" not in text
    assert "Serve the tasks of this application" in text
    assert "--burst" in text


def test_a_manager_serves_the_application(flask, url, tmp_path):
    with serving(url, tmp_path) as program:
        # Given the application's own settings, not the environment's.
        assert "with 1 to 2 workers" in program.output
        # If tasks are submitted, made by the extension or not, then both have their context.
        done = flask("submit", "flask_apps.shop.tasks.look", "name=ada", "--json")
        assert done.code == 0, done.output
        assert json.loads(done.output)["colour"] == "blue"
        done = flask("submit", "flask_apps.plain.colour", "prefix=very ")
        assert (done.code, done.output.strip()) == (0, "very blue")
        # And how they went can be asked.
        listed = json.loads(flask("tasks", "--json").output)
        assert [each["name"] for each in listed] == [
            "flask_apps.shop.tasks.look",
            "flask_apps.plain.colour",
        ]
        assert flask("status", listed[0]["id"]).code == 0
        (queue,) = json.loads(flask("stats", "--json").output)
        assert queue["completed"] == 2
        assert queue["managers"] == 1

        program.signal(signal.SIGTERM)

        assert program.wait(ENDING) == 0
        program.assert_nothing_left(SOON)


def test_the_application_sends_to_it(url, tmp_path):
    flask_apps.shop.create_app(GTASKMAN_URL=url)
    with serving(url, tmp_path):
        ext = flask_apps.shop.ext
        assert tasks.look.submit("ada").get(ENDING)["colour"] == "blue"
        assert ext.submit(tasks.look, "bob").get(ENDING)["colour"] == "blue"
        assert ext.submit(flask_apps.plain.colour, "very ").get(ENDING) == "very blue"
        assert ext.submit(flask_apps.plain.limited, 5).get(ENDING) == ("plain.limited", "blue")
        assert tasks.Painted(what="house").submit().get(ENDING) == "blue house"
        with pytest.raises(gtaskman.TaskFailed, match="Unlucky"):
            tasks.fail.submit("unhappy").get(ENDING)


def test_the_application_uses_it_at_a_socket_of_this_host(tmp_path):
    socket = f"unix:{tmp_path}/run/tasks.sock"
    url = f"unix://{tmp_path}/run/tasks.sock"
    flask_apps.shop.create_app(GTASKMAN_URL=url)
    with serving(url, tmp_path, "--bind", socket) as program:
        ext = flask_apps.shop.ext
        worker = tasks.look.submit("ada").get(ENDING)["pid"]
        assert worker in {each.pid for each in program.processes()}
        assert ext.submit(flask_apps.plain.colour, "very ").get(ENDING) == "very blue"
        assert ext.submit(flask_apps.plain.limited, 5).get(ENDING) == ("plain.limited", "blue")
        assert ext.submit(flask_apps.plain.undecorated, "quite").get(ENDING) == "quite blue"
        assert ext.submit(tasks.Painted(what="house")).get(ENDING) == "blue house"


def test_new_code_takes_over_under_the_same_pid(url, tmp_path):
    flask_apps.shop.create_app(GTASKMAN_URL=url)
    with serving(url, tmp_path) as program:
        program.signal(signal.SIGHUP)
        # Its relief, and then itself once more.
        wait_until(lambda: len(re.findall(r": ready$", program.output, re.M)) >= 3, ENDING)
        assert tasks.look.submit("ada").get(ENDING)["colour"] == "blue"
        program.signal(signal.SIGTERM)
        assert program.wait(ENDING) == 0


def test_burst_ends_when_the_work_is_done(flask, url):
    flask_apps.shop.create_app(GTASKMAN_URL=url)
    handle = tasks.look.submit("ada")
    done = flask("run", "--burst")
    assert done.code == 0, done.output
    assert handle.get(ENDING)["colour"] == "blue"


def test_workers_find_the_application_where_the_command_did(url, tmp_path):
    flask_apps.shop.create_app(GTASKMAN_URL=url)
    handle = tasks.look.submit("ada")
    done = run_python(
        "-m", "flask", "--app", "flask_apps.shop:create_app(COLOUR='pink')", "gtaskman", "run",
        "--burst", directory=tmp_path, env=environment(url), timeout=ENDING,
    )  # fmt: skip
    assert done.code == 0, done.output
    assert handle.get(ENDING)["colour"] == "pink"


def test_the_command_line_overrules_the_application(flask):
    done = flask("stats", "--url", "redis://127.0.0.1:1", "--patience", "0.1")
    assert done.code == 3, done.output


@pytest.mark.parametrize("command", [("stats",), ("run",)])
def test_the_queue_of_a_single_process_is_refused(tmp_path, command):
    done = run_python(
        "-m", "flask", "--app", "flask_apps.shop", "gtaskman", *command,
        directory=tmp_path, env=environment("memory://"), timeout=ENDING,
    )  # fmt: skip
    assert done.code == 2
    assert "memory:// is the queue of a single process" in done.output


def test_an_application_without_tasks_is_told_where_to_name_them(url, tmp_path):
    (tmp_path / "idle.py").write_text(
        "from flask import Flask\nfrom gtaskman.contrib.flask import GTaskman\n"
        f"app = Flask('idle')\napp.config['GTASKMAN_URL'] = {url!r}\n"
        "app.config.from_prefixed_env('IDLE')\nGTaskman(app)\n"
    )

    def run(**more: str) -> Completed:
        return run_python(
            "-m", "flask", "--app", "idle", "gtaskman", "run", "--burst",
            directory=tmp_path, timeout=ENDING,
            env={**environment(url), "PYTHONPATH": f"{tmp_path}:{HERE}", **more},
        )  # fmt: skip

    done = run()
    assert done.code == 2
    assert "GTASKMAN_PRELOAD" in done.output
    assert run(IDLE_GTASKMAN_PRELOAD='["flask_apps.plain"]').code == 0
