"""Embedded in a gunicorn gevent worker: made on first use in a request, gone with its worker."""

from __future__ import annotations

import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import gevent
import pytest
from scenarios import web
from worlds import SOON, START_METHODS, Run, World, alive, listening, spec_of, wait_until


@pytest.fixture
def serve(tmp_path):
    """Gives gunicorn's world with a default manager of this configuration."""

    def serving(gunicorn=None, env=None, **config):
        configured = {"max_processes": 2, **config}
        return World("gunicorn", tmp_path).serve(
            gunicorn=gunicorn, env={"WORLD_CONFIGURE": json.dumps(configured), **(env or {})}
        )

    return serving


def make_busy(run: Run) -> dict[str, int]:
    """Have one worker of the application blocked, and one idle."""
    before = len(run.all_told("busy"))
    run.post(spec_of(web.tasks_that_never_end, {}))
    run.told("busy")
    return wait_until(lambda: run.all_told("busy")[before:])[0]


def of_gunicorn(run: Run) -> set[int]:
    """The arbiter and its children, of which none is ours."""
    return {each.pid for each in run.processes() if run.leader in (each.pid, each.parent)}


def offspring(run: Run) -> set[int]:
    return {each.pid for each in run.processes()} - of_gunicorn(run)


@pytest.mark.parametrize("start_method", START_METHODS)
def test_nothing_is_started_before_the_first_submit(serve, start_method):
    with serve(start_method=start_method) as run:
        assert run.get()["pid"] == run.pid
        assert {each.pid for each in run.processes()} == {run.leader, run.pid}

        worker = run.get("/task?name=where")

        assert worker not in (run.leader, run.pid)
        assert alive(worker)
        assert run.get("/task?name=double&number=21") == 42


@pytest.mark.parametrize("start_method", START_METHODS)
def test_greenlets_share_the_workers_and_requests_go_on(serve, start_method):
    with serve(start_method=start_method) as run:
        run.post(spec_of(web.several_greenlets_at_once, {"count": 8, "seconds": 1}))
        run.told("begun")
        delays = []
        while not run.all_told("result"):
            begin = time.monotonic()
            assert run.get()["pid"] == run.pid
            delays.append(time.monotonic() - begin)
            gevent.sleep(0.02)
        told = run.result()

    assert 4.0 <= told["seconds"] < 6.0
    assert len(told["workers"]) == 2
    # Eight seconds of computing stood in nobody's way.
    assert len(delays) > 20
    assert sorted(delays)[len(delays) // 2] < 0.1
    assert max(delays) < 1.0


def test_eight_requests_at_once_share_the_workers(serve):
    with serve() as run, ThreadPoolExecutor(8) as threads:
        run.get("/task?name=where")
        begin = time.monotonic()
        workers = list(threads.map(run.get, ["/task?name=spin&seconds=1"] * 8))
        taken = time.monotonic() - begin

    assert 4.0 <= taken < 6.0
    assert len(set(workers)) == 2


@pytest.mark.parametrize("preload", [False, True], ids=["", "preload"])
@pytest.mark.parametrize("start_method", START_METHODS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT, signal.SIGINT, signal.SIGKILL])
def test_no_orphan_when_the_server_ends(serve, start_method, number, preload):
    config = {"start_method": start_method, "stop_timeout": 0.5, "kill_grace": 0.5}
    with serve({"preload_app": preload}, **config) as run:
        busy = make_busy(run)
        assert {busy["blocked"], busy["idle"]} <= offspring(run)

        run.signal(number)

        run.wait(20)
        # After a kill -9 of the arbiter its worker finds out by itself, once in a second.
        run.assert_nothing_left(SOON if number != signal.SIGKILL else 15)
        assert not listening(run.port)


@pytest.mark.parametrize("start_method", START_METHODS)
def test_a_reload_leaves_nothing_of_the_old_generation(serve, start_method):
    with serve(start_method=start_method, stop_timeout=0.5, kill_grace=0.5) as run:
        make_busy(run)
        old = offspring(run) | {run.pid}

        run.signal(signal.SIGHUP)

        second = wait_until(lambda: run.all_told("worker")[1:])[0]["pid"]
        wait_until(lambda: not any(map(alive, old)), 15, "the old generation is gone")
        busy = make_busy(run)
        assert busy["idle"] not in old
        assert run.get()["pid"] == second
        assert offspring(run) >= {busy["idle"], busy["blocked"]}


def test_a_request_that_waits_for_a_task_is_answered_before_the_end(serve):
    with serve() as run, ThreadPoolExecutor(1) as threads:
        run.get("/task?name=where")
        answer = threads.submit(run.get, "/task?name=spin&seconds=1")
        wait_until(lambda: len(run.all_told("task")) == 2)

        run.signal(signal.SIGTERM)

        assert answer.result(10) != run.pid
        assert run.wait() == 0
        run.assert_nothing_left()


def test_a_worker_that_is_replaced_takes_its_own_along(serve):
    with serve({"max_requests": 3}) as run:
        first = run.get("/task?name=where")
        for _ in range(3):
            wait_until(lambda: _answers(run))
        wait_until(lambda: not alive(run.pid) and not alive(first), 15, "the first one is gone")
        second = wait_until(lambda: run.all_told("worker")[1:])[0]["pid"]
        assert run.get("/task?name=where") not in (first, second)


def _answers(run):
    try:
        return run.get()["pid"]
    except OSError:
        return None  # the one that was to answer has just ended


def test_a_preloaded_application_starts_nothing_in_the_master(serve):
    with serve({"preload_app": True}) as run:
        assert run.told("imported")["pid"] == run.leader
        assert run.get("/task?name=double&number=21") == 42
        children = [each for each in run.processes() if each.parent == run.leader]
        assert [each.pid for each in children] == [run.pid]


def test_what_a_preloaded_application_starts_in_the_master_stays_there(serve):
    """Wrong, as the documentation says, but it must not hang, nor share workers, nor survive."""
    with serve({"preload_app": True}, {"WORLD_SUBMIT_AT_IMPORT": "yes"}) as run:
        in_master, masters_template = run.told("at import")["lineage"]
        worker, template = run.get("/task?name=lineage")
        assert worker != in_master
        assert template != masters_template
        assert alive(masters_template)
        os.kill(run.pid, signal.SIGKILL)
        wait_until(lambda: not alive(worker) and not alive(template), SOON)
        wait_until(lambda: run.all_told("worker")[1:])
        assert alive(masters_template)
        assert run.get("/task?name=double&number=21") == 42
