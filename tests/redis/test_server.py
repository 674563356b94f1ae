"""One server: many callers, lost replies, outages, and whoever is killed meanwhile."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import random
import threading
import traceback

import gevent
import pytest
from gevent.event import Event
from gevent.server import StreamServer
from servers import Proxy, RunningServer, any_kind, certificates, each_kind, tls_kind
from worlds import PATIENCE, run_python, wait_until

from gtaskman.errors import GTaskmanError, ServerError, ServerUnavailable, WouldBlockError
from gtaskman.redis.address import Address
from gtaskman.redis.scripts import Script
from gtaskman.redis.server import Server

BASE = "gtm:{test:queue}"


def _script(source):
    return Script("test", source, hashlib.sha1(source.encode()).hexdigest())


# Adds a member to a set: may run twice, and what was acknowledged can be looked for.
ADD = _script("return redis.call('SADD', KEYS[1] .. ':set', ARGV[1])")
READ = _script("return redis.call('SCARD', KEYS[1] .. ':set')")


@pytest.fixture(params=each_kind())
def running(request):
    with RunningServer(request.param) as server:
        yield server


@pytest.fixture
def any_running():
    with RunningServer(any_kind()) as server:
        yield server


@pytest.fixture
def proxy(any_running):
    with Proxy(any_running) as proxy:
        yield proxy


@pytest.fixture
def connect(request):
    """Makes servers of ours, and closes them."""
    made = []

    def make(url, **options):
        made.append(Server(url, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def members(running):
    return {int(each) for each in running.command("SMEMBERS", f"{BASE}:set")}


# --- asking


def test_replies_are_what_the_server_said(running, connect):
    server = connect(running.url)
    assert server.call(BASE, "SET", "a", b"\x00\xff") == b"OK"
    assert server.call(BASE, "GET", "a") == b"\x00\xff"
    assert server.call(BASE, "GET", "none") is None
    assert server.call(BASE, "RPUSH", "l", 1, "zwei", 3.5) == 3
    assert server.call(BASE, "LRANGE", "l", 0, -1) == [b"1", b"zwei", b"3.5"]
    assert server.call(BASE, "LRANGE", "none", 0, -1) == []


def test_an_error_is_raised_and_disturbs_nobody(running, connect):
    server = connect(running.url)
    server.call(BASE, "SET", "a", "text")
    others = [gevent.spawn(server.call, BASE, "INCR", "n") for _ in range(10)]
    with pytest.raises(ServerError) as caught:
        server.call(BASE, "LPUSH", "a", 1)
    assert caught.value.code == "WRONGTYPE"
    gevent.joinall(others, raise_error=True)
    assert server.call(BASE, "GET", "n") == b"10"
    assert not server.away


def test_everybody_gets_their_own_reply(running, connect):
    """1,000 greenlets on one connection, with requests and replies of all sizes."""
    server = connect(running.url)
    draw = random.Random(7)
    sizes = [draw.choice([1, 10, 1000, 100_000]) for _ in range(1000)]

    def echo(number, size):
        said = b"%d:" % number + b"x" * size
        return all(server.call(BASE, "ECHO", said) == said for _ in range(3))

    callers = [gevent.spawn(echo, *each) for each in enumerate(sizes)]
    gevent.joinall(callers, timeout=PATIENCE, raise_error=True)
    assert all(each.value for each in callers)
    assert running.connections() == 1


def test_a_script_is_loaded_when_the_server_does_not_have_it(running, connect):
    server = connect(running.url)
    assert server.script(ADD, BASE, 1) == 1
    running.command("SCRIPT", "FLUSH")
    adding = [gevent.spawn(server.script, ADD, BASE, number) for number in range(2, 300)]
    gevent.joinall(adding, raise_error=True)
    assert server.script(READ, BASE) == 299


def test_credentials_are_asked_for_at_each_connect(connect):
    with RunningServer(any_kind(), password="first") as running:
        known, asked = ["first"], []

        def credentials():
            asked.append(known[0])
            return known[0]

        url = running.url.replace(":first@", "")
        server = connect(Address.of(url, credentials), patience=PATIENCE)
        assert server.call(BASE, "PING") == b"PONG"
        heard = []
        server.subscribe(BASE, f"{BASE}:channel", heard.append)
        with contextlib.closing(running.client()) as other:
            other.config_set("requirepass", "second")
            known[0] = "second"
            other.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            other.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        assert server.call(BASE, "PING") == b"PONG"
        wait_until(lambda: asked.count("second") >= 2, PATIENCE, "both connections are back")
        running.password = "second"


def test_credentials_that_cannot_be_had_are_asked_for_again(any_running, connect, caplog):
    asked = []

    def credentials():
        asked.append(1)
        if len(asked) < 3:
            raise OSError("no route to the identity provider")
        return "none"

    any_running.command("CONFIG", "SET", "requirepass", "none")
    server = connect(Address.of(any_running.url, credentials), patience=PATIENCE)
    assert server.call(BASE, "PING") == b"PONG"
    assert "no route to the identity provider" in caplog.text


def test_a_server_that_repeats_a_password_in_an_error_is_not_quoted(connect):
    def answer(sock, _where):
        sock.recv(4096)
        sock.sendall(b"-ERR unknown command 'AUTH', with args beginning with: 's3cretpw'\r\n")

    listener = StreamServer(("127.0.0.1", 0), answer)
    listener.start()
    with pytest.raises(ServerError) as caught:
        connect(f"redis://:s3cretpw@127.0.0.1:{listener.server_port}").call(BASE, "PING")
    assert "refuses the user and password" in str(caught.value)
    assert "s3cretpw" not in str(caught.value)
    listener.stop()


@pytest.mark.parametrize("kind", each_kind())
def test_a_unix_socket_and_a_password(kind, connect):
    with RunningServer(kind, unix=True, password="p@ss:/?#%") as running:
        who = "p%40ss%3A%2F%3F%23%25"
        server = connect(f"redis+socket://:{who}@{running.socket}?db=3")
        server.call(BASE, "SET", "a", 1)
        assert running.command("DBSIZE") == 0  # the other databases
        assert server.call(BASE, "DBSIZE") == 1


@pytest.mark.parametrize(
    ("who", "told"),
    [("", "wants a password"), (":wrong@", "refuses"), ("nobody:secret@", "refuses")],
)
@pytest.mark.parametrize("kind", each_kind())
def test_a_wrong_password_is_told_at_once(kind, who, told, connect):
    with RunningServer(kind, password="secret") as running:
        server = connect(f"redis://{who}127.0.0.1:{running.port}")
        with pytest.raises(ServerError, match=told) as caught:
            server.call(BASE, "GET", "a")
        assert "secret" not in str(caught.value)
        with pytest.raises(ServerError, match=told):
            server.subscribe(BASE, "channel", print)


def test_a_password_where_none_is_wanted(running, connect):
    server = connect(f"redis://:secret@127.0.0.1:{running.port}")
    with pytest.raises(ServerError, match="refuses"):
        server.call(BASE, "GET", "a")


def test_a_database_that_is_not_there(running, connect):
    server = connect(running.url.removesuffix("/0") + "/99")
    with pytest.raises(ServerError, match="DB index"):
        server.call(BASE, "GET", "a")


def test_tls(tmp_path, connect):
    files = certificates(tmp_path / "tls")
    with RunningServer(tls_kind(), tls=files) as running:
        server = connect(running.url)
        adding = [gevent.spawn(server.script, ADD, BASE, number) for number in range(200)]
        heard = Event()
        server.subscribe(BASE, "channel", lambda data: heard.set())
        server.call(BASE, "PUBLISH", "channel", b"x" * 100_000)
        assert heard.wait(PATIENCE)
        gevent.joinall(adding, raise_error=True)
        assert server.script(READ, BASE) == 200
        untrusting = connect(running.url.partition("?")[0])
        with pytest.raises(ServerError, match="ssl_ca_certs"):
            untrusting.call(BASE, "PING")
        reckless = connect(running.url.partition("?")[0] + "?ssl_cert_reqs=none")
        assert reckless.call(BASE, "PING") == b"PONG"


def test_a_callback_of_the_hub_cannot_wait(any_running, connect):
    server = connect(any_running.url)
    outcome = []

    def callback():
        try:
            server.call(BASE, "PING")
        except WouldBlockError as error:
            outcome.append(error)

    gevent.get_hub().loop.run_callback(callback)
    wait_until(lambda: outcome)
    assert server.call(BASE, "PING") == b"PONG"


# --- lost replies


def test_a_lost_reply_is_asked_for_again(proxy, any_running, connect):
    server = connect(proxy.url)
    server.script(ADD, BASE, 0)
    proxy.lose(1)
    assert server.script(ADD, BASE, 1) == 0  # it had been added, and nobody had been told
    assert proxy.lost == 1
    assert members(any_running) == {0, 1}
    assert not server.away


def test_every_reply_may_be_lost_now_and_then(proxy, any_running, connect, caplog):
    server = connect(proxy.url)
    server.script(ADD, BASE, 0)
    caplog.set_level(logging.WARNING)
    proxy.lose(every=3)

    def add(numbers):
        for number in numbers:
            server.script(ADD, BASE, number)

    adding = [gevent.spawn(add, range(n, 500, 20)) for n in range(20)]
    gevent.joinall(adding, timeout=PATIENCE, raise_error=True)
    assert members(any_running) == set(range(500))
    assert proxy.lost > 5
    assert not caplog.records  # the server was there all the time


def test_what_may_have_been_done_is_sent_again_for_a_while_only(proxy, any_running, connect):
    server = connect(proxy.url, patience=PATIENCE)
    server.script(ADD, BASE, 0, replay=0.0)  # its reply comes
    proxy.lose(1)
    proxy_of = gevent.spawn(server.script, ADD, BASE, 1, replay=0.0)
    with pytest.raises(ServerUnavailable, match="may have been done"):
        proxy_of.get(timeout=PATIENCE)
    assert members(any_running) == {0, 1}


def test_what_was_never_sent_is_sent_however_late(proxy, any_running, connect):
    server = connect(proxy.url, patience=PATIENCE)
    server.call(BASE, "PING")
    proxy.refuse()
    with pytest.raises(ServerUnavailable):
        connect(proxy.url, patience=0.1).script(ADD, BASE, 1, replay=0.0)
    late = connect(proxy.url, patience=PATIENCE)
    sender = gevent.spawn(late.script, ADD, BASE, 2, replay=0.0)
    wait_until(lambda: late.away, PATIENCE)
    proxy.accept()
    assert sender.get(timeout=PATIENCE) == 1
    assert members(any_running) == {2}


def test_the_pause_before_a_command_is_sent_again_has_a_limit(proxy, connect, monkeypatch):
    pauses = []
    sleep = gevent.sleep
    monkeypatch.setattr(
        "gtaskman.redis.errand.gevent.sleep", lambda s: (pauses.append(s), sleep(s))
    )
    server = connect(proxy.url, longest_pause=0.06)
    server.call(BASE, "PING")
    proxy.lose(8)
    server.script(ADD, BASE, 1)
    own = [each for each in pauses if each > 0.005]  # the proxy sleeps too
    assert len(own) >= 6
    assert max(own) <= 0.06


def test_a_slow_way_mixes_nothing_up(proxy, connect):
    server = connect(proxy.url)
    proxy.delay = 0.02

    def echo(number):
        return [server.call(BASE, "ECHO", f"{number}-{n}") for n in range(5)]

    callers = [gevent.spawn(echo, number) for number in range(300)]
    gevent.joinall(callers, timeout=PATIENCE, raise_error=True)
    for number, caller in enumerate(callers):
        assert caller.value == [f"{number}-{n}".encode() for n in range(5)]


def test_who_is_killed_while_it_waits_disturbs_nobody(proxy, connect):
    """Whoever leads a round is among them: the others' commands are sent again."""
    server = connect(proxy.url)
    server.call(BASE, "PING")
    proxy.delay = 0.002
    draw = random.Random(11)
    right = []

    def echo(number):
        for n in range(20):
            said = f"{number}-{n}".encode()
            right.append(server.call(BASE, "ECHO", said) == said)

    def timed(number):
        while True:
            with gevent.Timeout(draw.uniform(0, 0.01), False):
                echo(number)

    callers = [gevent.spawn(echo, number) for number in range(50)]
    doomed = [gevent.spawn(timed, number) for number in range(50, 60)]
    victims = [gevent.spawn(echo, number) for number in range(60, 100)]
    while victims:
        gevent.sleep(draw.uniform(0, 0.003))
        victims.pop(draw.randrange(len(victims))).kill()
    gevent.joinall(callers, timeout=PATIENCE, raise_error=True)
    assert all(each.dead for each in callers)
    gevent.killall(doomed)
    assert all(right)
    assert len(right) >= 50 * 20
    assert server.call(BASE, "ECHO", "after") == b"after"


