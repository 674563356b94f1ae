"""Managers that share the queues of a server: with each other, with threads, and with bad luck."""

from __future__ import annotations

import contextlib
import decimal
import logging
import threading
import time

import gevent
import pytest
import redis
import sharing
from scenarios import work
from scenarios.control import fate, lines
from scene import ONE_BY_ONE, SHORT_LEASE, Scene, worker_of
from servers import RunningServer, any_kind
from worlds import PATIENCE, wait_until

import gtaskman
from gtaskman import FailureKind, TaskStatus, courier
from gtaskman.pool import worker as pool_worker
from gtaskman.pool.verdict import Verdict

KINDS = pytest.mark.parametrize("kind", ["sync", "async"])
SHORT = 0.2  # seconds: long enough to look at what happens meanwhile
LONG = 1000.0
HANGS = {"sync": sharing.hang_once, "async": sharing.hang_once_async}


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
    """A scene on a server of its own, which may be killed and loses nothing then."""
    with RunningServer(any_kind(), aof="always") as server, Scene(server, tmp_path) as scene:
        yield scene


@pytest.fixture
def client(scene):
    return scene.client()


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "marks")


def ids(those):
    return [each.id for each in those]


def marks(path, count):
    """What is marked there, once it is so much."""
    wait_until(lambda: len(lines(path)) >= count, what=f"{count} marks")
    return lines(path)


# --- queues and namespaces


def test_one_manager_serves_several_queues_the_first_ones_first(scene, client, path):
    for name in ("second", "first", "third"):
        mark = work.leave_mark.with_options(queue=name)
        handles = client.submit_many(mark.task(path, name) for _ in range(200))
    scene.manager("first", "second", **ONE_BY_ONE)
    assert marks(path, 400) == ["first"] * 200 + ["second"] * 200
    assert {each.report.status for each in handles} == {TaskStatus.WAITING}, "nobody serves it"


def test_a_client_may_have_another_default_queue(scene):
    manager = scene.manager("mine")
    client = scene.client(queue="mine")
    handle = client.submit(sharing.double, 1)
    assert (handle.queue, handle.get(PATIENCE)) == ("mine", 2)
    assert manager.submit(sharing.double, 2).queue == "mine"


def test_namespaces_do_not_see_one_another(any_running, path):
    with Scene(any_running) as one, Scene(any_running) as other:
        first = one.client().submit(work.leave_mark.with_options(unique="key"), path, "one")
        second = other.client().submit(work.leave_mark.with_options(unique="key"), path, "other")
        assert one.client().report(second.id) is None
        assert not one.client().cancel(second.id)
        assert one.client().count() == other.client().count() == 1
        other.manager()
        assert second.get(PATIENCE)
        assert lines(path) == ["other"]
        assert not first.done()
        assert one.client().stats()["queue"]["current_tasks"] == 1
        # by name as well as by URL
        url = one.with_options(namespace="elsewhere")
        assert one.client(url=url, namespace=one.namespace).report(first.id).id == first.id


# --- several managers


def test_managers_share_the_work(scene, client):
    managers = [scene.manager(max_processes=1) for _ in range(3)]
    wait_until(lambda: all(each.pids() for each in managers))
    handles = client.submit_many(work.rest.task(0.05) for _ in range(30))
    workers = [each.get(PATIENCE) for each in handles]
    assert set(workers) == set(scene.pids())
    done = [each.stats()["pool"]["completed_tasks"] for each in managers]
    assert sum(done) == 30
    assert min(done) > 0
    assert client.stats()["pool"]["current_processes"] == 3, "owners"


def test_what_one_manager_has_no_room_for_another_takes(scene, client):
    busy = scene.manager(max_processes=1, prefetch=1)
    worker_of(client.submit(work.nap))
    free = scene.manager(max_processes=1)
    for submit in (client.submit, busy.submit, free.submit):
        assert submit(work.whoami).get(PATIENCE) in free.pids()
    client.cancel(client.find(TaskStatus.PROCESSING)[0].id)


def test_a_task_comes_back_to_whoever_is_idle_without_being_asked_for(scene, client):
    scene.manager(max_processes=1)
    assert client.submit(sharing.double, 1).get(PATIENCE) == 2
    gevent.sleep(SHORT)  # everybody is asleep
    assert client.submit(sharing.double, 2).get(PATIENCE) == 4
    delayed = client.submit(sharing.double.with_options(delay=SHORT), 3)
    assert delayed.get(PATIENCE) == 6


