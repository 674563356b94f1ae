"""Services in real applications: patched, not patched, and within gunicorn."""

from __future__ import annotations

import os
import signal
import time
import urllib.error
import urllib.request

import pytest
from services import stories
from worlds import PATIENCE, SOON, START_METHODS, alive, run_python, wait_until

SCRIPTS = pytest.mark.parametrize("world", ["unpatched", "patched"], indirect=True)
PATCHED = pytest.mark.parametrize("world", ["patched"], indirect=True)


def ask(address):
    host, port = address
    with urllib.request.urlopen(f"http://{host}:{port}/", timeout=PATIENCE) as answer:
        return answer.read().decode()


def test_hello_and_bye(world):
    with world.start(stories.hello_and_bye) as run:
        up = run.told("up")
        # two services are reached over HTTP
        assert ask(up["hello"]) == f"Hello from {up['pids']['hello']}"
        assert ask(up["bye"]) == f"Bye from {up['pids']['bye']}"
        run.release("asked")
        run.told("changed")
        # a call has changed what one of them answers
        assert ask(up["hello"]) == f"Welcome from {up['pids']['hello']}"
        assert ask(up["bye"]) == f"Bye from {up['pids']['bye']}"
        run.release("asked again")
        result = run.result()
        # and a stop has ended all
        assert result["states"] == ["stopped", "stopped", "failed"]
        assert result["started"] == [1, 1, 3]
        assert not any(map(alive, result["pids"]))
        for name in ("hello", "bye"):
            with pytest.raises(urllib.error.URLError, match="refused"):
                ask(up[name])


@pytest.mark.parametrize("start_method", START_METHODS)
def test_calls_and_deaths(world, start_method):
    assert world.run(stories.calls_and_deaths, start_method=start_method) == 4


@SCRIPTS
@pytest.mark.parametrize("start_method", START_METHODS)
def test_nothing_survives_the_application(world, start_method, tmp_path, record_property):
    with world.start(stories.standing, start_method=start_method, directory=str(tmp_path)) as run:
        pids = run.told("ready")["pids"]
        assert len(pids) == 4
        os.kill(run.pid, signal.SIGKILL)
        begin = time.monotonic()
        wait_until(lambda: not any(map(alive, pids)), SOON, f"{pids} are gone", every=0.0005)
        gone = time.monotonic() - begin
        record_property("gone_ms", round(gone * 1e3, 1))
        print(f"gone after {gone * 1e3:.1f} ms")
        wait_until(lambda: not run.processes(), SOON, "all are gone")


@PATCHED
@pytest.mark.parametrize("start_method", START_METHODS)
def test_a_program_that_ends_stops_its_services(world, start_method):
    # (and the world itself sees to it that nothing is left)
    pids = world.run(stories.left_to_the_end, start_method=start_method)
    assert pids
    assert not any(map(alive, pids))


@pytest.mark.parametrize("world", ["unpatched"], indirect=True)
def test_who_asks_a_manager_whose_thread_has_ended_is_told(world):
    # (and the program ends, with nothing left)
    world.run(stories.deserted)


STOPPED_FROM_WITHIN = """
import gevent
import gtaskman

if __name__ == "__main__":
    config = gtaskman.Configuration(background=True)
    services = gtaskman.ServiceManager(config).start()
    services.home.post(gevent.spawn, services.stop)
    services.wait(20)
"""


def test_a_program_may_end_while_a_managers_thread_does(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(STOPPED_FROM_WITHIN)
    done = run_python(str(script), directory=tmp_path)
    assert done.code == 0, done.output


@PATCHED
@pytest.mark.parametrize("start_method", ["zygote", "spawn"])
def test_a_fork_of_the_application_holds_no_socket(world, start_method):
    assert world.run(stories.forked_servers, start_method=start_method) is True
