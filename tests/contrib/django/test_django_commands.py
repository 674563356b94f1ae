"""``manage.py gtaskman``: the commands as a user calls them, against a real server."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.test import override_settings
from django_site.library import tasks
from servers import RunningServer, any_kind
from worlds import SOON, Completed, Program, run_python, wait_until

import gtaskman

HERE = Path(__file__).resolve().parent
MANAGE = str(HERE / "django_site" / "manage.py")
ENDING = 30  # seconds, for whatever is on its way
NOWHERE = "redis://127.0.0.1:1"


@pytest.fixture(scope="module")
def server():
    with RunningServer(any_kind()) as running:
        yield running


@pytest.fixture
def url(server):
    """A server that is empty: it is not the environment that names it, but the settings."""
    server.command("FLUSHALL")
    return server.url


@pytest.fixture
def environment(site, url):
    return {
        **site,
        "PYTHONPATH": str(HERE),
        "DJANGO_SITE_GTASKMAN": json.dumps({"url": url, "max_processes": 2}),
        "GTASKMAN_URL": NOWHERE,
        "COLUMNS": "100",
    }


@pytest.fixture
def manage(environment, tmp_path):
    """Runs a command to its end."""

    def call(*words: str, **more: str) -> Completed:
        return run_python(
            MANAGE, "gtaskman", *words,
            directory=tmp_path, env={**environment, **more}, timeout=ENDING,
        )  # fmt: skip

    return call


@pytest.fixture
def serving(environment, tmp_path):
    """Runs a manager, until it is told to stop."""

    @contextlib.contextmanager
    def serve(*words: str, **more: str) -> Iterator[Program]:
        program = Program(
            [sys.executable, MANAGE, "gtaskman", "run", *words],
            tmp_path,
            {**environment, **more},
        )
        try:
            wait_until(lambda: "ready" in program.output, ENDING, program.story())
            yield program
        finally:
            program.kill()

    return serve


def test_they_are_those_of_gtaskman(manage):
    text = manage("--help").output
    for name in ("run", "submit", "status", "tasks", "cancel", "retry", "dead", "stats", "pause"):
        assert re.search(rf"^  {name} ", text, re.M)
    assert "manage.py gtaskman" in text


def test_run_takes_no_module(manage):
    text = manage("run", "--help").output
    assert "MODULE" not in text
    assert "--monkey" not in text
    assert "Serve the tasks of this site" in text
    assert "--burst" in text


def test_a_manager_serves_the_site(manage, serving, books):
    with serving() as program:
        assert "with 1 to 2 workers" in program.output
        assert "queues " in program.output
        assert "gtaskman.contrib.django.site from" in program.output
        done = manage("submit", "django_site.library.tasks.titles", "most=2", "--json")
        assert done.code == 0, done.output
        assert json.loads(done.output) == ["abacus", "basics"]
        done = manage("submit", "django_site.library.tasks.plain", "title=codes")
        assert (done.code, done.output.strip()) == (0, "5000")
        listed = json.loads(manage("tasks", "--json").output)
        assert [each["name"] for each in listed] == [
            "django_site.library.tasks.titles",
            "django_site.library.tasks.plain",
        ]
        # Options that all commands of Django have do no harm.
        done = manage("status", listed[0]["id"], "--settings", "django_site.settings")
        assert done.code == 0, done.output

        program.signal(signal.SIGTERM)

        assert program.wait(ENDING) == 0
        program.assert_nothing_left(SOON)


def test_the_site_sends_to_it_and_new_code_takes_over(fresh, url, serving, books):
    gtaskman.configure(url)
    with serving() as program:
        assert tasks.titles.submit(1).get(ENDING) == ["abacus"]
        assert tasks.Count(title="ba").submit().get(ENDING)[0] == 2
        program.signal(signal.SIGHUP)
        # Its relief, and then itself once more.
        wait_until(lambda: len(re.findall(r": ready$", program.output, re.M)) >= 3, ENDING)
        assert tasks.plain.submit("codes").get(ENDING) == 5000
        program.signal(signal.SIGTERM)
        assert program.wait(ENDING) == 0


def test_a_burst_ends_when_the_work_is_done(fresh, url, manage, books):
    gtaskman.configure(url)
    handle = tasks.add.submit("sent before", lines=3)
    done = manage("run", "--burst")
    assert done.code == 0, done.output
    assert handle.get(ENDING) == books.objects.get(title="sent before").pk


def test_processes_of_a_host_may_share_it_without_a_server(fresh, serving, site, books, tmp_path):
    socket = f"unix:{tmp_path}/run/gtaskman.sock"
    memory = json.dumps({"url": "memory://", "max_processes": 2})
    with serving("--bind", socket, DJANGO_SITE_GTASKMAN=memory, GTASKMAN_URL=""):
        gtaskman.configure(f"unix://{tmp_path}/run/gtaskman.sock")
        from gtaskman.contrib.django import offload

        assert tasks.titles.submit(1).get(ENDING) == ["abacus"]
        # Nothing leaves this host: queries go there, too.
        assert offload(books).get(title="codes").lines == 5000
        with pytest.raises(books.DoesNotExist):
            offload(books).get(title="none")


def test_the_command_line_overrules_the_settings(manage):
    assert manage("stats").code == 0
    done = manage("stats", "--url", NOWHERE, "--patience", "0.1")
    assert done.code == 3, done.output


@pytest.mark.parametrize("command", ["stats", "run"])
def test_the_queue_of_a_single_process_is_no_server(manage, command):
    done = manage(command, DJANGO_SITE_GTASKMAN="{}", GTASKMAN_URL="")
    assert done.code == 2
    assert "which server?" in done.output


def test_a_setting_that_is_wrong(manage):
    done = manage("stats", DJANGO_SITE_GTASKMAN='{"nonsense": 1}')
    assert done.code != 0
    assert "GTASKMAN has no key 'nonsense'" in done.output


def test_a_site_without_tasks_is_told_where_to_name_them(manage, tmp_path):
    (tmp_path / "idle.py").write_text(
        "from django_site.settings import *\n"
        "INSTALLED_APPS = ['gtaskman.contrib.django']\n"
        "import os, json\n"
        "GTASKMAN['preload'] = json.loads(os.environ.get('IDLE_PRELOAD', '[]'))\n"
        "TASKS = {}\n"
    )
    (tmp_path / "work.py").write_text(
        "import gtaskman\n\n@gtaskman.task\ndef double(n): return 2 * n\n"
    )
    changed = {"DJANGO_SETTINGS_MODULE": "idle", "PYTHONPATH": f"{tmp_path}:{HERE}"}
    done = manage("run", "--burst", **changed)
    assert done.code == 1
    assert "'preload' of the setting GTASKMAN" in done.output
    assert manage("run", "--burst", IDLE_PRELOAD='["work"]', **changed).code == 0


def test_from_code(fresh, url, capsys, monkeypatch):
    monkeypatch.setenv("GTASKMAN_URL", NOWHERE)  # it is set by the command
    with override_settings(GTASKMAN={"url": url}):
        call_command("gtaskman", "stats", "--json")
        assert json.loads(capsys.readouterr().out) == []
        with pytest.raises(CommandError, match="knows no task 'nobody'") as caught:
            call_command("gtaskman", "status", "nobody")
        assert caught.value.returncode == 6
        with pytest.raises(CommandError, match="No such command"):
            call_command("gtaskman", "nonsense")