# --- a manager's own calls


def test_what_a_manager_is_asked_it_asks_the_server(scene, client, path):
    manager = scene.manager()
    handle = manager.submit(sharing.double, 4)
    assert handle.get(PATIENCE) == 8
    assert manager.report(handle.id) == client.report(handle.id) == handle.report
    assert manager.handle(handle.id).get() == 8
    assert manager.handle("nobody") is None
    assert manager.report("nobody") is None
    theirs = client.submit(sharing.double, 5)
    assert theirs.get(PATIENCE) == 10
    assert manager.handle(theirs.id).get(PATIENCE) == 10
    assert list(manager.map(sharing.double, range(30), chunksize=4)) == list(range(0, 60, 2))
    assert manager.submit(sharing.double.with_id("mine", 1)).id == "mine"
    failed = manager.submit(work.fail_until.with_id("failing", path, 2))
    assert fate(failed).message == "attempt 1"
    assert ids(manager.dead()) == ["failing"]
    assert fate(manager.retry("failing")).message == "attempt 1"
    assert manager.retry("nobody") is None


def test_a_manager_cancels_what_it_runs_and_what_others_have(scene, client):
    manager, other = scene.manager(max_processes=1, prefetch=1), None
    mine = manager.submit(work.nap)
    worker_of(mine)
    other = scene.manager(max_processes=1)
    theirs = manager.submit(work.nap)
    assert worker_of(theirs) in other.pids()
    waiting = manager.submit(work.nap.with_options(delay=LONG))
    for handle in (mine, theirs, waiting):
        assert manager.cancel(handle.id, "enough")
        assert fate(handle).reason == "enough"
    assert not manager.cancel("nobody")
    assert manager.submit(sharing.double, 1).get(PATIENCE) == 2


def test_a_manager_pauses_its_queue_for_everybody(scene, client):
    manager, other = scene.manager(), scene.manager()
    manager.pause()
    assert other.queue.paused
    handle = other.submit(sharing.double, 1)
    assert not handle.wait(SHORT)
    other.resume()
    assert handle.get(PATIENCE) == 2


def test_the_numbers_of_a_manager(scene, client):
    manager = scene.manager(max_processes=1)
    client.wait([client.submit(sharing.double, each) for each in range(3)], PATIENCE)
    fate(client.submit(work.fail, "value"))
    running = client.submit(work.nap)
    worker_of(running)
    client.submit(work.nap.with_options(delay=LONG))
    stats = manager.stats()
    assert stats["pool"]["current_tasks"] == stats["queue"]["current_tasks"] == 1
    assert stats["pool"]["completed_tasks"] == 3
    assert stats["pool"]["failed_tasks"] == 1
    assert (stats["pool"]["current_processes"], stats["pool"]["max_processes"]) == (1, 1)
    assert running.cancel()
    fate(running)
    wait_until(lambda: manager.stats()["pool"]["cancelled_tasks"] == 1)


def test_events_of_what_runs_here(scene, client):
    manager = scene.manager()
    told = []
    for event in ("progress", "completed", "failed", "cancelled"):
        manager.on(f"task-{event}", lambda report, event=event: told.append((event, report)))
    done = client.submit(sharing.mirror_moment)
    failed = client.submit(work.fail, "value")
    client.wait([done, failed], PATIENCE)
    cancelled = client.submit(work.nap)
    worker_of(cancelled)
    cancelled.cancel("enough")
    fate(cancelled)
    wait_until(lambda: len(told) >= 4)
    last = dict(told)
    assert last["completed"].id == done.id
    assert last["completed"].result == done.get()
    assert (last["failed"].id, last["failed"].exc_type) == (failed.id, "KeyError")
    assert (last["progress"].id, last["cancelled"].message) == (cancelled.id, "enough")


def test_a_manager_may_keep_reports_in_a_storage_of_its_own(scene, client):
    queue = scene.queue()
    manager = gtaskman.TaskManager(
        queue, gtaskman.Configuration(max_processes=1), gtaskman.InMemoryTaskStorage()
    )
    with manager:
        done = client.submit(sharing.double, 4)
        failed = client.submit(work.fail, "value")
        client.wait([done, failed], PATIENCE)
        wait_until(lambda: manager.storage.count(finished=True) == 2)
        assert manager.storage.report(failed.id).exc_type == "KeyError"
        assert ids(manager.storage.find(TaskStatus.COMPLETED)) == [done.id]