# --- outages


@pytest.mark.parametrize("kind", each_kind())
def test_killed_under_200_callers_and_started_again(kind, connect, caplog):
    caplog.set_level(logging.WARNING)
    with RunningServer(kind, aof="always") as running:
        server = connect(running.url)
        acknowledged = set()

        def add(numbers):
            for number in numbers:
                server.script(ADD, BASE, number)
                acknowledged.add(number)

        callers = [gevent.spawn(add, range(n, 4000, 200)) for n in range(200)]
        for enough in (500, 2000):
            wait_until(lambda enough=enough: len(acknowledged) > enough, every=0.0005)
            running.kill9()
            wait_until(lambda: server.away)
            assert not server.silent
            running.restart()
            wait_until(lambda: not server.away)
        gevent.joinall(callers, timeout=PATIENCE, raise_error=True)
        assert acknowledged == set(range(4000)) == members(running)
    said = [record.getMessage() for record in caplog.records]
    assert len([each for each in said if " is away: " in each]) == 2
    assert len([each for each in said if " is back after " in each]) == 2
    assert len(said) == 4


def test_stopped_it_is_silent_and_goes_on(any_running, connect):
    server = connect(any_running.url + "?timeout=0.3")
    heard, back = [], Event()
    server.on_away(heard.append)
    server.on_back(lambda seconds: back.set())
    server.script(ADD, BASE, 0)
    any_running.sigstop()
    adding = [gevent.spawn(server.script, ADD, BASE, number) for number in range(1, 100)]
    wait_until(lambda: server.away)
    assert server.silent
    assert "did not answer" in heard[0]
    assert repr(server).endswith("away>")
    any_running.sigcont()
    gevent.joinall(adding, timeout=PATIENCE, raise_error=True)
    assert back.wait(PATIENCE)
    assert not server.away
    assert not server.silent
    assert members(any_running) == set(range(100))


