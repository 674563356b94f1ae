"""What a manager does as an owner of tasks: under lost leases, refusals, and damage by others."""

from __future__ import annotations

import time

import gevent
import pytest
import sharing
from refusing import Refusals
from scenarios import work
from scenarios.control import fate, lines
from scene import Scene
from servers import Proxy, RunningServer, any_kind
from worlds import PATIENCE, wait_until

import gtaskman
from gtaskman import TaskStatus
from gtaskman.envelope import Keyring
from gtaskman.pool.pool import Pool
from gtaskman.redis.ledger import Ledger

LEASE = 3.0  # seconds


@pytest.fixture(scope="module")
def any_running():
    with RunningServer(any_kind()) as server:
        yield server


@pytest.fixture
def scene(any_running, tmp_path):
    with Scene(any_running, tmp_path) as scene:
        yield scene


@pytest.fixture
def frail(tmp_path):
    """A scene on a server of its own, which may be stopped."""
    with RunningServer(any_kind(), aof="always") as server, Scene(server, tmp_path) as scene:
        yield scene


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "marks")


def marks(path, count):
    wait_until(lambda: len(lines(path)) >= count, what=f"{count} marks")
    return lines(path)


def serves(client):
    """Whether a manager serves the queue still."""
    return client.submit(sharing.double, 4).get(PATIENCE) == 8


# --- leases


def end_leases(ledger):
    """Another owner finds that the leases of all others have ended."""
    base = ledger.base
    for owner in ledger.server.call(base, "ZRANGE", f"{base}:own", 0, -1):
        ledger.server.call(base, "ZADD", f"{base}:own", 1, owner)
    ledger.beat("another", LEASE, first=True)
    ledger.resign("another")


def test_a_task_that_comes_back_while_its_old_run_stops_comes_to_one_end(scene, path):
    scene.manager(lease=LEASE, kill_grace=2.0)
    client = scene.client()
    handle = client.submit(sharing.stop_slowly, path, 2.0, 0.8)
    marks(path, 1)
    end_leases(scene.ledger())
    assert handle.get(PATIENCE)
    told = lines(path)
    assert told.index("stopped") < len(told) - 1 - told[::-1].index("begin"), "never two at once"
    assert told.count("end") == 1
    assert client.count(TaskStatus.COMPLETED) == 1


def test_the_same_id_in_two_queues_of_one_manager(scene, path):
    scene.manager("one", "other")
    ledgers = [scene.ledger(name) for name in ("one", "other")]
    for name in ("one", "other"):
        scene.client(queue=name).submit(sharing.linger.with_id("same", path, 1.0))
    assert marks(path, 2) == ["begin", "begin"]
    # a cancel is for the one that it names
    assert ledgers[1].cancel("same", "enough") == "P"
    wait_until(lambda: [each.record("same").status for each in ledgers] == ["C", "X"], PATIENCE)


def test_what_a_silent_server_stopped_is_not_begun_again_if_it_may_run_once(frail, path):
    url = frail.with_options(namespace=frail.namespace, timeout=0.3)
    frail.host(url=url, lease=LEASE)
    client = frail.client()
    handle = client.submit(work.once, path, "x", 600.0)
    marks(path, 1)
    frail.running.sigstop()
    gevent.sleep(2 * LEASE)
    frail.running.sigcont()
    assert isinstance(fate(handle), gtaskman.WorkerCrashed)
    assert lines(path) == ["x"]


@pytest.mark.parametrize("fence", ["auto", "always"])
def test_a_host_that_alone_is_refused_stops_its_tasks_if_it_is_to(frail, path, fence):
    with Proxy(frail.running) as proxy:
        url = f"{proxy.url}?namespace={frail.namespace}"
        queue = gtaskman.RedisTaskQueue(url, lease=LEASE, fence=fence)
        manager = frail.manager(queue=queue, kill_grace=0.3)
        client = frail.client()
        handle = client.submit(sharing.hang_once, path)
        marks(path, 1)
        proxy.refuse()
        try:
            if fence == "always":
                assert marks(path, 2) == ["begin 1", "stopped"]
            else:
                gevent.sleep(LEASE)
                assert lines(path) == ["begin 1"]
        finally:
            proxy.accept()
        client.cancel(handle.id)
        handle.wait(PATIENCE)
        manager.stop(0)


