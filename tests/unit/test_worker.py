"""The parent's end of a worker, as far as it needs no child."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys

import gevent
import pytest

from gtaskman.pool.worker import Worker
from gtaskman.wire import messages
from gtaskman.wire.frames import Frame

pytestmark = pytest.mark.quick


@pytest.fixture
def chain():
    """Three workers, each of which is to take the place of the one before it."""
    loop = gevent.get_hub().loop
    workers = [Worker(at, loop, 1 << 20, lambda *_: None, lambda *_: None) for at in range(3)]
    for old, new in itertools.pairwise(workers):
        old.successor, new.predecessor = new, old
    yield workers
    for worker in workers:
        worker.close()


def test_whoever_leaves_the_chain_takes_no_other_link_with_it(chain):
    # given one that ends while its heir has an heir already
    first, second, third = chain
    first.unlink()
    # then the heirs know of one another still: nobody starts a further one
    assert second.predecessor is None
    assert second.successor is third
    assert third.predecessor is second


def test_the_middle_of_the_chain_is_forgotten_by_both_its_neighbours(chain):
    first, second, third = chain
    second.unlink()
    assert first.successor is None
    assert third.predecessor is None


def test_a_signal_for_a_process_that_is_not_known_yet_waits_for_it(chain):
    # given a worker that is to be killed before its starter has told who it is
    worker = chain[0]
    worker.kill("the test says so")
    child = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE)
    # when it is known
    worker.is_up(child.pid, os.pidfd_open(child.pid), lambda _: None)
    # then it gets what it is due
    assert child.wait(timeout=30) == -signal.SIGKILL
    child.stdin.close()


def test_a_run_that_was_cancelled_before_it_began_leaves_the_mean_alone(chain, make_job):
    # given a worker whose sync tasks take a millisecond, with one more that has not begun
    worker, job = chain[0], make_job(number=7)
    worker.mean, worker.sync, worker.jobs[7] = 1e-3, 1, job
    # when it is cancelled: it began at no time, and ended now, which is long after the start
    span = memoryview(messages.SPAN.pack(0.0, 86400.0))
    frame = Frame(messages.FAIL, messages.Ended.CANCELLED, 7, span, ())
    completed, ended = [], []
    worker.take_ended([frame], lambda *_: None, completed, ended)
    # then it has ended, and says nothing about how long tasks take
    assert (completed, [each[0] for each in ended]) == ([], [job])
    assert worker.mean == 1e-3
