"""What a template says of its workers, when descriptors are short."""

from __future__ import annotations

import errno
import os

import pytest
from scenarios import work
from worlds import PATIENCE, wait_until

import gtaskman
from gtaskman.wire import control


@pytest.fixture
def without_descriptors(monkeypatch):
    """The descriptors of so many of the next messages are lost, as the kernel does it."""
    left = [0]
    receive = control._receive

    def receive_less(*args):
        packet = receive(*args)
        if packet[1] and left[0]:
            left[0] -= 1
            for fd in control.take(packet)[1]:
                os.close(fd)
            return packet[0], [], *packet[2:]
        return packet

    monkeypatch.setattr(control, "_receive", receive_less)
    return left


@pytest.mark.parametrize("failures", [0, 3])
def test_a_worker_whose_descriptor_is_lost_can_be_stopped(
    make_manager, without_descriptors, monkeypatch, failures
):
    # given a worker that came without its pidfd, which cannot be opened at first either
    opens, open_pidfd = [0], os.pidfd_open

    def open_later(pid, *flags):
        opens[0] += 1
        if 1 < opens[0] <= 1 + failures:  # the first is that of the template
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return open_pidfd(pid, *flags)

    monkeypatch.setattr(os, "pidfd_open", open_later)
    without_descriptors[0] = 1
    manager = make_manager(max_processes=1, kill_grace=0.2)
    # when a task in it reaches its time limit, and does not stop
    spin = gtaskman.task(timeout=0.2)(work.spin.definition.target)
    # then it is ended, and the next one runs
    with pytest.raises(gtaskman.TaskTimedOut):
        manager.submit(spin).get(timeout=PATIENCE)
    assert manager.submit(work.echo, 7).get(timeout=PATIENCE) == 7
    assert without_descriptors[0] == 0


def test_the_tasks_of_a_worker_that_is_refused_after_it_was_ready_are_not_lost(make_manager):
    # given a worker that is at work
    manager = make_manager(max_processes=1)
    first = manager.submit(work.echo, 0)
    assert first.get(timeout=PATIENCE) == 0
    (worker,) = manager._pool._workers.values()
    napping = manager.submit(work.nap, 0.5)
    wait_until(lambda: worker.jobs)
    waiting = [manager.submit(work.echo, number) for number in range(5)]
    # when its template says that it cannot be watched
    manager.hub.loop.run_callback(manager._pool.on_refused, worker.number, "no descriptor")
    # then what had not begun runs in the next worker, and what had begun ends with the reason
    assert napping.wait(timeout=PATIENCE)
    assert napping.successful() or "could not watch it" in napping.report.error.message
    assert [each.get(timeout=PATIENCE) for each in waiting] == list(range(5))
    assert manager.pids() != [worker.pid]


@pytest.mark.parametrize("start_method", ["zygote", "spawn"])
def test_a_module_to_preload_that_is_not_there_is_named_once(
    make_manager, caplog, capfd, start_method
):
    manager = make_manager(
        start_method=start_method, max_processes=1, preload=("json", "no_such_module", "os.nothing")
    )
    assert manager.submit(work.echo, 1).get(PATIENCE) == 1
    said = caplog.text + capfd.readouterr().err  # a spawned worker logs by itself
    for name in ("no_such_module", "os.nothing"):
        assert said.count(f"the module '{name}' in Configuration(preload=...)") == 1, said
    assert said.count("probably misspelled") == 2
    assert "'json'" not in said
