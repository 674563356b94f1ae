"""What a manager and its template say to each other, packet by packet."""

from __future__ import annotations

import _socket
import os

import pytest

from gtaskman.wire import control

pytestmark = pytest.mark.quick


@pytest.fixture
def ends():
    ends = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    yield ends
    for each in ends:
        each.close()


def test_a_message_arrives_with_its_descriptors(ends):
    ours, theirs = ends
    reading, writing = os.pipe()
    control.send(ours, control.Fork(7, 1, ("shop",)), [writing])
    os.close(writing)
    message, fds = control.receive(theirs)
    assert message == control.Fork(7, 1, ("shop",))
    os.write(fds[0], b"here")
    assert os.read(reading, 10) == b"here"
    for each in (reading, *fds):
        os.close(each)


def test_the_last_words_of_one_that_did_not_listen_any_more_are_heard(ends):
    ours, theirs = ends
    control.send(ours, control.Fork(1, 0))
    control.send(theirs, control.Importing("shop"))
    control.send(theirs, control.Imported("shop", None, "it starts a native thread"))
    theirs.close()
    assert control.receive(ours)[0] == control.Importing("shop")
    assert control.receive(ours)[0].unfit == "it starts a native thread"
    assert control.receive(ours) == (None, [])
    assert control.receive(ours) == (None, [])
