"""The slate: what one side notes, the other side reads, though nobody sends anything."""

from __future__ import annotations

import os

import pytest

from gtaskman.wire.slate import Running, Slate

pytestmark = pytest.mark.quick


@pytest.fixture
def slates():
    """The manager's view of a page and the worker's."""
    ours, fd = Slate.create()
    theirs = Slate(fd)
    # As its docstring says: once mapped, the descriptor is of no more use.
    os.close(fd)
    yield ours, theirs
    ours.close()
    theirs.close()


def test_a_blank_slate_says_that_nothing_has_happened(slates):
    for slate in slates:
        assert slate.received() == slate.begun() == 0
        assert slate.running() == Running(0, 0.0)


def test_the_manager_reads_what_the_worker_notes(slates):
    ours, theirs = slates
    # given a worker that has read two orders and runs the first
    theirs.receive(2**40 + 1)
    theirs.begin(2**40, 12.25)
    # expect the manager to know
    assert ours.received() == 2**40 + 1
    assert ours.running() == Running(2**40, 12.25)
    assert ours.begun() == 2**40
    # if the run ends
    theirs.end()
    # expect that too, and what was received and begun as before
    assert ours.running().number == 0
    assert ours.begun() == 2**40
    assert ours.received() == 2**40 + 1


def test_the_manager_reads_which_large_order_was_arriving(slates):
    ours, theirs = slates
    assert ours.arriving() == 0
    theirs.begin(3, 1.0)
    theirs.arrive(2**40)
    assert ours.arriving() == 2**40 > ours.received()
    theirs.receive(2**40)
    assert ours.arriving() == ours.received()
    assert ours.running() == Running(3, 1.0)


def test_what_a_dead_worker_noted_is_still_there(slates):
    ours, theirs = slates
    theirs.begin(7, 1.0)
    theirs.close()
    assert ours.running() == Running(7, 1.0)


def test_a_slates_descriptor_does_not_leak_into_other_programs():
    slate, fd = Slate.create()
    try:
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)
        slate.close()
