"""What belongs to the application stays there: code, signals, sockets, requests."""

from __future__ import annotations

import collections
import os
import signal
import socket
import urllib.request

import pytest
from scenarios import hygiene
from worlds import (
    SOON,
    START_METHODS,
    internet_sockets,
    listening,
    sockets,
    wait_until,
)

EXECED = ("zygote", "spawn")


@pytest.fixture
def peer():
    """A server of somebody else's."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        yield server


# --- 1: nothing of the application runs in a worker ----------------------------------------------


@pytest.mark.parametrize("start_method", START_METHODS)
def test_no_step_of_the_application_runs_in_a_worker(world, start_method, tmp_path):
    diary = tmp_path / "diary"

    told = world.run(
        hygiene.an_application_full_of_life, path=str(diary), start_method=start_method
    )

    entries = [line.split(maxsplit=1) for line in diary.read_text().splitlines()]
    counted = collections.Counter(what for _, what in entries)
    # The application itself wrote what it should: the diary can be trusted.
    assert counted["greenlet began"] == counted["finally"] == 100
    assert counted["thread began"] == 3
    assert counted["atexit"] == 1
    strangers = collections.Counter(what for pid, what in entries if int(pid) != told["pid"])
    assert strangers == {}
    assert told["pid"] not in told["workers"]
    assert told["codes"] == [3]
    assert told["signals"] == ["SIGUSR2", "SIGTERM"][: len(told["signals"])]
    assert told["signals"]


# --- 2: sockets ----------------------------------------------------------------------------------


@pytest.mark.parametrize("start_method", START_METHODS)
def test_no_worker_holds_a_socket_of_the_application(world, start_method, peer):
    with world.start(
        hygiene.an_application_with_sockets,
        peer=peer.getsockname()[1],
        start_method=start_method,
    ) as run:
        accepted = [peer.accept()[0] for _ in range(2)]
        ready = run.told("ready")
        ours = sockets(run.pid)
        # It has a server, a connection to it with both ends, two clients, a pair, and pipes.
        assert len(ours) >= 8
        if world.kind == "gunicorn":
            assert sockets(run.leader) & ours, "gunicorn's listening socket is shared by its own"
        children = [each for each in run.processes() if each.pid not in (run.pid, run.leader)]
        assert {ready["idle"], ready["blocked"]} <= {each.pid for each in children}
        for child in children:
            shared = sockets(child.pid) & (ours | sockets(run.leader))
            assert shared == set(), child
            assert internet_sockets(child.pid) == set(), child

        run.release("sockets are looked at")
        run.told("closed")
        for each in accepted:
            # With a worker that holds it, this would be as long as the worker lives.
            each.settimeout(1)
            assert each.recv(1) == b""
        run.release()
        assert run.result() == "cancelled"


def _ask(url):
    with urllib.request.urlopen(url, timeout=5) as answer:
        return int(answer.read())


@pytest.mark.parametrize("start_method", START_METHODS)
def test_no_worker_answers_a_request(world, start_method, peer):
    with world.start(
        hygiene.an_application_with_sockets,
        peer=peer.getsockname()[1],
        start_method=start_method,
    ) as run:
        ready = run.told("ready")
        who = collections.Counter(
            _ask(f"http://127.0.0.1:{ready['port']}/") for _ in range(300)
        )  # the blocked worker is there all the time
        assert who == {run.pid: 300}
        if world.kind == "gunicorn":
            who = collections.Counter(run.get()["pid"] for _ in range(300))
            assert who == {run.pid: 300}
        run.release()
        run.result()


@pytest.mark.parametrize("world", ["gunicorn"], indirect=True)
@pytest.mark.parametrize("start_method", START_METHODS)
def test_after_the_death_of_its_worker_gunicorn_goes_on_alone(world, start_method, peer):
    with world.start(
        hygiene.an_application_with_sockets,
        peer=peer.getsockname()[1],
        start_method=start_method,
    ) as run:
        first = run.pid
        run.told("ready")
        children = {each.pid for each in run.processes()} - {first, run.leader}

        os.kill(first, signal.SIGKILL)

        wait_until(
            lambda: not children & {each.pid for each in run.processes()},
            SOON,
            "children of the dead worker are gone",
        )
        second = wait_until(lambda: run.all_told("worker")[1:])[0]["pid"]
        who = collections.Counter(run.get()["pid"] for _ in range(300))
        assert who == {second: 300}
        assert {each.pid for each in run.processes()} == {run.leader, second}

        run.signal(signal.SIGTERM)
        run.wait()
        run.assert_nothing_left()
        assert not listening(run.port)


def test_the_server_of_the_application_lets_go_of_its_port(world, peer):
    """Killed without a chance to clean up: nobody else may keep the port."""
    with world.start(hygiene.an_application_with_sockets, peer=peer.getsockname()[1]) as run:
        port = run.told("ready")["port"]
        assert listening(port)

        os.kill(run.pid, signal.SIGKILL)

        wait_until(lambda: not listening(port), SOON)
