"""The parent's end of a worker, as far as it needs no child."""

from __future__ import annotations

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
def worker():
    """A worker that no process belongs to."""
    made = Worker(1, gevent.get_hub().loop, 1 << 20, lambda *_: None, lambda *_: None)
    yield made
    made.close()


def test_a_signal_for_a_process_that_is_not_known_yet_waits_for_it(worker):
    # given a worker that is to be killed before its starter has told who it is
    worker.kill("the test says so")
    child = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE)
    # when it is known
    worker.is_up(child.pid, os.pidfd_open(child.pid), lambda _: None)
    # then it gets what it is due
    assert child.wait(timeout=30) == -signal.SIGKILL
    child.stdin.close()


def test_a_run_that_was_cancelled_before_it_began_leaves_the_mean_alone(worker, make_job):
    # given a worker whose sync tasks take a millisecond, with one more that has not begun
    job = make_job(number=7)
    worker.mean, worker.sync, worker.jobs[7] = 1e-3, 1, job
    # when it is cancelled: it began at no time, and ended now, which is long after the start
    span = memoryview(messages.SPAN.pack(0.0, 86400.0))
    frame = Frame(messages.FAIL, messages.Ended.CANCELLED, 7, span, ())
    completed, ended = [], []
    worker.take_ended([frame], lambda *_: None, completed, ended)
    # then it has ended, and says nothing about how long tasks take
    assert (completed, [each[0] for each in ended]) == ([], [job])
    assert worker.mean == 1e-3
