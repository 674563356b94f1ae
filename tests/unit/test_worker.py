"""The parent's end of a worker, as far as it needs no child."""

from __future__ import annotations

import itertools

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
