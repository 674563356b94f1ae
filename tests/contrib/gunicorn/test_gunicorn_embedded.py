"""A manager in each gunicorn worker: when it begins, and how it ends with its worker."""

from __future__ import annotations

import os
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from worlds import SOON, alive, wait_until

QUICK = {"kill_grace": 0.5, "max_processes": 2}


def offspring(gunicorn, parent):
    """The pids of the processes that another one has started."""
    return {each.pid for each in gunicorn.processes() if each.parent == parent}


def begin(gunicorn, task="for_ever", name="job", **more):
    """Submit a task, and wait until it runs; its id and the worker that it runs in."""
    given = "".join(f"&{key}={value}" for key, value in more.items())
    task_id = gunicorn.get(f"/submit?task={task}&name={name}{given}")
    return task_id, gunicorn.wait_for(f"{name}.begun")


def test_the_manager_begins_with_the_first_submit(serve):
    gunicorn = serve(**QUICK)
    (worker,) = gunicorn.workers()
    assert gunicorn.others() == []

    where = gunicorn.get("/run?task=where")["lineage"]

    assert where[2] == worker
    assert gunicorn.get("/stats")["pool"]["max_processes"] == 2
    gunicorn.stop()


def test_a_submit_while_the_application_is_imported_has_the_options(serve):
    gunicorn = serve({"submits_at_import": True}, max_processes=1, min_processes=1)
    assert gunicorn.get("/stats")["pool"]["max_processes"] == 1
    gunicorn.stop()


@pytest.mark.parametrize("preload", [False, True])
def test_the_manager_begins_with_its_worker_if_one_says_so(serve, preload):
    gunicorn = serve({"workers": 2, "preload_app": preload}, start=True, **QUICK)
    gunicorn.wait_told("post_worker_init", 2)

    for worker in gunicorn.workers():
        wait_until(
            lambda worker=worker: [each for each in gunicorn.others() if each.parent == worker]
        )
    # The master has nobody but its workers.
    assert offspring(gunicorn, gunicorn.leader) == gunicorn.workers()
    gunicorn.stop()


def test_hooks_of_the_user_are_called_wherever_they_stand(serve):
    gunicorn = serve(start=True, **QUICK)
    first = gunicorn.wait_served()
    assert gunicorn.told("nworkers_changed") == [gunicorn.leader]

    gunicorn.signal(signal.SIGHUP)
    gunicorn.wait_told("post_worker_init", 2)
    gunicorn.wait_gone(first)
    second = gunicorn.wait_served()
    gunicorn.stop(signal.SIGINT)

    assert gunicorn.told("pre_fork") == [gunicorn.leader] * 2
    assert gunicorn.told("post_worker_init") == [first, second]
    assert gunicorn.told("on_reload") == [gunicorn.leader]
    assert gunicorn.told("worker_int") == [second]
    assert set(gunicorn.told("worker_exit")) == {first, second}
    assert gunicorn.told("on_exit") == [gunicorn.leader]


def terminate(gunicorn):
    gunicorn.signal(signal.SIGTERM)


def reload(gunicorn):
    gunicorn.signal(signal.SIGHUP)


def one_less(gunicorn):
    # The oldest one goes: the one that has the task.
    gunicorn.signal(signal.SIGTTIN)
    gunicorn.wait_told("post_worker_init", 2)
    gunicorn.signal(signal.SIGTTOU)


def wear_out(gunicorn):
    (worker,) = gunicorn.workers()
    while worker in gunicorn.workers() and not gunicorn.told("worker_exit"):
        try:
            gunicorn.get()
        except OSError:
            break  # it takes no more


@pytest.mark.parametrize("end", [terminate, reload, one_less, wear_out])
def test_tasks_that_nobody_waits_for_are_finished_before_the_worker_ends(serve, end):
    gunicorn = serve({"max_requests": 5 if end is wear_out else 0}, **QUICK)
    (worker,) = gunicorn.workers()
    begin(gunicorn, "compute", "first", seconds=2)
    begin(gunicorn, "compute", "second", seconds=1)
    gunicorn.get("/submit?task=compute&name=third&seconds=0")

    end(gunicorn)

    gunicorn.wait_gone(worker)
    assert all(map(gunicorn.has, ("first", "second", "third")))
    assert "lost" not in gunicorn.output
    if end is terminate:
        assert gunicorn.wait() == 0
        gunicorn.assert_nothing_left()
    else:
        gunicorn.wait_served()
        gunicorn.stop()