def test_the_storage_of_a_manager_is_the_server(scene, client):
    manager = scene.manager()
    done = client.submit(sharing.double, 4)
    assert done.get(PATIENCE) == 8
    assert manager.storage.report(done.id).status is TaskStatus.COMPLETED
    assert ids(manager.storage.find(finished=True)) == [done.id]
    assert manager.storage.count(TaskStatus.COMPLETED) == 1


def test_the_storage_of_a_manager_reads_signed_results_of_all_its_queues(scene):
    keyring = gtaskman.Keyring({"one": b"k" * 32})
    manager = scene.manager(queue=scene.queue("first", "second", keyring=keyring))
    client = scene.client(keyring=keyring)
    done = [
        client.submit(sharing.double.with_options(queue=name), number)
        for number, name in enumerate(["second", "first", "second"])
    ]
    assert [each.get(PATIENCE) for each in done] == [0, 2, 4]
    storage = manager.storage
    assert sorted(ids(storage.find())) == sorted(ids(done))
    assert storage.count() == storage.count(TaskStatus.COMPLETED) == 3
    assert [storage.report(each.id).result for each in done] == [0, 2, 4]
    assert storage.delete(done[0].id)
    assert storage.cancel(done[1].id) is None
    assert storage.count() == 2


def test_a_stopped_manager_takes_nothing_and_can_be_stopped_again(scene, client):
    manager = scene.manager()
    assert client.submit(sharing.double, 1).get(PATIENCE) == 2
    manager.stop()
    manager.stop()
    assert client.stats()["pool"]["current_processes"] == 0, "it has resigned"
    handle = client.submit(sharing.double, 2)
    assert not handle.wait(SHORT)
    with pytest.raises(gtaskman.ManagerStopped):
        manager.submit(sharing.double, 1)
    scene.manager()
    assert handle.get(PATIENCE) == 4


def test_a_manager_on_a_thread_of_its_own(scene, client):
    manager = scene.manager(background=True)
    assert client.submit(sharing.double, 1).get(PATIENCE) == 2
    assert manager.submit(sharing.double, 2).get(PATIENCE) == 4
    handle = manager.submit(work.nap)
    worker_of(handle)
    assert manager.cancel(handle.id, "enough")
    assert fate(handle).reason == "enough"
    assert manager.stats()["pool"]["completed_tasks"] == 2


def test_a_manager_needs_a_server_that_forgets_nothing():
    options = ("--maxmemory-policy", "allkeys-lru")
    with (
        RunningServer(any_kind(), options=options) as server,
        pytest.raises(gtaskman.ConfigurationError, match="noeviction"),
    ):
        gtaskman.RedisTaskQueue(server.url).berths()


def test_a_server_that_drops_only_keys_with_a_time_to_live_will_do():
    options = ("--maxmemory-policy", "volatile-lru")
    with RunningServer(any_kind(), options=options) as server, Scene(server) as scene:
        scene.manager()
        assert scene.client().submit(sharing.double, 4).get(PATIENCE) == 8
        with contextlib.closing(server.client()) as looking:
            assert [looking.ttl(key) for key in looking.keys("*")] == [-1] * looking.dbsize()


# --- the default manager


@pytest.fixture
def default():
    yield
    gtaskman.shutdown()
    gtaskman.configure()


@pytest.mark.parametrize("how", ["configure", "environment"])
def test_the_module_sends_to_the_server_that_it_was_told(scene, default, monkeypatch, how):
    scene.manager()
    if how == "configure":
        gtaskman.configure(url=scene.url)
    else:
        monkeypatch.setenv("GTASKMAN_URL", scene.url)
    handle = gtaskman.submit(sharing.double, 4)
    assert handle.get(PATIENCE) == 8
    assert sharing.double.submit(5).get(PATIENCE) == 10
    assert sharing.Multiply(first=decimal.Decimal(2)).submit().get(PATIENCE) == 4
    assert gtaskman.report(handle.id) == scene.client().report(handle.id)
    assert list(gtaskman.map(sharing.double, range(20), chunksize=3)) == list(range(0, 40, 2))
    delayed = gtaskman.submit(sharing.double.with_options(delay=LONG), 1)
    assert gtaskman.stats()["queue"]["current_tasks"] == 1
    assert gtaskman.cancel(delayed.id, "enough")
    assert fate(delayed).reason == "enough"
    assert not gtaskman.cancel("nobody")
    gtaskman.shutdown()
    assert gtaskman.submit(sharing.double, 6).get(PATIENCE) == 12, "it begins anew"


