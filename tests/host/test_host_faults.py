"""Managers and processes that die, stand still, talk nonsense or come too late."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time

import gevent
import pytest
from gevent import socket as cooperative
from rawclient import frame, hello
from scenarios import tasks, work
from scenarios.control import fate
from scenarios.stage import wait_until
from servers import RunningServer, any_kind
from worlds import PATIENCE, Program, alive

import gtaskman
from gtaskman.host import messages
from gtaskman.wire.frames import HEADER, head

SHORT = 0.5  # seconds that a client waits for a manager that is away
SENDER = """
import sys, gevent, gtaskman
from scenarios import tasks, work
client = gtaskman.Client(sys.argv[1])
handles = [client.submit(work.nap, float(sys.argv[2])) for _ in range(int(sys.argv[3]))]
handles[0].progress().__next__()
print(*[each.id for each in handles], flush=True)
gevent.sleep(600)
"""


@pytest.fixture
def sender(site):
    """A process that has sent tasks, one of which runs, and waits."""
    made = []

    def send(seconds=1000.0, count=1):
        program = Program(
            [sys.executable, "-c", SENDER, site.url, str(seconds), str(count)],
            site.directory,
            {"PYTHONSTARTUP": ""},
        )
        made.append(program)
        wait_until(lambda: program.output.endswith("\n"), what="it has sent")
        return program, program.output.split()

    yield send
    for program in made:
        program.kill()


def knock(site, *data):
    """A raw connection that has said so."""
    raw = cooperative.socket(socket.AF_UNIX)
    raw.settimeout(5)
    raw.connect(str(site.path))
    for each in data:
        raw.sendall(each)
    return raw


def heard(raw):
    """The kind and the body of the next frame, or None at the end."""
    start = exactly(raw, HEADER.size)
    if start is None:
        return None
    size, kind, _, _, _ = HEADER.unpack(start)
    return kind, exactly(raw, size) if size else b""


def exactly(raw, size):
    data = b""
    while len(data) < size:
        try:
            more = raw.recv(size - len(data))
        except ConnectionResetError:
            return None
        if not more:
            return None
        data += more
    return data


def submit_for_ever(client, taken):
    while True:
        taken.append(client.submit(tasks.double, 1))
        gevent.sleep(0.01)


# --- the manager


def test_with_the_manager_its_memory_is_lost_and_waiters_are_told_at_once(site):
    host = site.host()
    client = site.client()
    running, waiting = client.submit(work.nap), client.submit(tasks.double.with_options(delay=9), 1)
    assert next(running.progress()).message
    waiters = [gevent.spawn(fate, each) for each in (running, waiting, running)]
    watcher = gevent.spawn(lambda: list(running.progress())[-1])
    gevent.sleep(0.05)
    host.kill9()
    for waiter in waiters:
        error = waiter.get(timeout=PATIENCE)
        assert type(error) is gtaskman.errors.ManagerGone
        assert "lost" in str(error)
        assert str(site.path) in str(error)
    assert watcher.get(timeout=PATIENCE).status is gtaskman.TaskStatus.FAILED
    assert running.done()
    assert not running.successful()


def test_a_manager_that_is_away_is_waited_for(site):
    patient, impatient = site.client(), site.client(patience=SHORT)
    with pytest.raises(gtaskman.ServerUnavailable, match=r"nothing listens.*gtaskman run --bind"):
        impatient.submit(tasks.double, 1)
    with pytest.raises(gtaskman.ServerUnavailable):
        impatient.stats()
    submitting = gevent.spawn(patient.submit, tasks.double, 21)
    gevent.sleep(0.05)
    host = site.host()
    assert submitting.get(timeout=PATIENCE).get(PATIENCE) == 42
    host.kill9()
    submitting = gevent.spawn(patient.submit, tasks.double, 4)
    gevent.sleep(0.05)
    site.host()  # what the dead one left is no obstacle
    assert submitting.get(timeout=PATIENCE).get(PATIENCE) == 8


def test_with_a_durable_queue_handles_outlive_the_manager(site):
    with RunningServer(any_kind()) as server:
        url = f"{server.url}?namespace=durable"
        host = site.host(queue=url, prefetch=1, max_prefetch=1)
        client = site.client()
        handles = [client.submit(work.rest, 0.2) for _ in range(8)]
        followed = client.submit(work.nap, 0.5)
        reports = gevent.spawn(lambda: list(followed.progress()))
        gevent.sleep(0.1)
        host.kill9()
        late = gevent.spawn(client.submit, tasks.double, 21)  # taken by nobody yet
        gevent.sleep(0.2)
        site.host(queue=url)
        assert late.get(timeout=PATIENCE).get(PATIENCE) == 42
        assert all(isinstance(each.get(PATIENCE), int) for each in handles)
        assert followed.get(PATIENCE) == "rested"
        assert reports.get(timeout=PATIENCE)[-1].finished


def test_a_stopping_manager_finishes_what_it_has_and_takes_no_more(site):
    host = site.host(stop_timeout=20)
    client = site.client()
    handles = [client.submit(work.nap, 0.7) for _ in range(2)]
    assert next(handles[0].progress()).message
    taken = []
    host.signal(signal.SIGTERM)
    with pytest.raises(gtaskman.ManagerStopped, match="is stopping"):
        submit_for_ever(client, taken)
    with pytest.raises(gtaskman.ManagerStopped, match="is stopping"):
        site.client().submit(tasks.double, 1)
    assert client.report(handles[0].id).status is gtaskman.TaskStatus.PROCESSING
    assert [each.get(PATIENCE) for each in handles] == ["rested", "rested"]
    ends = [fate(each) for each in taken]
    assert all(each == 2 or type(each) is gtaskman.ManagerStopped for each in ends), ends
    assert "stopped" in host.output or host.wait() == 0
    with pytest.raises(gtaskman.ServerUnavailable):
        site.client(patience=SHORT).submit(tasks.double, 1)


def test_what_does_not_end_in_time_is_cancelled(site):
    host = site.host(timeout=0.2)
    client = site.client()
    handle = client.submit(work.nap)
    assert next(handle.progress()).message
    host.signal(signal.SIGTERM)
    error = fate(handle)
    assert (type(error), error.reason) == (gtaskman.TaskCancelled, "the manager was stopped")
    assert host.wait() == 0


# --- other processes


def test_tasks_of_a_process_that_was_killed_run_on(site, sender):
    site.host()
    program, (task_id, _) = sender(0.6, 2)
    program.signal(signal.SIGKILL)
    program.wait()
    client = site.client()
    assert client.handle(task_id).get(PATIENCE) == "rested"
    wait_until(lambda: client.count(gtaskman.TaskStatus.COMPLETED) == 2)


def test_or_are_cancelled_if_that_is_wanted(site, sender):
    site.host(options={"cancel_orphans": True})
    program, ids = sender(1000, 5)
    client = site.client()
    mine = client.submit(work.echo.with_options(delay=0.5), "mine")
    program.signal(signal.SIGKILL)
    program.wait()
    wait_until(lambda: client.count(gtaskman.TaskStatus.CANCELLED) == len(ids))
    assert client.report(ids[0]).message == "the process that sent it has gone"
    assert mine.get(PATIENCE) == "mine"


def test_a_process_that_does_not_read_slows_nobody_and_is_cut_off(site, sender):
    host = site.host(options={"max_unread": 1 << 20, "grace": 0.5})
    client = site.client()
    raw = knock(site, hello())
    assert heard(raw)[0] == messages.WELCOME
    code = messages.Code(
        "b", "sync", 0, "builtins", "bytes", None, None, None, 0, None, False, gtaskman.Backoff()
    )
    raw.sendall(frame(messages.DEFINE, 1, messages.pack(code)))
    payload = gtaskman.wire.payload.encode_arguments((4_000_000,), {}, 1 << 20)
    for number in range(1, 11):
        body = messages.submit_body(1, f"big{number}", None, "") + payload.body
        raw.sendall(frame(messages.SUBMIT, number, body))
    while "is cut off" not in host.output:
        assert client.submit(tasks.double, 1).get(PATIENCE) == 2
    assert "has not read" in host.output
    raw.close()


def test_a_process_that_stands_still_slows_nobody(site, sender):
    site.host()
    program, (task_id,) = sender(0.1, 1)
    program.signal(signal.SIGSTOP)
    client = site.client()
    assert [client.submit(tasks.double, each).get(PATIENCE) for each in range(50)] == [
        2 * each for each in range(50)
    ]
    assert client.handle(task_id).get(PATIENCE) == "rested"
    program.signal(signal.SIGCONT)


NONSENSE = {
    "text": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "zeros": bytes(64),
    "no hello": frame(messages.ASK, 1, messages.pack(messages.Question("stats", []))),
    "a hello that is none": frame(messages.HELLO, body=b"\xc1"),
    "an unknown kind": hello() + frame(99),
    "an unknown code": hello() + frame(messages.SUBMIT, 1, messages.submit_body(7, "x", None, "")),
    "a torn task": hello() + frame(messages.SUBMIT, 1, b"\1"),
    "terms that are none": hello()
    + frame(messages.SUBMIT, 1, messages.submit_body(1, "x", None, "")[:4] + b"\1\0\5\0x12345"),
    "code that is none": hello() + frame(messages.DEFINE, 1, messages.pack([1, 2])),
    "half a frame": hello() + frame(messages.ASK, 1, bytes(100))[:-50],
    "too large": hello() + head(messages.SUBMIT, 0, 1, 1 << 31),
    "too many buffers": hello() + HEADER.pack(0, messages.SUBMIT, 0, 65535, 1),
    "nothing": b"",
}


def test_nonsense_harms_nobody_else(site):
    host = site.host()
    client = site.client()
    running = client.submit(work.nap, 0.5)
    for name, data in NONSENSE.items():
        raw = knock(site, data)
        if name in ("half a frame", "nothing"):
            raw.close()
            continue
        while heard(raw) is not None:
            pass  # until the manager closes
        raw.close()
        assert client.submit(tasks.double, 1).get(PATIENCE) == 2, name
    assert running.get(PATIENCE) == "rested"
    assert "Traceback" not in host.output
    assert host.output.count("is cut off") == len(NONSENSE) - 2


def test_a_strange_version_is_turned_away_with_a_reason(site):
    site.host()
    kind, body = heard(knock(site, hello(version=99)))
    assert kind == messages.REFUSED
    error = messages.unpack_fault(body).error()
    assert type(error) is gtaskman.errors.AccessRefused
    assert "version 99" in str(error)


def test_a_task_that_came_too_late_is_handed_back(site):
    host = site.host(stop_timeout=20)
    client = site.client()
    running = client.submit(work.nap, 0.6)
    assert next(running.progress()).message
    raw = knock(site, hello())
    assert heard(raw)[0] == messages.WELCOME
    host.signal(signal.SIGTERM)
    assert heard(raw)[0] == messages.CLOSING
    body = messages.submit_body(1, "late", None, "")
    raw.sendall(frame(messages.SUBMIT, 5, body, flags=1))
    assert heard(raw) == (messages.BACK, body)
    assert running.get(PATIENCE) == "rested"


# --- limits


def test_a_process_has_only_so_much_on_its_way(site):
    site.host(options={"max_tasks": 4})
    client = site.client()
    begin = time.monotonic()
    handles = [client.submit(work.rest, 0.1) for _ in range(9)]
    assert time.monotonic() - begin >= 0.1, "it was told to wait"
    gevent.joinall(handles, timeout=PATIENCE)
    assert all(each.successful() for each in handles)


def test_bytes_on_their_way_are_limited_too(site):
    site.host(options={"max_bytes": 3_000_000})
    client = site.client()
    ticks = []
    ticker = gevent.spawn(lambda: [ticks.append(gevent.sleep(0.001)) for _ in range(100_000)])
    lengths = [client.submit(len, bytes(1_000_000)) for _ in range(12)]
    assert [each.get(PATIENCE) for each in lengths] == [1_000_000] * 12
    ticker.kill()
    assert ticks, "the hub went on while it waited"


def test_a_thousand_wait_at_once(site):
    site.host()
    client = site.client()
    waiters = [
        gevent.spawn(lambda number: client.submit(work.rest_async, 0.2).get(PATIENCE), number)
        for number in range(1000)
    ]
    gevent.joinall(waiters, timeout=PATIENCE, raise_error=True)
    assert len({each.value for each in waiters}) <= 2


def test_a_hundred_megabytes_stop_no_hub(site):
    site.host()
    big, small = site.client(), gtaskman.Client(site.url)
    lags = []

    def tick():
        while True:
            begin = time.monotonic()
            gevent.sleep(0.001)
            lags.append(time.monotonic() - begin)

    ticker = gevent.spawn(tick)
    waiting = gevent.spawn(lambda: big.submit(bytes, 100_000_000).get(PATIENCE))
    rounds = 0
    while not waiting.ready():
        assert small.submit(tasks.double, 1).get(PATIENCE) == 2
        rounds += 1
    assert len(waiting.get()) == 100_000_000
    back = big.submit(work.echo, bytearray(50_000_000)).get(PATIENCE)
    assert (type(back), len(back)) == (bytearray, 50_000_000)
    ticker.kill()
    small.close()
    assert rounds > 3, "others were served meanwhile"


def test_nothing_is_left_of_a_manager_that_was_killed(site):
    host = site.host(min_processes=2)
    client = site.client()
    pids = {client.submit(work.rest, 0.05).get(PATIENCE) for _ in range(4)}
    host.kill9()
    wait_until(lambda: not any(alive(pid) for pid in pids))
    assert os.path.exists(site.path), "the socket of a dead manager is in nobody's way"
    site.host()
    assert client.submit(tasks.double, 1).get(PATIENCE) == 2
