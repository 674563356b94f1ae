"""What a server refuses has not happened: every script, in each way to refuse; see refusing.py."""

from __future__ import annotations

import hashlib

import pytest
from entries import LEASE, entry
from refusing import Refusals, World, play
from servers import RunningServer, each_kind
from worlds import PATIENCE, wait_until

from gtaskman.errors import ServerError, ServerUnavailable
from gtaskman.redis import scripts
from gtaskman.redis.keys import owner_channel
from gtaskman.redis.ledger import Ledger
from gtaskman.redis.server import Server


@pytest.fixture(params=each_kind(), scope="module")
def own(request):
    """A server whose settings these tests change."""
    with RunningServer(request.param) as server:
        yield server


@pytest.mark.parametrize("seed", [1])
def test_a_refused_script_has_no_effect_and_is_done_once_afterwards(own, seed):
    assert play(own, seed, steps=40, slow=6) > 10


@pytest.mark.parametrize("way", ["memory", "replica", "replicas", "disk"])
def test_a_task_that_is_refused_is_not_handed_over(own, way):
    server = Server(own.url, patience=0.2)
    ledger = Ledger(server, "handing-over", way)
    heard = []
    subscription = server.subscribe(ledger.base, owner_channel(ledger.base, "me"), heard.append)
    ledger.beat("me", LEASE, first=True)
    ledger.turn("me", "1", [], 1, 0, LEASE)
    refused = False
    with Refusals(own).ways[way]():
        try:
            ledger.enqueue([entry("a")], "request")
        except (ServerError, ServerUnavailable):
            refused = True
    server.patience = 20
    assert bool(ledger.counts().processing) is not refused
    assert not (refused and heard)
    assert ledger.enqueue([entry("a")], "request") == [None]
    assert ledger.counts().processing == 1
    wait_until(lambda: heard, PATIENCE, "it is handed over")
    server.call(ledger.base, "PUBLISH", owner_channel(ledger.base, "me"), "mark")
    wait_until(lambda: heard[-1] == b"mark", PATIENCE, "all messages have come")
    assert len(heard) == 2
    subscription.close()
    server.close()


def _publishing_first(source):
    """The script with its first write behind the message, as those that follow."""
    write = "  call('HSET', STATE, 'tok', token)\n"
    head, tail = source.split(write)
    there = "  return owner, token\n"
    assert there in tail
    text = head + tail.replace(there, write + there, 1)
    return scripts.Script("enqueue", text, hashlib.sha1(text.encode()).hexdigest())


def test_an_enqueue_that_publishes_before_it_writes_is_found(own, monkeypatch):
    monkeypatch.setattr(scripts, "ENQUEUE", _publishing_first(scripts.ENQUEUE.source))
    with pytest.raises(AssertionError, match=r"enqueue while it refuses: memory.*published"):
        play(own, 1, steps=100, slow=0, calls=(World.enqueue, World.turn))
