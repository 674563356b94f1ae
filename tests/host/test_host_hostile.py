"""Processes that do not read, ask nonsense, or take more than their share."""

from __future__ import annotations

import resource
import signal
import sys
from pathlib import Path

import gevent
import hostile
import pytest
from gevent import socket as cooperative
from rawclient import Raw, code, frame, question, sealed
from scenarios import tasks, work
from scenarios.stage import wait_until
from servers import RunningServer, any_kind
from worlds import PATIENCE, Program

import gtaskman
from gtaskman.host import messages
from gtaskman.wire.payload import encode_arguments

MIB = 1024 * 1024


def peak(host):
    """The most memory that the manager has had so far, in bytes."""
    status = Path(f"/proc/{host.leader}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


# --- what is not read


def test_answers_that_are_not_read_are_bounded(site):
    host = site.host(options={"max_unread": MIB, "grace": 0.5})
    client = site.client()
    handles = [client.submit(bytes, 50_000) for _ in range(100)]
    gevent.joinall(handles, timeout=PATIENCE)
    before = peak(host)
    with Raw(site.path) as raw:
        raw.greet()
        raw.send(*(question(number, "find", None, None, 0, 100, None) for number in range(1, 200)))
        wait_until(lambda: "is cut off" in host.output, what="it is cut off")
        assert "has not read" in host.output
    assert peak(host) - before < 200 * MIB, "199 answers have 5 MB each"
    assert client.submit(tasks.double, 1).get(PATIENCE) == 2


def test_results_that_are_small_are_bounded_as_well(site):
    host = site.host(options={"max_unread": MIB, "grace": 0.5, "max_tasks": 5000})
    with Raw(site.path) as raw:
        raw.greet()
        raw.send(code(1, "builtins", "bytes"))
        payload = encode_arguments((2000,), {}, MIB)
        for number in range(1, 2001):
            body = messages.submit_body(1, f"small-{number}", None, "") + payload.body
            raw.send(frame(messages.SUBMIT, number, body))
        wait_until(lambda: "is cut off" in host.output, what="it is cut off")
    assert site.client().submit(tasks.double, 1).get(PATIENCE) == 2


def test_one_that_reads_late_hears_every_answer(site):
    site.host(options={"max_unread": MIB, "grace": 60.0})
    client = site.client()
    gevent.joinall([client.submit(bytes, 50_000) for _ in range(40)], timeout=PATIENCE)
    with Raw(site.path) as raw:
        raw.greet()
        sending = gevent.spawn(
            raw.send, *(question(n, "find", None, None, 0, 40, None) for n in range(1, 600))
        )
        answered = [raw.next() for _ in range(1, 600)]
        sending.get(timeout=PATIENCE)
    assert {each[0] for each in answered} == {messages.ANSWER}
    assert sorted(each[1] for each in answered) == list(range(1, 600))


# --- nonsense


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("cancel", (7, None)),
        ("cancel", ("id",)),
        ("cancel", ("id", "why", "more")),
        ("report", ({"a": 1},)),
        ("find", ("no status", None, 0, 1, None)),
        ("find", (None, "yes", 0, 1, None)),
        ("find", (None, None, -1, 1, None)),
        ("find", (None, None, "0", [], None)),
        ("dead", (None, 1, None)),
        ("stats", (1,)),
        ("names", ()),
        ("no such\x1b[2J\nquestion", ()),
    ],
)
def test_a_question_with_wrong_arguments_is_refused_without_a_traceback(site, name, args):
    host = site.host()
    with Raw(site.path) as raw:
        raw.greet().send(question(1, name, *args), question(2, "count", None, None, None))
        answers = [raw.next(), raw.next()]
    refused = next(each for each in answers if each[1] == 1)
    error = messages.unpack_fault(refused[2]).error()
    assert type(error) is gtaskman.GTaskmanError
    assert "wrong" in str(error) or "no question" in str(error)
    assert "Traceback" not in host.output


def test_what_a_process_calls_itself_cannot_forge_a_line_of_the_log(site):
    host = site.host()
    title = "x\n2026-01-01 ERROR all is lost\x1b[2J"
    hello = messages.Hello(messages.VERSION, 1, title, "n")
    with Raw(site.path) as raw:
        raw.send(frame(messages.HELLO, 0, messages.pack(hello)), frame(99))
        while raw.heard() is not None:
            pass
    wait_until(lambda: "is cut off" in host.output)
    line = next(line for line in host.output.splitlines() if "is cut off" in line)
    assert "all is lost" in line
    assert "\x1b" not in host.output
    assert "process 1 " not in line, "the kernel says which process it is"


def test_an_id_that_is_too_long_is_nonsense(site):
    host = site.host()
    with Raw(site.path) as raw:
        attach = messages.Attach("x" * 100_000, "", False)
        raw.greet().send(frame(messages.ATTACH, 1, messages.pack(attach)))
        while raw.heard() is not None:
            pass
    wait_until(lambda: "100000 characters" in host.output)


# --- orphans

WATCHER = """
import sys, gevent, gtaskman
client = gtaskman.Client(sys.argv[1])
handle = client.handle(sys.argv[2])
for report in handle.progress():
    print(report.message, flush=True)
"""


