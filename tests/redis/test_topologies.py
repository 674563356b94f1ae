"""Sentinels and clusters: whoever serves is found, and found again when that changes."""

from __future__ import annotations

import dataclasses
import hashlib

import gevent
import pytest
import redis
from entries import entry
from gevent.event import Event
from servers import KINDS, Cluster, RunningServer, Sentinels, any_kind, each_kind
from worlds import PATIENCE, wait_until

from gtaskman.errors import ServerError, ServerUnavailable
from gtaskman.redis.address import Address
from gtaskman.redis.confirming import Confirming
from gtaskman.redis.ledger import Ledger
from gtaskman.redis.scripts import Script
from gtaskman.redis.server import Server
from gtaskman.redis.topology import slot_of

BASE = "gtm:{test:queue}"
SOURCE = "return redis.call('SADD', KEYS[1] .. ':set', ARGV[1])"
ADD = Script("test", SOURCE, hashlib.sha1(SOURCE.encode()).hexdigest())


@pytest.fixture
def connect():
    made = []

    def make(url, **options):
        made.append(Server(url, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def adding(server, acknowledged, base=BASE):
    """A greenlet that adds one number after the other until it is killed."""

    def add():
        number = 0
        while True:
            server.script(ADD, base, number)
            acknowledged.append(number)
            number += 1
            gevent.sleep(0.001)

    return gevent.spawn(add)


def more(acknowledged):
    """Wait until more has been acknowledged than now."""
    count = len(acknowledged)
    wait_until(lambda: len(acknowledged) > count + 5)


def members(node, base=BASE):
    return {int(each) for each in node.command("SMEMBERS", f"{base}:set")}


# --- sentinels


def role(node):
    """What it is, or None while it throws its clients out."""
    try:
        return node.command("ROLE")[0]
    except redis.ConnectionError:
        return None


@pytest.mark.parametrize(
    ("kind", "password"), [*((kind, None) for kind in KINDS), *((kind, "s") for kind in KINDS[-1:])]
)
def test_a_failover(kind, password, connect):
    with Sentinels(kind, password=password) as group:
        server = connect(group.url)
        acknowledged, heard, again = [], [], []
        subscription = server.subscribe(BASE, "channel", heard.append, lambda: again.append(1))
        calls = adding(server, acknowledged)
        more(acknowledged)
        group.fail_over()
        more(acknowledged)
        wait_until(lambda: again)
        server.call(BASE, "PUBLISH", "channel", "after")
        wait_until(lambda: b"after" in heard)
        assert group.replica.connections() == 2
        calls.kill()
        assert acknowledged[-1] in members(group.replica)
        subscription.close()


def test_a_planned_failover_leaves_nobody_with_the_old_primary(connect):
    """It goes on living, as a replica: who asks it is refused, who listens to it would miss us."""
    with Sentinels(any_kind()) as group:
        server = connect(group.url)
        acknowledged, heard = [], []
        server.subscribe(BASE, "channel", heard.append)
        calls = adding(server, acknowledged)
        more(acknowledged)
        group.sentinels[0].command("SENTINEL FAILOVER", group.service)
        wait_until(lambda: role(group.replica) == b"master" and role(group.primary) == b"slave")
        more(acknowledged)
        wait_until(lambda: not server.away)
        wait_until(lambda: group.replica.connections() == 2)
        server.call(BASE, "PUBLISH", "channel", "after")
        wait_until(lambda: b"after" in heard)
        calls.kill()


def test_sentinels_that_are_not_there_or_know_nothing(connect):
    with Sentinels(any_kind()) as group:
        group.sentinels[0].kill9()
        server = connect(group.url)
        assert server.call(BASE, "PING") == b"PONG"
        stranger = connect(group.url.replace("/tasks/", "/others/"), patience=0.2)
        with pytest.raises(ServerUnavailable, match="knows no 'others'"):
            stranger.call(BASE, "PING")
        for each in group.sentinels[1:]:
            each.kill9()
        assert server.call(BASE, "PING") == b"PONG"  # who knows the primary needs nobody


# --- clusters


@pytest.fixture(scope="module", params=each_kind())
def cluster(request):
    with Cluster(request.param) as cluster:
        yield cluster


def bases(cluster):
    """One base for each primary."""
    found = {}
    for number in range(100):
        base = f"gtm:{{test:queue-{number}}}"
        found.setdefault(cluster.owner(base).port, base)
        if len(found) == len(cluster.primaries):
            return list(found.values())
    raise AssertionError("no queue has its slot there")


def test_slots_are_those_of_the_servers(cluster):
    for key in (BASE, "a", "{b}c", "{}d", "e{f", "g}h{i}", "{{j}}", "ü{ß}"):
        assert slot_of(key) == cluster.slot(key)


def test_every_node_serves_its_own(cluster, connect):
    server = connect(cluster.url)
    for base in bases(cluster):
        heard = []
        subscription = server.subscribe(base, f"{base}:channel", heard.append)
        calls = [gevent.spawn(server.script, ADD, base, number) for number in range(50)]
        gevent.joinall(calls, timeout=PATIENCE, raise_error=True)
        # The server counts the listeners of the node where the script runs.
        assert server.call(base, "PUBLISH", f"{base}:channel", "x") == 1
        wait_until(lambda heard=heard: heard)
        assert len(members(cluster.owner(base), base)) >= 50
        subscription.close()


def test_a_slot_moves_under_calls(cluster, connect):
    """Keys are in two places for a while: one is found where it is, and no script runs."""
    base = "gtm:{moving:queue}"
    server = connect(cluster.url)
    heard, acknowledged = [], []
    server.subscribe(base, f"{base}:channel", heard.append)
    for number in range(20):
        server.call(base, "SET", f"{base}:{number}", number)
    calls = adding(server, acknowledged, base)
    more(acknowledged)

    def halfway():
        for number in range(20):
            assert server.call(base, "GET", f"{base}:{number}") == b"%d" % number
        assert server.call(base, "GET", f"{base}:none") is None
        held.append(len(acknowledged))
        gevent.sleep(0.05)
        assert len(acknowledged) == held[0]

    held = []
    new = cluster.migrate(base, halfway)
    more(acknowledged)
    for number in range(20):
        assert server.call(base, "GET", f"{base}:{number}") == b"%d" % number
    wait_until(lambda: server.call(base, "PUBLISH", f"{base}:channel", "x") == 1)
    assert cluster.owner(base) is new
    calls.kill()
    assert members(new, base) - {len(acknowledged)} == set(acknowledged)  # one was under way
    assert not server.away


def test_a_node_of_a_cluster_says_what_the_url_should_be(cluster, connect):
    foreign = next(each for each in bases(cluster) if cluster.owner(each) is cluster.primaries[2])
    server = connect(cluster.primaries[0].url)
    with pytest.raises(ServerError, match=r"redis\+cluster://"):
        server.call(foreign, "GET", foreign)


def test_a_server_that_is_no_cluster_says_so(connect):
    with RunningServer(any_kind()) as running:
        server = connect(f"redis+cluster://127.0.0.1:{running.port}")
        with pytest.raises(ServerError, match="cluster"):
            server.call(BASE, "PING")


def test_a_node_of_a_cluster_dies_and_its_replica_takes_over(connect):
    with Cluster(any_kind(), replicas=1) as cluster:
        primary, replica = cluster.primaries[0], cluster.replicas[0]
        base = next(each for each in bases(cluster) if cluster.owner(each) is primary)
        server = connect(cluster.url)
        acknowledged, heard = [], []
        server.subscribe(base, f"{base}:channel", heard.append)
        calls = adding(server, acknowledged, base)
        more(acknowledged)
        primary.kill9()
        more(acknowledged)
        wait_until(lambda: server.call(base, "PUBLISH", f"{base}:channel", "x") == 1)
        calls.kill()
        assert acknowledged[-1] in members(replica, base)


def test_a_cluster_that_is_away(connect):
    with Cluster(any_kind()) as cluster:
        server = connect(cluster.url)
        server.call(BASE, "PING")
        for each in cluster.nodes:
            each.kill9()
        calls = gevent.spawn(server.script, ADD, BASE, 1)
        wait_until(lambda: server.away)
        for each in cluster.nodes:
            each.restart()
        assert calls.get(timeout=PATIENCE) == 1


# --- replicas ------------------------------------------------------------------------------------


@pytest.fixture
def replicated():
    """A server with one replica."""
    kind = any_kind()
    with RunningServer(kind) as primary, RunningServer(kind, replica_of=primary) as replica:
        link = replica.client()
        wait_until(lambda: link.info("replication")["master_link_status"] == "up", PATIENCE)
        yield primary, replica


def test_a_task_counts_as_sent_when_the_replica_has_it(replicated):
    primary, replica = replicated
    server = Server(primary.url, patience=20)
    ledger = Ledger(server, "tests", "replicated")
    assert ledger.enqueue([entry("here and there")], "request", replicas=1) == [None]
    assert replica.client().exists(f"{ledger.base}:t:here and there")
    server.close()


def test_who_waits_for_more_replicas_than_there_are_is_told_so(replicated):
    server = Server(replicated[0].url, patience=1)
    ledger = Ledger(server, "tests", "replicated")
    with pytest.raises(ServerUnavailable, match="1 of 2 replicas"):
        ledger.enqueue([entry("rarely lost")], "request", replicas=2)
    assert ledger.counts().waiting == 1
    server.close()


def test_others_do_not_wait_for_replicas_that_are_not_there(replicated):
    server = Server(replicated[0].url, patience=10)
    ledger = Ledger(server, "tests", "replicated")
    ledger.counts()
    sending = [
        gevent.spawn(ledger.enqueue, [entry(f"task{n}")], f"request{n}", replicas=2)
        for n in range(100)
    ]
    wait_until(lambda: ledger.counts().waiting == 100, PATIENCE)
    for _ in range(10):
        ledger.counts()
    assert not any(each.ready() for each in sending)
    gevent.killall(sending)
    assert ledger.enqueue([entry("another")], "another", replicas=1) == [None]
    server.close()


def test_those_who_wait_for_replicas_share_a_question():
    asked, free = [], Event()

    def ask(commands, count):
        asked.append((commands, count))
        free.wait()
        return 1

    confirming = Confirming(ask)
    waiting = [gevent.spawn(confirming.found, b"0", 1, 0.25)]
    wait_until(lambda: asked, PATIENCE)
    waiting += [gevent.spawn(confirming.found, b"%d" % n, n, 0.25) for n in range(1, 6)]
    gevent.sleep(0)
    waiting[-1].kill()
    free.set()
    gevent.joinall(waiting[:-1], timeout=PATIENCE, raise_error=True)
    assert [count for _, count in asked] == [2, 6]
    assert asked[1][0].startswith(b"12345")
    assert b"\r\n5\r\n" in asked[1][0]  # the most that any of them wants


@pytest.mark.parametrize(
    ("told", "url"),
    [
        ({}, "redis+cluster://{}"),
        ({"username": "default", "password": "pw"}, "redis+cluster://default:pw@{}"),
    ],
)
def test_a_cluster_of_redis_py_is_taken_over_and_used(told, url):
    with Cluster() as cluster:
        for node in cluster.nodes if told else ():
            node.command("CONFIG SET", "requirepass", told["password"])
        first = cluster.nodes[0].port
        client = redis.RedisCluster("127.0.0.1", first, **told)
        address = Address.of(client)
        client.close()
        assert {node.port for node in address.nodes} == {each.port for each in cluster.nodes}
        asked = Address.parse(url.format(f"127.0.0.1:{first}"))
        assert dataclasses.replace(address, timeout=5.0, nodes=asked.nodes) == asked
        server = Server(address, patience=20)
        for queue in "abc":  # on different nodes
            ledger = Ledger(server, "cluster", queue)
            assert ledger.enqueue([entry("task")], "request") == [None]
        server.close()
