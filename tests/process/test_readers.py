"""Whoever asks a manager how things stand, from any thread or signal handler, disturbs nothing."""

from __future__ import annotations

import random
import signal
import sys
import threading

import gevent
import pytest
from scenarios import tasks
from worlds import wait_until

import gtaskman

TASKS = 3000


@pytest.fixture
def asked_by(request):
    """Has ``ask()`` called all the time, in native threads or in a signal handler."""
    over = threading.Event()
    threads: list[threading.Thread] = []
    before, interval = signal.getsignal(signal.SIGALRM), sys.getswitchinterval()

    def start(how, ask):
        if how == "a signal handler":
            signal.signal(signal.SIGALRM, lambda *_: ask())
            signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
            return
        sys.setswitchinterval(1e-6)
        threads.extend(threading.Thread(target=repeat, args=(ask,)) for _ in range(2))
        for thread in threads:
            thread.start()

    def repeat(ask):
        while not over.is_set():
            ask()

    yield start
    over.set()
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)
    sys.setswitchinterval(interval)
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("how", ["threads", "a signal handler"])
def test_asking_disturbs_no_task(make_manager, asked_by, how):
    manager = make_manager(max_processes=2, ttl=0.05, keep_finished=100)
    errors: list[BaseException] = []

    def ask():
        try:
            manager.stats()
            manager.pids()
            manager.dead()
            manager.queue.info()
            manager.report("unknown")
        except BaseException as error:
            errors.append(error)

    asked_by(how, ask)
    chance, handles = random.Random(1), []
    for _ in range(TASKS // 20):
        for _ in range(20):
            task = tasks.echo.with_options(
                delay=chance.choice((0, 0.0005, 0.002)),
                ttl=chance.choice((None, 0.001, 0.5)),
                result_ttl=chance.choice((None, 0.001)),
                priority=chance.choice((0, 1)),
            )
            handles.append(manager.submit(task, 1))
            if chance.random() < 0.3:
                chance.choice(handles[-40:]).cancel()
        gevent.sleep(0.002)
    wait_until(lambda: all(handle.done() for handle in handles), what="every task ends")
    assert errors == []
    info = manager.queue.info()
    assert (info["waiting"], info["delayed"], info["running"]) == (0, 0, 0)
    assert manager._pending == 0
    numbers = manager.stats()["pool"]
    ended = sum(numbers[f"{end}_tasks"] for end in ("completed", "failed", "cancelled"))
    assert ended == numbers["total_tasks"] == len(handles)


def test_a_storage_that_cannot_take_a_last_report_costs_no_worker(
    make_manager, monkeypatch, caplog
):
    manager = make_manager(max_processes=1)
    pid = manager.submit(tasks.where).get(10)

    def refuse(_reports):
        raise RuntimeError("on purpose")

    monkeypatch.setattr(manager.storage, "finish", refuse)
    handle = manager.submit(tasks.fail, "no")
    with pytest.raises(gtaskman.TaskFailed):
        handle.get(10)
    assert manager.submit(tasks.where).get(10) == pid
    assert "could not be stored" in caplog.text


def test_tasks_that_a_signal_handler_submits_and_cancels_all_end(make_manager, asked_by):
    manager = make_manager(max_processes=2)
    chance, handles, errors = random.Random(1), [], []

    def act():
        task = tasks.echo.with_options(
            delay=chance.choice((0, 0.0005, 0.002)),
            ttl=chance.choice((None, 0.001, 0.5)),
            priority=chance.choice((0, 1)),
            unique=chance.choice((False, False, "a", "b")),
        )
        try:
            handles.append(manager.submit(task, 1))
        except gtaskman.DuplicateTaskError:
            return
        if chance.random() < 0.3:
            handles[-chance.randrange(1, min(len(handles), 30) + 1)].cancel()

    def in_handler():
        if len(handles) < 4 * TASKS:
            try:
                act()
            except BaseException as error:
                errors.append(error)

    asked_by("a signal handler", in_handler)
    for _ in range(TASKS // 20):
        for _ in range(20):
            act()
        gevent.sleep(0.002)
    wait_until(lambda: all(handle.done() for handle in handles), what="every task ends")
    assert errors == []
    info = manager.queue.info()
    assert (info["waiting"], info["delayed"], info["running"]) == (0, 0, 0)
    assert manager.queue.waiting() == (0, 0)
    assert (manager.queue._keys, manager._pending) == ({}, 0)