@pytest.mark.parametrize("task", ["for_ever", "stubborn"])
def test_what_has_no_time_to_finish_is_lost_aloud_and_in_time(serve, task):
    gunicorn = serve({"graceful_timeout": 3}, **QUICK)
    running, worker = begin(gunicorn, task)
    waiting = [gunicorn.get(f"/submit?task={task}&name={name}") for name in ("a", "b", "c")]
    begun = time.monotonic()

    gunicorn.stop()

    assert time.monotonic() - begun < 7
    assert not alive(worker)
    line = re.search(r"gtaskman: 4 tasks .* lost: (.*)", gunicorn.output)
    assert line, gunicorn.story()
    assert set(re.findall(r"\((.*?)\)", line[1])) == {running, *waiting}
    assert gunicorn.told("worker_exit")  # and gunicorn did not have to kill it


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_an_impatient_end_cancels_at_once(serve, number):
    gunicorn = serve({"graceful_timeout": 30}, **QUICK)
    running, worker = begin(gunicorn)
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(gunicorn.get, "/run?task=for_ever&name=asked")
        gunicorn.wait_for("asked.begun")

        gunicorn.stop(number, timeout=10)

        assert asked.exception() or "TaskCancelled" in asked.result()
    assert not alive(worker)
    assert re.search(rf"gtaskman: 2 tasks .* lost: .*{running}", gunicorn.output)


def test_a_drain_is_cut_short_by_an_impatient_end(serve):
    gunicorn = serve({"graceful_timeout": 60, "timeout": 60}, **QUICK)
    running, _ = begin(gunicorn)
    (worker,) = gunicorn.workers()
    gunicorn.signal(signal.SIGTERM)
    gunicorn.wait_told("worker_exit")

    os.kill(worker, signal.SIGQUIT)

    assert gunicorn.wait(10) == 0
    gunicorn.assert_nothing_left()
    assert re.search(rf"gtaskman: 1 task .* lost: .*{running}", gunicorn.output)


def test_a_worker_that_hangs_is_given_up_with_its_tasks(serve):
    gunicorn = serve({"timeout": 2}, **QUICK)
    _, busy = begin(gunicorn)
    first = gunicorn.wait_served()
    with ThreadPoolExecutor(1) as threads:
        threads.submit(gunicorn.get, "/hang")
        gunicorn.wait_for("hanging")
        gunicorn.wait_gone(first, busy)

    assert gunicorn.told("worker_abort") == [first]  # the user's own
    assert "gives up this worker, and its tasks with it: 1 run" in gunicorn.output
    assert gunicorn.wait_served() != first
    gunicorn.stop()


def test_nothing_outlives_a_worker_that_is_killed(serve):
    gunicorn = serve({"workers": 2}, **QUICK)
    gunicorn.wait_told("post_worker_init", 2)
    _, busy = begin(gunicorn)
    (owner,) = gunicorn.workers() & {parent.parent for parent in gunicorn.others()}

    os.kill(owner, signal.SIGKILL)

    gunicorn.wait_gone(owner, busy, timeout=SOON)
    gunicorn.wait_told("post_worker_init", 3)
    assert gunicorn.get("/run?task=where")["lineage"][2] in gunicorn.workers()
    gunicorn.stop()


def test_nothing_outlives_a_master_that_is_killed(serve):
    gunicorn = serve({"workers": 2, "graceful_timeout": 60}, start=True, **QUICK)
    gunicorn.wait_told("post_worker_init", 2)
    begin(gunicorn)

    gunicorn.signal(signal.SIGKILL)

    # gunicorn's workers look for their master once in a second.
    gunicorn.assert_nothing_left(10)


def test_two_masters_have_nothing_in_common(serve):
    gunicorn = serve(**QUICK)
    old = gunicorn.leader
    begin(gunicorn, "compute", seconds=3)
    gunicorn.signal(signal.SIGUSR2)
    gunicorn.wait_told("post_worker_init", 2)
    second = gunicorn.told("pre_fork")[-1]
    assert second != old

    gunicorn.signal(signal.SIGTERM)

    assert gunicorn.wait() == 0
    assert gunicorn.has("job")
    assert gunicorn.get("/run?task=where")["lineage"][3] == second
    os.kill(second, signal.SIGTERM)
    gunicorn.assert_nothing_left(10)
