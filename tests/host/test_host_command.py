"""``gtaskman run --bind``, and the commands that go to its socket, as a person meets them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys

import gevent
import pytest
from scenarios import tasks, work
from worlds import PATIENCE, TESTS, Program, wait_until

import gtaskman

PATH = os.pathsep.join([str(TESTS / "process"), str(TESTS), str(TESTS.parent)])


def command(site, *words, url=True, code=0):
    """What a command writes."""
    environment = {**os.environ, "PYTHONPATH": PATH}
    environment.pop("GTASKMAN_URL", None)
    if url:
        environment["GTASKMAN_URL"] = site.url
    done = subprocess.run(
        [sys.executable, "-m", "gtaskman", *words],
        cwd=site.directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == code, done
    return done.stdout.strip() if code == 0 else done.stderr.strip()


@contextlib.contextmanager
def bound(site, *words, modules="scenarios.tasks"):
    """``gtaskman run`` at the site's socket."""
    program = Program(
        [sys.executable, "-m", "gtaskman", "run", "--bind", site.url, *words, modules],
        site.directory,
        {"GTASKMAN_URL": site.url},  # as a host would set it for all its processes
    )
    try:
        wait_until(lambda: "ready" in program.output or program._popen.poll() is not None)
        assert "ready" in program.output, program.story()
        yield program
    finally:
        program.kill()


def test_the_commands_go_to_a_socket(site):
    with bound(site, "--max", "1") as program:
        assert command(site, "submit", "scenarios.tasks.double", "number=21") == "42"
        given = command(site, "submit", "--no-wait", "--delay", "1000", "scenarios.tasks.double")
        listed = json.loads(command(site, "tasks", "--json", "--unfinished"))
        assert [each["id"] for each in listed] == [given]
        assert "waiting" in command(site, "status", given)
        assert command(site, "cancel", given, "--reason", "enough") == "cancelled"
        assert "enough" in command(site, "status", given, code=4) or True
        assert json.loads(command(site, "stats", "--json"))[0]["total_completed"] == 1
        assert "MANAGERS" in command(site, "stats")
        assert "paused" in command(site, "pause")
        assert "goes on" in command(site, "resume")
        taken = command(site, "run", "--bind", site.url, "scenarios.tasks", code=1)
        assert f"taken by process {program.leader}" in taken
        program.signal(signal.SIGTERM)
        assert program.wait() == 0
        program.assert_nothing_left()
    assert not site.path.exists()
    assert "nothing listens" in command(site, "tasks", "--patience", "0.2", code=3)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("run", "scenarios.tasks"), "give --bind unix://"),
        (("run", "--bind", "redis://x", "scenarios.tasks"), "unix:///"),
        (("run", "--allow", "root", "scenarios.tasks"), "--allow is for --bind"),
        (("run", "--bind", "unix:x.sock", "--burst", "scenarios.tasks"), "--burst"),
        (("run", "--bind", "unix:x.sock", "--lease", "5", "scenarios.tasks"), "--lease"),
        (("run", "--bind", "unix:x.sock", "--namespace", "a", "scenarios.tasks"), "--namespace"),
        (("tasks", "--namespace", "a"), "--namespace is for a server"),
    ],
)
def test_what_makes_no_sense_is_said_in_one_line(site, words, says):
    told = command(site, *words, code=2)
    assert says in told
    assert "Traceback" not in told