def test_a_late_reply_is_no_lost_one(any_running, connect, caplog):
    """The hub was blocked for longer than a reply may take: that is not the server's fault."""
    import time

    caplog.set_level(logging.WARNING)
    server = connect(any_running.url + "?timeout=0.1")
    server.call(BASE, "PING")
    before = any_running.calls("echo")
    asking = gevent.spawn(server.call, BASE, "ECHO", "x")
    gevent.sleep(0)
    time.sleep(0.3)
    assert asking.get(timeout=PATIENCE) == b"x"
    assert any_running.calls("echo") == before + 1
    assert not caplog.records


def test_patience_ends(any_running, connect):
    server = connect(any_running.url, patience=0.3)
    server.call(BASE, "PING")
    any_running.kill9()
    asking = [gevent.spawn(server.call, BASE, "PING") for _ in range(50)]
    for each in asking:
        with pytest.raises(ServerUnavailable, match=r"refused.*0\.3 s"):
            each.get(timeout=PATIENCE)
    with pytest.raises(ServerUnavailable):
        server.subscribe(BASE, "channel", print)
    any_running.restart()
    wait_until(lambda: not server.away)
    assert server.call(BASE, "PING") == b"PONG"


def test_patience_ends_with_a_server_that_is_silent(any_running, connect):
    server = connect(any_running.url, patience=0.3)
    server.call(BASE, "PING")
    any_running.sigstop()
    with pytest.raises(ServerUnavailable, match="did not answer"):
        server.call(BASE, "PING")
    any_running.sigcont()
    wait_until(lambda: not server.away)