@pytest.mark.parametrize("way", ["password", "clients"])
def test_a_host_that_is_not_let_in_stops_its_tasks_before_the_lease_ends(frail, path, way):
    host = frail.host(lease=LEASE)
    client = frail.client()
    handle = client.submit(sharing.hang_once, path)
    marks(path, 1)
    refusing = Refusals(frail.running)
    with refusing.ways[way]():
        assert marks(path, 2) == ["begin 1", "stopped"]
    assert handle.get(PATIENCE)
    assert "before its lease ends" in host.stop()


def test_an_unknown_fence_is_refused():
    with pytest.raises(gtaskman.ConfigurationError, match="fence"):
        gtaskman.RedisTaskQueue("redis://127.0.0.1:1", fence="never")


# --- what would end the courier


def test_progress_that_cannot_be_encoded_stops_nothing(scene):
    scene.manager(max_processes=1)
    client = scene.client()
    handle = client.submit(sharing.odd_progress)
    assert handle.get(PATIENCE)
    assert serves(client)


def test_an_id_and_an_envelope_that_cannot_be_read_fail(scene):
    scene.manager()
    client, ledger = scene.client(), scene.ledger()
    assert serves(client)
    ledger.pause()
    handles = client.submit_many(sharing.double.task(each) for each in range(2))
    base, odd = ledger.base, b"caf\xe9"
    old = handles[0].id
    for kind in "tp":
        ledger.server.call(base, "RENAME", f"{base}:{kind}:{old}", f"{base}:{kind}:".encode() + odd)
    score = ledger.server.call(base, "ZSCORE", f"{base}:ws", old)
    ledger.server.call(base, "ZREM", f"{base}:ws", old)
    ledger.server.call(base, "ZADD", f"{base}:ws", score, odd)
    ledger.server.call(base, "SET", f"{base}:p:{handles[1].id}", b"\xff\x00 damaged")
    ledger.resume()
    wait_until(lambda: ledger.counts().failed == 2, PATIENCE, "both have failed")
    assert serves(client)
    for index in ("xF", "ex"):  # the test's own look at the records cannot read it
        ledger.server.call(base, "ZREM", f"{base}:{index}", odd)
    for kind in "tpe":
        ledger.server.call(base, "DEL", f"{base}:{kind}:".encode() + odd)


def test_an_error_of_the_code_is_survived_and_one_for_ever_ends_the_manager(scene, monkeypatch):
    manager = scene.manager(lease=1.0)
    client = scene.client()
    assert serves(client)
    beat, wrong = Ledger.beat, []

    def failing(self, *args, **options):
        if len(wrong) < 2:
            wrong.append(1)
            raise OSError("no descriptors")
        return beat(self, *args, **options)

    monkeypatch.setattr(Ledger, "beat", failing)
    wait_until(lambda: len(wrong) == 2, PATIENCE, "it has failed twice")
    assert serves(client)

    def broken(self, *args, **options):
        raise OSError("broken for good")

    monkeypatch.setattr(Ledger, "beat", broken)
    wait_until(lambda: manager.failure is not None, PATIENCE, "it gives up")
    assert "broken for good" in str(manager.failure)
    monkeypatch.setattr(Ledger, "beat", beat)
    wait_until(lambda: not manager.pids(), PATIENCE, "it has ended")


def test_a_vow_that_is_refused_loses_nothing(scene, monkeypatch):
    scene.manager(max_processes=2)
    client = scene.client()
    vow, refused = Ledger.vow, []

    def refusing(self, *args):
        if len(refused) < 3:
            refused.append(1)
            raise gtaskman.ServerError("OOM command not allowed", "OOM")
        return vow(self, *args)

    monkeypatch.setattr(Ledger, "vow", refusing)
    once = sharing.double.with_options(at_most_once=True)
    tasks = [(once if each % 2 else sharing.double).task(each) for each in range(10)]
    handles = client.submit_many(tasks)
    assert [each.get(PATIENCE) for each in handles] == [2 * each for each in range(10)]
    assert len(refused) == 3