def test_redis_py_may_say_where_the_server_is(scene, default):
    url = f"redis://127.0.0.1:{scene.running.port}/0"
    settings = {"namespace": scene.namespace}
    queue = gtaskman.RedisTaskQueue(redis.Redis.from_url(url), **settings)
    scene.manager(queue=queue)
    with gtaskman.Client(redis.Redis.from_url(url), **settings) as client:
        assert client.submit(sharing.double, 4).get(PATIENCE) == 8
    gtaskman.configure(redis.Redis(host="127.0.0.1", port=scene.running.port))
    handle = gtaskman.submit(sharing.double, 4)
    assert scene.client(namespace="default").report(handle.id).status is TaskStatus.WAITING


def test_a_task_sends_another_one(scene, client, monkeypatch):
    monkeypatch.setenv("GTASKMAN_URL", scene.url)
    scene.manager(max_processes=2)
    assert client.submit(sharing.nested, 4).get(PATIENCE) == 8
    assert client.count(TaskStatus.COMPLETED) == 2


# --- native threads without any gevent of the user's


class Thread(threading.Thread):
    """A real one: this process is not patched. ``ended`` gives its value, and lets our hub run."""

    def __init__(self, function, *args):
        super().__init__(daemon=True)
        self._call, self._value, self._error = (function, args), None, None
        self.start()

    def run(self):
        function, args = self._call
        try:
            self._value = function(*args)
        except BaseException as error:
            self._error = error

    def ended(self):
        wait_until(lambda: not self.is_alive())
        if self._error is not None:
            raise self._error
        return self._value


def test_threads_send_and_wait(scene, client):
    scene.manager()

    def use(number):
        one = client.submit(sharing.double, number).get(PATIENCE)
        many = client.submit_many(sharing.double.task(each) for each in range(50))
        return one, [each.get(PATIENCE) for each in many]

    threads = [Thread(use, number) for number in range(8)]
    expected = list(range(0, 100, 2))
    assert [each.ended() for each in threads] == [(2 * n, expected) for n in range(8)]


def test_a_handle_is_waited_for_in_a_thread_that_did_not_make_it(scene, client):
    made, done = [], threading.Event()

    def make():
        made.extend(client.submit(work.add, 1, each) for each in range(3))
        done.wait(PATIENCE)  # asleep: its hub does not run
        return [each.get(PATIENCE) for each in made]

    maker = Thread(make)
    wait_until(lambda: len(made) == 3)
    waiter = Thread(lambda: made[0].get(PATIENCE))
    reader = Thread(lambda: [each.status for each in made[1].progress()])
    here = gevent.spawn(made[2].get, PATIENCE)
    scene.manager()
    assert waiter.ended() == 1
    assert reader.ended()[-1] is TaskStatus.COMPLETED
    assert here.get(timeout=PATIENCE) == 3
    done.set()
    assert maker.ended() == [1, 2, 3]


def test_several_threads_wait_for_one_handle(scene, client):
    handle = client.submit(sharing.double, 4)
    threads = [Thread(handle.get, PATIENCE) for _ in range(4)]
    waiters = [gevent.spawn(handle.get, PATIENCE) for _ in range(4)]
    gevent.sleep(SHORT)
    scene.manager()
    assert [each.ended() for each in threads] == [8] * 4
    assert [each.get(timeout=PATIENCE) for each in waiters] == [8] * 4


def test_threads_that_come_and_go_leave_no_connections(scene, client):
    scene.manager()
    assert Thread(lambda: client.submit(sharing.double, 1).get(PATIENCE)).ended() == 2
    before = _connections(scene)
    for number in range(5):
        thread = Thread(lambda number=number: client.submit(sharing.double, number).get(PATIENCE))
        assert thread.ended() == 2 * number
    wait_until(lambda: _connections(scene) <= before, 5.0, "the connections of the threads close")


def _connections(scene):
    return len(scene.running.command("CLIENT LIST"))