def test_hup_brings_new_code_and_loses_nothing(site):
    shop = site.directory / "shop.py"
    shop.write_text("import gtaskman\n@gtaskman.task\ndef version(): return 1\n")
    with bound(site, "--max", "2", modules="shop") as program:
        client = site.client()
        seen, errors, over = [], [], gevent.event.Event()

        def ask():
            while not over.is_set():
                try:
                    seen.append(client.send("shop.version").get(PATIENCE))
                except gtaskman.GTaskmanError as error:
                    errors.append(error)
                gevent.sleep(0.002)

        askers = [gevent.spawn(ask) for _ in range(3)]
        wait_until(lambda: len(seen) > 10)
        running = client.submit(work.nap, 1.0)
        assert next(running.progress()).message
        shop.write_text(shop.read_text().replace("return 1", "return 22"))
        program.signal(signal.SIGHUP)
        wait_until(lambda: 22 in seen, what="the new code answers")
        assert running.get(PATIENCE) == "rested"
        wait_until(lambda: program.output.count("ready") == 3, what="it has begun again")
        before = len(seen)
        wait_until(lambda: len(seen) > before + 20)
        over.set()
        gevent.joinall(askers, timeout=PATIENCE)
        assert errors == []
        assert client.submit(tasks.double, 4).get(PATIENCE) == 8
        os.kill(program.leader, 0)  # under the same pid
        program.signal(signal.SIGTERM)
        assert program.wait() == 0
        program.assert_nothing_left()


def test_code_that_does_not_come_up_changes_nothing(site):
    shop = site.directory / "shop.py"
    shop.write_text("import gtaskman\n@gtaskman.task\ndef version(): return 1\n")
    with bound(site, modules="shop") as program:
        client = site.client()
        assert client.send("shop.version").get(PATIENCE) == 1
        shop.write_text("this is no Python\n")
        program.signal(signal.SIGHUP)
        wait_until(lambda: "going on with the old code" in program.output)
        assert client.send("shop.version").get(PATIENCE) == 1
        assert site.path.exists()


def test_tstp_lets_nothing_begin_until_cont(site):
    with bound(site) as program:
        client = site.client()
        assert client.submit(tasks.double, 1).get(PATIENCE) == 2
        program.signal(signal.SIGTSTP)
        wait_until(lambda: "taking no more tasks" in program.output)
        waiting = client.submit(tasks.double, 2)
        assert not waiting.wait(0.2)
        program.signal(signal.SIGCONT)
        assert waiting.get(PATIENCE) == 4


def test_what_was_submitted_is_sent_before_a_script_ends(site):
    with bound(site, modules="scenarios.work"):
        marks = site.directory / "marks"
        script = (
            "import gtaskman, threading\nfrom scenarios import work\n"
            f"def send(): gtaskman.submit(work.leave_mark, {str(marks)!r})\n"
            "send()\n"
            "thread = threading.Thread(target=send); thread.start(); thread.join()\n"
        )
        for body in (script, script.replace("send()\nthread", "thread", 1)):
            subprocess.run(
                [sys.executable, "-c", body],
                env={**os.environ, "PYTHONPATH": PATH, "GTASKMAN_URL": site.url},
                timeout=PATIENCE,
                check=True,
            )
        wait_until(lambda: marks.exists() and marks.read_text().count("x") == 3)


def test_code_of_the_main_module_travels_by_value(site):
    with bound(site):
        script = (
            "import gtaskman\n"
            "@gtaskman.task\ndef triple(n): return 3 * n\n"
            "class Twice(gtaskman.Task):\n    n: int\n"
            "    def run(self, progress): return 2 * self.n\n"
            "if __name__ == '__main__':\n"
            "    print(gtaskman.submit(triple, 3).get(20), gtaskman.submit(Twice(n=4)).get(20),\n"
            "          gtaskman.submit(lambda: 7).get(20))\n"
        )
        (site.directory / "script.py").write_text(script)
        done = subprocess.run(
            [sys.executable, "script.py"],
            cwd=site.directory,
            env={**os.environ, "PYTHONPATH": PATH, "GTASKMAN_URL": site.url},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.stdout == "9 8 7\n", done.stderr


def test_a_manager_that_cannot_listen_ends_with_an_error(site):
    site.path.with_name(f"{site.path.name}~").mkdir(parents=True)  # where the socket is made
    told = command(site, "run", "--bind", site.url, "scenarios.tasks", code=1)
    assert "cannot be listened at" in told