def test_listeners_get_results_of_any_size_and_codec(scene):
    keyring = Keyring({"one": b"0123456789abcdef" * 2})
    queue = scene.queue(keyring=keyring, accept="jmp")
    manager = scene.manager(queue=queue)
    told = []
    manager.on("task-completed", told.append)
    client = scene.client(keyring=keyring, codec="pickle")
    assert client.submit(sharing.whatever, {1, 2}).get(PATIENCE) == {1, 2}
    wait_until(lambda: told, PATIENCE, "they are told")
    assert told[0].result == {1, 2}
    assert told[0].status is TaskStatus.COMPLETED


# --- places


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_short_task_does_not_wait_behind_a_long_one_while_another_manager_is_idle(
    scene, path, kind
):
    for _ in range(2):
        scene.manager(max_processes=1)
    client = scene.client()
    hang = sharing.hang_once if kind == "sync" else sharing.hang_once_async
    long = client.submit(hang, path)
    marks(path, 1)
    for each in range(10):
        assert client.submit(sharing.double, each).get(PATIENCE) == 2 * each
    assert not long.done()
    client.cancel(long.id)
    fate(long)


def test_a_host_that_can_start_no_workers_hands_its_tasks_to_others(scene, monkeypatch):
    fork = Pool._fork
    broken = []

    def failing(self, count, *rest):
        if self in broken:
            for _ in range(count):
                self._failures += 1
                self._not_before = time.monotonic() + 0.05
                self._start_later()
                if self._failures >= 5:
                    self._listener.on_unable("no processes")
            return
        fork(self, count, *rest)

    monkeypatch.setattr(Pool, "_fork", failing)
    hole = scene.manager(min_processes=0, max_processes=2)
    broken.append(hole._pool)
    client = scene.client()
    handles = client.submit_many(sharing.double.task(each) for each in range(30))
    wait_until(lambda: hole._unable, PATIENCE, "it finds out")
    other = scene.manager(max_processes=1)
    assert [each.get(PATIENCE) for each in handles] == [2 * each for each in range(30)]
    # and when it can start workers again, it serves again
    other.stop()
    broken.clear()
    assert serves(client)


def test_delayed_tasks_of_each_queue_begin_in_time(scene):
    scene.manager("one", "other", lease=60.0)
    began = time.monotonic()
    handles = [
        scene.client(queue=name).submit(sharing.double.with_options(delay=delay), 1)
        for name, delay in (("one", 0.5), ("other", 3.0))
    ]
    assert [each.get(PATIENCE) for each in handles] == [2, 2]
    assert time.monotonic() - began < 12.0, "a lease takes 60 s, and a beat 15"


def test_a_quiet_manager_leaves_what_is_woken_for_to_others(scene):
    quiet, other = (scene.manager(max_processes=1, lease=60.0) for _ in range(2))
    client = scene.client()
    assert serves(client)
    quiet.quiet()
    for _ in range(5):
        began = time.monotonic()
        assert serves(client)
        assert time.monotonic() - began < 7.0, "a heartbeat comes every 15 s"
    assert other.stats()["pool"]["completed_tasks"] >= 5


def test_names_are_told_again_if_the_server_did_not_take_them(scene, monkeypatch):
    announce, refused = Ledger.announce, []

    def refusing(self, kinds):
        if not refused:
            refused.append(1)
            raise gtaskman.ServerError("OOM command not allowed", "OOM")
        announce(self, kinds)

    monkeypatch.setattr(Ledger, "announce", refusing)
    scene.manager(lease=1.0)
    assert serves(scene.client())
    wait_until(lambda: scene.ledger().names(), PATIENCE, "they are there")