def test_the_module_is_used_by_threads(scene, default, monkeypatch):
    monkeypatch.setenv("GTASKMAN_URL", scene.url)
    scene.manager()
    threads = [
        Thread(lambda n=n: gtaskman.submit(sharing.double, n).get(PATIENCE)) for n in range(4)
    ]
    assert [each.ended() for each in threads] == [0, 2, 4, 6]


# --- a server that goes away


def test_everything_goes_on_when_the_server_was_killed(frail, path):
    host = frail.host()
    client = frail.client()
    # given tasks that run, tasks that wait, and clients that wait for both
    running = [client.submit(sharing.linger, path, 1.5) for _ in range(2)]
    marks(path, 2)
    waiting = client.submit_many(sharing.double.task(each) for each in range(100))
    waiters = [gevent.spawn(each.get, PATIENCE) for each in (*running, *waiting)]
    gevent.sleep(SHORT)
    # if the server dies, and is away for a while
    frail.running.kill9()
    late = gevent.spawn(client.submit, sharing.double, 500)
    gevent.sleep(0.7)
    frail.running.restart()
    # expect that all is done, and what ran was not disturbed
    gevent.joinall(waiters, timeout=PATIENCE, raise_error=True)
    assert [each.value for each in waiters[2:]] == [2 * each for each in range(100)]
    assert late.get(timeout=PATIENCE).get(PATIENCE) == 1000
    assert sorted(lines(path)) == ["begin", "begin", "end", "end"]
    assert client.count(TaskStatus.COMPLETED) == client.count() == 103
    # and that each side says it once
    output = host.stop()
    assert (output.count(" is away: "), output.count(" is back after ")) == (1, 1)
    assert "ERROR" not in output


def test_a_client_says_once_that_the_server_is_away(frail, caplog):
    client = frail.client()
    handles = [client.submit(sharing.double, each) for each in range(20)]
    waiters = [gevent.spawn(each.get, PATIENCE) for each in handles]
    caplog.set_level(logging.INFO)
    frail.running.kill9()
    callers = [gevent.spawn(client.report, each.id) for each in handles]
    gevent.sleep(0.5)
    frail.running.restart()
    gevent.joinall(callers, timeout=PATIENCE, raise_error=True)
    frail.manager()
    gevent.joinall(waiters, timeout=PATIENCE, raise_error=True)
    ours = [each for each in caplog.records if each.name == "gtaskman.redis.server"]
    told = [each.getMessage() for each in ours]
    assert [" is away: " in each for each in told] == [True, False], told


def test_calls_give_up_when_their_patience_is_over(frail):
    client = frail.client(patience=0.5)
    handle = client.submit(sharing.double, 1)
    unheard = client.handle(handle.id)
    frail.running.kill9()
    for call in (
        lambda: client.submit(sharing.double, 2),
        lambda: client.report(handle.id),
        lambda: client.cancel(handle.id),
        lambda: client.count(),
        lambda: scene_client(frail).submit(sharing.double, 2),
    ):
        with pytest.raises(gtaskman.ServerUnavailable, match=r"waited for 0\.5 s"):
            call()
    # A wait has a time of its own, and is not disturbed.
    for each in (handle, unheard):
        assert not each.wait(0.1)
    waiter = gevent.spawn(handle.get, PATIENCE)
    frail.running.restart()
    frail.manager()
    assert waiter.get(timeout=PATIENCE) == 2
    assert unheard.get(PATIENCE) == 2
    assert client.submit(sharing.double, 3).get(PATIENCE) == 6


def scene_client(scene):
    """One that was never connected."""
    return scene.client(patience=0.5)


@pytest.mark.parametrize("patience", [PATIENCE, 0])
def test_a_wait_ends_in_time_while_the_server_is_away(frail, patience):
    client = frail.client(replies=False, patience=patience)
    handle = client.submit(sharing.double, 1)
    frail.running.kill9()
    waiter = gevent.spawn(handle.wait, SHORT)
    assert waiter.get(timeout=5.0) is False
    frail.running.restart()


def test_a_manager_may_start_before_its_server(frail, path):
    frail.running.kill9()
    manager = frail.manager()
    sender = gevent.spawn(frail.client().submit, sharing.double, 4)
    gevent.sleep(SHORT)
    frail.running.restart()
    assert sender.get(timeout=PATIENCE).get(PATIENCE) == 8
    assert manager.stats()["pool"]["completed_tasks"] == 1