def test_a_name_that_nobody_knows(connect):
    server = connect("redis://no-such-host.invalid:6379", patience=0.1)
    with pytest.raises(ServerUnavailable, match="name"):
        server.call(BASE, "PING")


def test_nothing_blocks_the_hub_while_the_server_is_away(any_running, connect):
    server = connect(any_running.url.replace("127.0.0.1", "localhost"))
    server.call(BASE, "PING")
    any_running.kill9()
    asking = [gevent.spawn(server.call, BASE, "PING") for _ in range(20)]
    wait_until(lambda: server.away)
    for _ in range(100):
        gevent.sleep(0.001)
    assert server.away
    any_running.restart()
    gevent.joinall(asking, timeout=PATIENCE, raise_error=True)


def test_a_replica_takes_no_writes_until_it_is_promoted(running, connect):
    with RunningServer(running.kind, replica_of=running) as replica:
        wait_until(lambda: replica.command("INFO", "replication")["master_link_status"] == "up")
        server = connect(replica.url)
        adding = gevent.spawn(server.script, ADD, BASE, 1)
        wait_until(lambda: server.away)
        assert not server.silent
        replica.command("REPLICAOF", "NO", "ONE")
        assert adding.get(timeout=PATIENCE) == 1


def test_a_closed_server_may_be_used_again(any_running, connect, no_leaks):
    server = connect(any_running.url)
    subscription = server.subscribe(BASE, "channel", print)
    server.close()
    subscription.close()
    assert server.call(BASE, "PING") == b"PONG"
    under_way = [gevent.spawn(server.call, BASE, "BLPOP", "none", 0) for _ in range(3)]
    wait_until(lambda: any_running.command("INFO", "clients")["blocked_clients"])
    server.close()
    any_running.kill9()
    waiting = gevent.spawn(server.call, BASE, "PING")
    wait_until(lambda: server.away)
    server.close()
    for each in (*under_way, waiting):
        with pytest.raises(ServerUnavailable, match="closed"):
            each.get(timeout=PATIENCE)


