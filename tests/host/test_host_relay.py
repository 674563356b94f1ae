"""How the relay answers for the tasks of one batch when the server fails in its middle."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from gtaskman.errors import ServerUnavailable
from gtaskman.host.relay import Relay, _Parcel
from gtaskman.redis.ledger import Entry

KNOWN, FRESH = "known", "fresh"


def parcel(task_id, again):
    entry = Mock(spec=Entry, id=task_id, envelope=b"")
    entry._replace.return_value = entry
    return _Parcel("q", entry, Mock(), again)


class Server:
    """Has one task already, and accepts no other one."""

    def __init__(self, error):
        self.error = error

    def record(self, task_id):
        return object() if task_id == KNOWN else None

    def enqueue(self, _entries, _request):
        raise self.error


@pytest.mark.parametrize("error", [ServerUnavailable("away"), ValueError("odd")])
def test_a_task_that_the_server_has_is_not_refused_with_its_batch(error):
    relay = object.__new__(Relay)
    line = Mock()
    line.ledger.return_value = Server(error)
    relay._client = SimpleNamespace(attendant=lambda: line)
    relay._under_way, relay._pending, relay._ebb = {}, 0, None
    relay._nonce, relay._requests = "n", itertools.count(1)
    known, fresh = parcel(KNOWN, again=True), parcel(FRESH, again=False)

    relay._send_to("q", [known, fresh])

    (handle,) = known.handles
    handle.take.assert_called_once_with()
    handle.refuse.assert_not_called()
    line.attend.assert_called_once_with(handle)
    fresh.handles[0].refuse.assert_called_once()