def test_a_manager_can_be_stopped_while_its_server_is_away(frail, path, monkeypatch):
    monkeypatch.setattr(courier, "_LAST", 0.5)
    manager = frail.manager()
    client = frail.client()
    handle = client.submit(sharing.hang_once, path)
    marks(path, 1)
    frail.running.kill9()
    gevent.spawn(manager.stop, 0.1).get(timeout=PATIENCE)
    assert manager.pids() == []
    frail.running.restart()
    frail.manager(lease=SHORT_LEASE)
    assert handle.get(PATIENCE)


@KINDS
def test_a_server_that_falls_silent_stops_what_runs_before_the_lease_ends(frail, path, kind):
    url = frail.with_options(namespace=frail.namespace, timeout=0.4)
    host = frail.host(url=url, lease=3.0)
    client = frail.client()
    handle = client.submit(HANGS[kind], path)
    marks(path, 1)
    # if the server answers nobody, and might be talking to others
    frail.running.sigstop()
    # expect that it is stopped, though nobody can be asked
    try:
        assert marks(path, 2) == ["begin 1", "stopped"]
        assert not handle.done()
    finally:
        frail.running.sigcont()
    # and begins again when the server is back
    assert handle.get(PATIENCE)
    assert len(lines(path)) == 3
    assert client.submit(sharing.double, 4).get(PATIENCE) == 8
    assert "has not answered" in host.stop()


# --- managers that go away


@KINDS
def test_what_a_killed_manager_ran_runs_elsewhere(scene, client, path, kind):
    host = scene.host()
    handle = client.submit(HANGS[kind], path)
    marks(path, 1)
    scene.manager(lease=SHORT_LEASE)
    host.kill9()
    assert handle.get(PATIENCE) == 2
    assert lines(path) == ["begin 1", "begin 2"], "its worker has died with it"
    assert handle.report.worker in scene.pids()
    host.assert_nothing_left()


def test_what_a_killed_manager_had_fetched_runs_elsewhere(scene, client, path):
    host = scene.host(max_processes=1)
    first = client.submit(sharing.hang_once, path)
    marks(path, 1)
    others = client.submit_many(sharing.double.task(each) for each in range(50))
    scene.manager(lease=SHORT_LEASE, max_processes=1)
    host.kill9()
    assert [each.get(PATIENCE) for each in others] == [2 * each for each in range(50)]
    assert first.get(PATIENCE) == 2
    wait_until(lambda: client.stats()["pool"]["current_processes"] == 1)


@KINDS
def test_what_may_run_once_is_lost_with_its_manager(scene, client, path, kind):
    host = scene.host()
    handle = client.submit(work.once if kind == "sync" else work.once_async, path, "x", 600.0)
    marks(path, 1)
    scene.manager(lease=SHORT_LEASE)
    host.kill9()
    error = fate(handle)
    assert type(error) is gtaskman.WorkerCrashed
    assert "at most once" in str(error)
    assert handle.report.error.kind is FailureKind.CRASH
    assert lines(path) == ["x"]
    assert ids(client.dead()) == [handle.id]


@KINDS
def test_what_no_worker_survives_reading_is_given_up(scene, client, path, kind, monkeypatch):
    # given a task under which each worker dies as if it had not read it to its end
    def judge(jobs, *_):
        return [(job, Verdict.UNREAD) for job in jobs]

    monkeypatch.setattr(pool_worker, "judge", judge)
    scene.manager(max_processes=1)
    handle = client.submit(work.of(kind, "die"), "exit", path)
    # then the server knows of each death, whichever manager takes the task next
    error = fate(handle)
    assert type(error) is gtaskman.WorkerCrashed
    assert "while it read the arguments" in error.message
    assert lines(path) == ["x"] * 3


def test_what_kills_its_managers_is_given_up(scene, client, path):
    host = scene.host()
    handle = client.submit(sharing.hang_once.with_options(max_crashes=1), path)
    marks(path, 1)
    scene.manager(lease=SHORT_LEASE)
    host.kill9()
    error = fate(handle)
    assert type(error) is gtaskman.WorkerCrashed
    assert "given up" in str(error)
    assert lines(path) == ["begin 1"]


def test_what_was_to_be_cancelled_is_when_its_manager_dies(scene, client, path):
    host = scene.host()
    handle = client.submit(sharing.hang_once, path)
    marks(path, 1)
    host.pause()
    assert handle.cancel("enough")
    host.kill9()
    scene.manager(lease=SHORT_LEASE)
    assert fate(handle).reason == "enough"