# --- hearing


def test_messages_are_heard_in_order(running, connect):
    server = connect(running.url)
    heard = []
    subscription = server.subscribe(BASE, "channel", heard.append)
    for number in range(1000):
        assert server.call(BASE, "PUBLISH", "channel", number) == 1
    wait_until(lambda: len(heard) == 1000)
    assert heard == [b"%d" % number for number in range(1000)]
    subscription.close()
    wait_until(lambda: server.call(BASE, "PUBLISH", "channel", "x") == 0)


def test_many_channels_share_one_connection(running, connect):
    server = connect(running.url)
    heard = {}
    subscriptions = [
        server.subscribe(BASE, f"channel-{n}", lambda data, n=n: heard.setdefault(n, data))
        for n in range(50)
    ]
    assert running.connections() == 2
    for n in range(50):
        server.call(BASE, "PUBLISH", f"channel-{n}", n)
    wait_until(lambda: len(heard) == 50)
    assert all(heard[n] == b"%d" % n for n in range(50))
    for each in subscriptions:
        each.close()
        each.close()
    wait_until(lambda: running.connections() == 1)
    again = server.subscribe(BASE, "channel-0", lambda data: heard.update(again=data))
    server.call(BASE, "PUBLISH", again.channel, "more")
    wait_until(lambda: heard.get("again") == b"more")


@pytest.mark.parametrize("how", ["killed", "cut", "stopped"])
def test_after_an_outage_it_hears_on_and_is_told(how, any_running, proxy, connect, monkeypatch):
    monkeypatch.setattr("gtaskman.redis.subscriber._IDLE", 0.1)
    monkeypatch.setattr("gtaskman.redis.subscriber._ANSWER", 0.3)
    server = connect(proxy.url + "?timeout=0.3")
    heard, again = [], []
    subscriptions = [
        server.subscribe(BASE, name, heard.append, lambda: again.append(1)) for name in "ab"
    ]
    if how == "killed":
        any_running.kill9()
        any_running.restart()
    elif how == "cut":
        proxy.cut()
    else:
        proxy.silent = True
        wait_until(lambda: server.away)  # found by asking, without a word from anybody
        assert server.silent
        proxy.silent = False
    wait_until(lambda: len(again) == 2)
    server.call(BASE, "PUBLISH", "b", "after")
    wait_until(lambda: heard == [b"after"])
    for each in subscriptions:
        each.close()


def test_a_callback_that_fails_takes_nobody_with_it(any_running, connect, caplog):
    server = connect(any_running.url)
    heard = []

    def fail(data):
        raise RuntimeError("no")

    server.subscribe(BASE, "a", fail)
    server.subscribe(BASE, "b", heard.append)
    server.call(BASE, "PUBLISH", "a", 1)
    server.call(BASE, "PUBLISH", "b", 2)
    wait_until(lambda: heard)
    assert "could not be dealt with" in caplog.text