def test_a_task_that_was_merely_watched_is_not_cancelled_with_its_watcher(site):
    site.host(options={"cancel_orphans": True})
    client = site.client()
    handle = client.submit(work.nap)
    assert next(handle.progress()).message
    watcher = Program([sys.executable, "-c", WATCHER, site.url, handle.id], site.directory)
    try:
        wait_until(lambda: watcher.output.strip(), what="it watches")
        watcher.signal(signal.SIGKILL)
        watcher.wait()
        for _ in range(20):  # until the manager has noticed for sure
            assert client.report(handle.id).status is gtaskman.TaskStatus.PROCESSING
            gevent.sleep(0.01)
        assert client.cancel(handle.id, "by its sender")
        with pytest.raises(gtaskman.TaskCancelled) as caught:
            handle.get(PATIENCE)
        assert caught.value.reason == "by its sender"
    finally:
        watcher.kill()


def test_a_task_that_is_watched_again_by_its_sender_is_its_own(site):
    """A connection that broke is replaced: whose task it was has not changed."""
    site.host(options={"cancel_orphans": True})
    client = site.client()
    handle = client.submit(work.nap)
    assert next(handle.progress()).message
    with Raw(site.path) as raw:
        attach = messages.Attach(handle.id, "default", False, True)
        raw.greet().send(frame(messages.ATTACH, 1, messages.pack(attach)))
        raw.send(question(2, "stats"))
        assert raw.next()[1] == 2
    with pytest.raises(gtaskman.TaskCancelled):
        handle.get(PATIENCE)


# --- too many


def test_a_user_has_only_so_many_connections(site):
    host = site.host(options={"max_connections": 3})
    raws = [Raw(site.path).greet() for _ in range(3)]
    for _ in range(5):
        refused = Raw(site.path)
        kind, body = refused.heard()
        assert kind == messages.REFUSED
        assert type(messages.unpack_fault(body).error()) is gtaskman.ServerUnavailable
        refused.close()
    with pytest.raises(gtaskman.ServerUnavailable, match="3 connections"):
        site.client(patience=0.3).submit(tasks.double, 1)
    waiting = gevent.spawn(site.client().submit, tasks.double, 21)
    gevent.sleep(0.05)
    raws[0].close()
    assert waiting.get(timeout=PATIENCE).get(PATIENCE) == 42
    assert host.output.count("which is the limit") == 1
    for raw in raws:
        raw.close()


def test_no_descriptors_are_logged_once(site):
    host = site.host(min_processes=1, options={"max_connections": 1000})
    client = site.client()
    assert client.submit(tasks.double, 1).get(PATIENCE) == 2
    used = len(list(Path(f"/proc/{host.leader}/fd").iterdir()))
    resource.prlimit(host.leader, resource.RLIMIT_NOFILE, (used + 4, 4096))
    raws = []
    for _ in range(12):
        raw = cooperative.socket(cooperative.AF_UNIX)
        raw.connect(str(site.path))
        raws.append(raw)
    wait_until(lambda: "cannot be let in" in host.output)
    gevent.sleep(0.5)  # several more attempts are made meanwhile
    assert host.output.count("cannot be let in") == 1
    assert client.submit(tasks.double, 1).get(PATIENCE) == 2
    for raw in raws:
        raw.close()
    assert site.client().submit(tasks.double, 1).get(PATIENCE) == 2


# --- a queue on a server


@pytest.fixture
def server():
    with RunningServer(any_kind()) as running:
        yield running


@pytest.mark.parametrize(
    ("options", "config"),
    [
        ({"max_tasks": 100, "max_bytes": MIB}, {}),  # each has its share
        ({}, {"max_pending_bytes": 8 * MIB}),  # and all of them together
    ],
)
def test_nothing_more_is_read_while_the_server_is_away(site, server, options, config):
    host = site.host(queue=f"{server.url}?namespace=flood", options=options, **config)
    site.client().submit(tasks.double, 1).get(PATIENCE)
    server.sigstop()
    before = peak(host)
    raws = [Raw(site.path, timeout=4 * PATIENCE).greet() for _ in range(8)]

    def flood(at, raw):
        for number in range(1, 151):
            raw.send(sealed(number, f"{at}-{number}", "scenarios.work.echo", "x" * 100_000))

    senders = [gevent.spawn(flood, at, raw) for at, raw in enumerate(raws)]
    gevent.joinall(senders, timeout=3)
    assert not any(each.ready() for each in senders), "nobody could send all of it"
    assert peak(host) - before < 70 * MIB, "1,200 tasks have 100 kB each"
    server.sigcont()
    gevent.joinall(senders, timeout=4 * PATIENCE, raise_error=True)
    assert all(each.ready() for each in senders), "all is read afterwards"
    for raw in raws:
        raw.close()


def test_a_task_that_is_sent_again_while_the_server_is_away_is_taken_once(site, server):
    host = site.host(queue=f"{server.url}?namespace=again")
    client = site.client()
    client.submit(tasks.double, 1).get(PATIENCE)
    server.sigstop()
    other, first, second = (Raw(site.path).greet() for _ in range(3))
    # This one is under way to the server, so that the next two wait together.
    other.send(sealed(1, "other", "scenarios.tasks.double", 1), question(2, "names", None))
    gevent.sleep(0.3)
    first.send(sealed(1, "mine", "scenarios.tasks.double", 21))
    gevent.sleep(0.3)
    first.close()
    second.send(sealed(1, "mine", "scenarios.tasks.double", 21, flags=messages.AGAIN))
    second.send(frame(messages.FOLLOW, 1))
    gevent.sleep(0.1)
    server.sigcont()
    kinds = [second.next()[0] for _ in range(2)]
    assert kinds == [messages.TAKEN, messages.DONE]
    assert "Traceback" not in host.output
    other.close()
    second.close()


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("seed", [1, 2])
def test_hostile_clients_harm_neither_the_manager_nor_honest_ones(seed, durable):
    assert hostile.play(seed, 3.0, durable) > 0