def test_a_manager_that_stood_still_for_too_long_begins_anew(scene, client, path):
    host = scene.host(max_processes=1)
    # given a manager that stands still, and its worker does not
    handle = client.submit(sharing.linger, path, 0.5)
    marks(path, 1)
    host.pause()
    second = scene.manager(lease=SHORT_LEASE)
    # if another one has taken its task and finished it
    assert handle.get(PATIENCE) in scene.pids()
    assert handle.report.attempt == 2
    assert sorted(lines(path)) == ["begin", "begin", "end", "end"]
    # and it goes on
    host.go_on()
    # expect that its end of the task counts for nothing
    wait_until(lambda: " was lost: " in host.output)
    assert client.report(handle.id) == handle.report
    assert client.count(TaskStatus.COMPLETED) == client.stats()["pool"]["completed_tasks"] == 1
    # and that it works on
    second.stop()
    assert client.submit(work.whoami).get(PATIENCE) in {each.pid for each in host.processes()}
    assert "came too late" not in host.stop()


def test_what_runs_is_stopped_when_a_manager_finds_its_lease_lost(scene, client, path):
    host = scene.host(max_processes=1)
    handle = client.submit(sharing.hang_once, path)
    marks(path, 1)
    host.pause()
    scene.manager(lease=SHORT_LEASE)
    assert handle.get(PATIENCE) == 2
    host.go_on()
    wait_until(lambda: "stopped" in lines(path))
    assert lines(path) == ["begin 1", "begin 2", "stopped"]


# --- a good end


@KINDS
def test_what_a_stopping_manager_cannot_finish_goes_back(scene, client, path, kind):
    first = scene.manager(kill_grace=5.0)
    handle = client.submit(HANGS[kind], path)
    marks(path, 1)
    first.stop(timeout=SHORT)
    assert lines(path) == ["begin 1", "stopped"]
    assert not handle.done()
    assert client.report(handle.id).status is TaskStatus.WAITING
    scene.manager()
    assert handle.get(PATIENCE) == 1, "the attempt does not count"


def test_what_waits_behind_it_goes_back_at_once(scene, client, path):
    manager = scene.manager(max_processes=1)
    running = client.submit(sharing.linger, path, 1.0)
    marks(path, 1)
    others = client.submit_many(sharing.double.task(each) for each in range(100))
    stopping = gevent.spawn(manager.stop, PATIENCE)
    other = scene.manager(max_processes=1)
    assert [each.get(PATIENCE) for each in others] == [2 * each for each in range(100)]
    assert running.get(PATIENCE)
    stopping.get(timeout=PATIENCE)
    assert lines(path) == ["begin", "end"], "it was let finish"
    assert other.stats()["pool"]["completed_tasks"] >= 98


def test_what_may_run_once_is_not_handed_on_by_a_stopping_manager(scene, client, path):
    manager = scene.manager(kill_grace=5.0)
    handle = client.submit(work.once, path, "x", 600.0)
    marks(path, 1)
    manager.stop(timeout=SHORT)
    scene.manager()
    assert isinstance(fate(handle), gtaskman.TaskCancelled)
    assert lines(path) == ["x"]


def test_a_host_that_is_told_to_end_drains(scene, client, path):
    host = scene.host()
    handle = client.submit(sharing.linger, path, 0.5)
    marks(path, 1)
    assert "stopped" in host.stop()
    assert handle.get(PATIENCE)
    assert lines(path) == ["begin", "end"]
    assert client.stats()["pool"]["current_processes"] == 0


# --- economy


def test_an_idle_manager_sends_less_than_a_command_a_second(frail):
    frail.manager(lease=10.0)
    client = frail.client()
    assert client.submit(sharing.double, 4).get(PATIENCE) == 8
    client.submit(sharing.double.with_options(delay=LONG), 4)
    client.close()
    gevent.sleep(SHORT)
    before, begin = _commands(frail), time.monotonic()
    gevent.sleep(5.0)
    sent = _commands(frail) - before
    # Those of a heartbeat go together, and one of them may just fall into our time.
    assert sent <= time.monotonic() - begin + 2, f"{sent} commands"


def _commands(scene):
    """How many commands were sent: what a script calls is not among them."""
    stats = scene.running.command("INFO", "commandstats")
    sent = ("evalsha", "eval", "ping", "subscribe", "script|load", "smembers")
    return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in sent)