# --- threads, forks, worlds


def test_native_threads_have_their_own(any_running):
    outcomes = []

    def work(number):
        server = Server(any_running.url)
        try:
            heard = Event()
            server.subscribe(BASE, f"channel-{number}", lambda data: heard.set())
            for n in range(50):
                server.script(ADD, BASE, number * 50 + n)
            server.call(BASE, "PUBLISH", f"channel-{number}", "x")
            outcomes.append(heard.wait(PATIENCE))
        except BaseException:
            outcomes.append(traceback.format_exc())
        finally:
            server.close()
            gevent.get_hub().destroy(destroy_loop=True)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(PATIENCE)
    assert outcomes == [True] * 4
    assert members(any_running) == set(range(200))


def test_a_thread_that_ends_leaves_no_connection(any_running):
    kept = []

    def work():
        kept.append(Server(any_running.url))
        kept[-1].subscribe(BASE, "channel", print)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(PATIENCE)
    assert len(kept) == 3
    wait_until(lambda: any_running.connections() == 0)


def test_another_thread_is_told_to_make_its_own(any_running, connect):
    server = connect(any_running.url)
    server.call(BASE, "PING")
    asking = gevent.get_hub().threadpool.spawn(server.call, BASE, "PING")
    with pytest.raises(GTaskmanError, match="Server of its own"):
        asking.get(timeout=PATIENCE)
    server.close()
    thread = threading.Thread(target=server.call, args=(BASE, "SET", "by", "another"))
    thread.start()
    thread.join(PATIENCE)
    assert any_running.command("GET", "by") == b"another"


SCRIPT = """
import sys, os
if "patched" in sys.argv:
    from gevent import monkey
    monkey.patch_all()
import gevent
from gtaskman.redis.server import Server

base, url = "gtm:{a:b}", sys.argv[1]
server = Server(url)
heard = []
server.subscribe(base, "channel", heard.append)
server.call(base, "SET", "who", "parent")

def ask(count):
    for n in range(count):
        word = f"{os.getpid()}-{n}"
        assert server.call(base, "ECHO", word) == word.encode()

def busy():  # a copy of it must not speak in the child
    ask(2000)
    server.call(base, "RPUSH", "finished", os.getpid())

greenlet = gevent.spawn(busy)
gevent.sleep(0.01)
child = gevent.os.fork() if "gevent" in sys.argv else os.fork()
if not child:
    inherited = len(heard)
    fresh = []
    server.subscribe(base, "channel", fresh.append)
    ask(500)
    server.call(base, "PUBLISH", "channel", "child")
    while not fresh:
        gevent.sleep(0.01)
    assert len(heard) == inherited
    server.call(base, "RPUSH", "children", 1)
    server.close()
    os._exit(0)
ask(500)
while b"child" not in heard:
    gevent.sleep(0.01)
while server.call(base, "LLEN", "children") == 0:
    gevent.sleep(0.01)
greenlet.get(timeout=20)
assert server.call(base, "LRANGE", "finished", 0, -1) == [str(os.getpid()).encode()]
server.close()
print("done")
"""


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("fork", ["os", "gevent"])
@pytest.mark.parametrize("patched", ["patched", "unpatched"])
def test_a_fork_opens_its_own(any_running, tmp_path, patched, fork, host):
    script = tmp_path / "forking.py"
    script.write_text(SCRIPT)
    url = any_running.url.replace("127.0.0.1", host)
    done = run_python(str(script), url, patched, fork, directory=tmp_path)
    assert done.code == 0, done.output
    assert done.output.strip().endswith("done")


def test_importing_it_needs_no_redis_py(tmp_path):
    done = run_python(
        "-c",
        "import sys, gtaskman.redis.server; assert 'redis' not in sys.modules, 'slow'",
        directory=tmp_path,
    )
    assert done.code == 0, done.output


def test_nothing_is_left_open(any_running, no_leaks):
    server = Server(any_running.url)
    server.subscribe(BASE, "channel", print)
    gevent.joinall([gevent.spawn(server.call, BASE, "PING") for _ in range(100)])
    server.close()
