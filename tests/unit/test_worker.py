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
