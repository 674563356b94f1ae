"""What a server refuses has not happened: every script, in each way to refuse; see refusing.py."""

from __future__ import annotations

import hashlib
import itertools

import pytest
from entries import LEASE, entry, let_pass
from invariants import check
from refusing import Refusals, World, play
from servers import RunningServer, each_kind
from worlds import PATIENCE, wait_until

from gtaskman.errors import ServerError, ServerUnavailable
from gtaskman.redis import scripts
from gtaskman.redis.keys import owner_channel
from gtaskman.redis.ledger import Ledger, _arguments
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


# --- in the middle of a script

_AT_A_WRITE = """
local writes = 0
local WRITES = {HSET = 1, HDEL = 1, ZADD = 1, ZREM = 1, SET = 1, UNLINK = 1, ZPOPMIN = 1}
local function interrupted(name, ...)
  if WRITES[name] then
    writes = writes + 1
    if writes == %d then %s end
  end
  return redis.call(name, ...)
end
"""
_REFUSE = "error('refused')"
_FILL = "redis.call('SET', KEYS[1] .. ':filler', string.rep('x', 2097152))"


def _interrupted(number, what):
    """An enqueue that does ``what`` before its write of this number."""
    source = scripts.ENQUEUE.source.replace("call = redis.call", "call = interrupted", 1)
    text = _AT_A_WRITE % (number, what) + source
    return scripts.Script("enqueue", text, hashlib.sha1(text.encode()).hexdigest())


@pytest.fixture
def server(own):
    server = Server(own.url, patience=20)
    yield server
    server.close()


def _queue_with_owner(server, name, parked):
    ledger = Ledger(server, "middle", name)
    subscription = server.subscribe(ledger.base, owner_channel(ledger.base, "me"), print)
    ledger.beat("me", LEASE, first=True)
    if parked:
        ledger.turn("me", "1", [], 1, 0, LEASE)
    return ledger, subscription


def _is_refused(server, *command):
    try:
        server.script(*command)
    except ServerError as error:
        return "refused" in str(error)
    return False


@pytest.mark.parametrize("parked", [False, True])
@pytest.mark.parametrize("options", [{"unique": "key", "ttl": 60}, {"priority": 3}])
def test_a_task_refused_at_any_write_is_not_handed_out_and_can_be_sent_again(
    server, parked, options
):
    words = ("r", 0, *_arguments(entry("a", **options)))
    for number in itertools.count(1):
        name = f"refused{number}-{parked}-{'-'.join(options)}"
        ledger, subscription = _queue_with_owner(server, name, parked)
        refused = _is_refused(server, _interrupted(number, _REFUSE), ledger.base, *words)
        subscription.close()
        if not refused:
            break
        if ledger.record("a") is None:
            assert ledger.turn("me", "2", [], 1, 0, LEASE).claims == []
        assert server.script(scripts.ENQUEUE, ledger.base, *words) == [1]
        ledger.turn("me", "3", [], 1, 0, LEASE)
        assert list(ledger.owned("me")) == ["a"]
    assert number > 4


def test_a_script_in_which_memory_runs_out_is_done_whole(own, server):
    command = own.client().execute_command
    for number in range(1, 6):
        ledger, subscription = _queue_with_owner(server, f"full{number}", True)
        words = ("r", 0, *_arguments(entry("a", unique="key", ttl=60)))
        command("CONFIG SET", "maxmemory", command("INFO", "memory")["used_memory"] + 2**20)
        try:
            server.script(_interrupted(number, _FILL), ledger.base, *words)
            with pytest.raises(ServerError, match="OOM"):
                ledger.enqueue([entry("more")], "next")
        finally:
            command("CONFIG SET", "maxmemory", 0)
        assert list(ledger.owned("me")) == ["a"]
        server.call(ledger.base, "DEL", f"{ledger.base}:filler")
        assert check(ledger) == []
        subscription.close()


def test_a_sender_who_may_not_publish_enqueues_all_the_same(own, server):
    ledger, subscription = _queue_with_owner(server, "quiet", False)
    own.command("ACL SETUSER", "quiet", "on", ">pw", "~*", "+@all", "resetchannels")
    sender = Server(own.url.replace("://", "://quiet:pw@"), patience=20)
    for number, kind in enumerate(("s", "a", "s")):
        ledger.turn("me", f"{number}", [], 1, 1, LEASE)
        entries = [entry(f"{number}{at}", kind=kind) for at in range(1 + number % 2)]
        answers = Ledger(sender, "middle", "quiet").enqueue(entries, f"r{number}")
        assert answers == [None] * len(entries)
    ledger.turn("me", "last", [], 9, 9, LEASE)
    assert sorted(ledger.owned("me")) == ["00", "10", "11", "20"]
    subscription.close()
    sender.close()


@pytest.mark.parametrize("way", ["memory", "replica", "disk"])
def test_what_is_kept_no_more_hinders_no_reading_where_writes_are_refused(own, server, way):
    ledger = Ledger(server, "reading", way)
    ledger.enqueue([entry("over", result_ttl=0), entry("waits")], "request")
    ledger.cancel("over")
    let_pass(ledger, 60)
    with Refusals(own).ways[way]():
        server.patience = 0.2
        assert ledger.record("waits").status == "W"
        assert "waits" in [each.id for each in ledger.find()]
        assert ledger.counts().waiting == 1
