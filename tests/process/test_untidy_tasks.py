"""What a task leaves behind, or does at its end, harms neither its worker nor its neighbours."""

from __future__ import annotations

import os
import subprocess
import sys

import gevent
import pytest
from scenarios import untidy, work
from scenarios.control import fate, running
from worlds import PATIENCE, alive, wait_until

import gtaskman

KINDS = pytest.mark.parametrize("kind", ["sync", "async"])


@pytest.fixture
def one(make_manager):
    """Makes a manager with one worker."""

    def make(**config):
        manager = make_manager(max_processes=1, kill_grace=PATIENCE, **config)
        manager.wait_ready(PATIENCE)
        return manager

    return make


def lines(path):
    return path.read_text().split("\n")[:-1] if path.exists() else []


def get(manager, task, *args):
    return manager.submit(task, *args).get(timeout=PATIENCE)


# --- left behind


@pytest.mark.parametrize("reuse", [False, True], ids=["", "reuse"])
@KINDS
def test_a_timeout_that_a_task_left_hits_no_other(one, tmp_path, kind, reuse):
    manager, path = one(reuse_greenlets=reuse), tmp_path / "gate"
    pid = get(manager, work.whoami)
    # given a task that left a timeout running, and one after it that waits for longer
    get(manager, untidy.of(kind, "leave_timeout"), 0.05)
    handle = manager.submit(untidy.of(kind, "wait_for"), str(path), "go")
    gevent.sleep(0.3)
    path.write_text("go\n")
    # expect it to be unharmed, and the worker as well
    assert handle.get(timeout=PATIENCE) == "came"
    assert get(manager, work.whoami) == pid


@KINDS
def test_a_timeout_that_a_task_left_does_not_end_an_idle_worker(one, kind):
    manager = one(reuse_greenlets=True)
    pid = get(manager, work.whoami)
    get(manager, untidy.of(kind, "leave_timeout"), 0.05)
    gevent.sleep(0.3)
    assert [get(manager, untidy.of(kind, "number"), each) for each in range(5)] == [
        (each, pid) for each in range(5)
    ]


@pytest.mark.parametrize("leave", [untidy.leave_timeout, untidy.leave_throw])
def test_what_is_to_raise_into_a_task_is_noticed_after_much_that_is_harmless(one, tmp_path, leave):
    manager, path = one(), tmp_path / "gate"
    pid = get(manager, work.whoami)
    for _ in range(20):
        get(manager, untidy.leave_greenlet)
    get(manager, leave, 0.05)
    handle = manager.submit(untidy.wait_for, str(path), "go")
    gevent.sleep(0.3)
    path.write_text("go\n")
    assert handle.get(timeout=PATIENCE) == "came"
    assert get(manager, work.whoami) == pid


@pytest.mark.parametrize("start_method", ["zygote", "spawn", "fork"])
@pytest.mark.parametrize("handled", [True, False], ids=["handled", ""])
@KINDS
def test_an_alarm_that_a_task_left_rings_in_no_other(one, kind, handled, start_method):
    manager = one(start_method=start_method)
    pid = get(manager, work.whoami)
    get(manager, untidy.of(kind, "leave_alarm"), 0.3, handled)
    assert get(manager, work.compute, 0.6) == pid
    assert get(manager, work.whoami) == pid


@pytest.mark.parametrize("apart", [False, True], ids=["", "apart"])
def test_an_alarm_that_rings_as_its_task_ends_loses_no_end(one, apart):
    manager = one()
    pid = get(manager, work.whoami)
    if apart:
        get(manager, untidy.leave_throw, 600)
    handles = [manager.submit(untidy.leave_alarm, 1e-4 + at % 40 * 5e-6, True) for at in range(400)]
    for handle in handles:
        ended = fate(handle)
        assert ended == "left" or isinstance(ended, gtaskman.TaskFailed), ended
    assert get(manager, work.whoami) == pid


def test_a_worker_is_reached_after_a_task_that_replaced_the_handler_of_its_bell(one):
    manager = one()
    get(manager, untidy.leave_bell)
    pid = get(manager, work.whoami)
    handle = manager.submit(work.spin)
    running(handle)
    assert handle.cancel("enough")
    assert isinstance(fate(handle), gtaskman.TaskCancelled)
    assert get(manager, work.whoami) == pid


@KINDS
@pytest.mark.parametrize("left_by", ["sync", "async"])
def test_an_exit_in_a_greenlet_that_a_task_left_harms_no_other(one, tmp_path, kind, left_by):
    manager, path = one(), tmp_path / "gate"
    pid = get(manager, work.whoami)
    get(manager, untidy.of(left_by, "leave_exit"), str(path))
    handle = manager.submit(untidy.of(kind, "wait_for"), str(path), "exits")
    path.write_text("\n")
    assert handle.get(timeout=PATIENCE) == "came"
    assert get(manager, work.whoami) == pid


@KINDS
def test_what_a_task_prints_does_not_wait_for_the_next_one(tmp_path, kind):
    script = tmp_path / "printing.py"
    script.write_text(
        "import sys, gevent, gtaskman\n"
        "from scenarios import untidy\n"
        "if __name__ == '__main__':\n"
        "    config = gtaskman.Configuration(max_processes=1)\n"
        "    with gtaskman.TaskManager(config=config) as manager:\n"
        f"        manager.submit(untidy.of({kind!r}, 'say'), 'a line').get()\n"
        "        sys.stdin.readline()\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    with subprocess.Popen(
        [sys.executable, str(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
    ) as process:
        try:
            # expect it while the worker lives and has nothing else to do
            assert process.stdout.readline() == "a line\n"
        finally:
            process.stdin.write("\n")
            process.stdin.close()


# --- native threads


def test_progress_from_native_threads_loses_no_result(one):
    manager = one()
    writing = manager.submit(untidy.write_from_threads, 3, 20_000, "x" * 50)
    while not writing.done():
        handles = [manager.submit(untidy.number_async, each) for each in range(40)]
        assert [handle.get(timeout=PATIENCE)[0] for handle in handles] == list(range(40))
    assert writing.get() == "written"
    assert writing.report.message == "last"


@KINDS
def test_the_last_update_of_a_native_thread_is_in_the_report(one, kind):
    handle = one().submit(untidy.of(kind, "write_last_from_thread"))
    assert handle.get(timeout=PATIENCE) == "written"
    assert handle.report.message == "by a thread"


def test_progress_from_a_native_thread_arrives_while_its_task_blocks_the_hub(one, tmp_path):
    path = tmp_path / "gate"
    handle = one().submit(untidy.write_from_thread_of_a_blocked_task, str(path))
    wait_until(lambda: handle.report.message == "meanwhile")
    path.write_text("")
    assert handle.get(timeout=PATIENCE) == "unblocked"


# --- forks


@KINDS
@pytest.mark.parametrize(
    ("how", "code"),
    [("exit", 5), ("exit with words", 1), ("raise", 1), ("return", 0), ("wait", 0)],
)
def test_a_fork_that_a_task_made_ends_with_it(one, tmp_path, kind, how, code):
    manager, path = one(), tmp_path / "forks"
    pid = get(manager, work.whoami)
    assert get(manager, untidy.of(kind, "fork"), how, str(path)) == code
    (line,) = lines(path)
    assert not alive(int(line.split()[1]))
    # expect that nothing but the worker answers
    handles = [manager.submit(untidy.of(kind, "number"), each) for each in range(100)]
    assert [handle.get(timeout=PATIENCE) for handle in handles] == [(n, pid) for n in range(100)]


# --- the doorbell


@pytest.mark.parametrize("room", [6, 10, 14, 18, 22, 23, 24, 30])
def test_a_task_near_the_recursion_limit_is_not_harmed_by_those_behind_it(one, tmp_path, room):
    manager, begun = one(prefetch=4), tmp_path / "begun"
    computing = manager.submit(untidy.compute_near_the_recursion_limit, room, 0.3, str(begun))
    behind = [manager.submit(untidy.number, each) for each in range(3)]
    wait_until(lambda: lines(begun))
    assert manager.stacks(PATIENCE)
    assert [handle.get(timeout=PATIENCE)[0] for handle in behind] == [0, 1, 2]
    assert computing.get(timeout=PATIENCE) == ("computed", True) or room < 10


# --- cancelled where nothing may interrupt it


@KINDS
def test_a_task_that_is_cancelled_while_it_is_decoded_does_not_begin(one, tmp_path, kind):
    manager, path = one(), tmp_path / "gate"
    pid = get(manager, work.whoami)
    handle = manager.submit(untidy.of(kind, "touch"), untidy.WaitsWhenDecoded(str(path)))
    wait_until(lambda: lines(path))
    assert handle.cancel("too late")
    with path.open("a") as file:
        file.write("go\n")
    error = fate(handle)
    assert type(error) is gtaskman.TaskCancelled, error
    assert "ran" not in lines(path)
    assert get(manager, work.whoami) == pid


def test_a_task_that_is_cancelled_while_its_result_is_pickled_ends(one, tmp_path):
    manager, path = one(), tmp_path / "begun"
    pid = get(manager, work.whoami)
    handle = manager.submit(untidy.give_slow_async, str(path))
    wait_until(lambda: lines(path))
    assert handle.cancel("enough")
    assert type(fate(handle)) is gtaskman.TaskCancelled
    assert get(manager, work.whoami) == pid


# --- odd results and exceptions


@KINDS
@pytest.mark.parametrize("how", ["exit", "interrupt", "base"])
def test_a_base_exception_while_a_result_is_pickled_fails_its_task(one, kind, how):
    manager = one()
    pid = get(manager, work.whoami)
    error = fate(manager.submit(untidy.of(kind, "give_odd"), how))
    assert type(error) is gtaskman.TaskFailed, error
    assert get(manager, work.whoami) == pid


@KINDS
@pytest.mark.parametrize("how", ["str", "reduce", "surrogate", "name"])
def test_an_exception_that_cannot_be_shown_or_pickled_fails_its_task(one, kind, how):
    manager = one(max_frame=1024 * 1024)
    pid = get(manager, work.whoami)
    error = fate(manager.submit(untidy.of(kind, "raise_odd"), how))
    assert type(error) is gtaskman.TaskFailed, error
    report = error.report
    for text in (report.message, report.error.message, report.exc_type, report.traceback):
        text.encode()  # no lone surrogate: any storage takes it
    if how == "surrogate":
        assert error.message == "cannot open caf\\udce9.txt"
        assert str(error.__cause__) == "cannot open caf\udce9.txt"
    assert get(manager, work.whoami) == pid


@KINDS
def test_the_message_of_a_failure_by_the_pen_is_kept(one, kind):
    error = fate(one().submit(untidy.of(kind, "fail_with_message"), "three files are left"))
    assert error.report.message == "three files are left"
    assert (error.exc_type, error.message) == ("LookupError", "the reason")
