"""What a client promises, whatever it is a client of.

``socket``: a manager of this host, with its queue in memory. ``durable``: one with its queue on a
server. ``server``: that server itself, without a manager in between.
"""

from __future__ import annotations

import datetime
import itertools
import os
import time

import gevent
import pytest
from scenarios import tasks, work
from scenarios.control import fate
from scenarios.threads import Thread
from servers import RunningServer, any_kind
from sites import Site
from strategies import AWKWARD_TEXTS
from worlds import PATIENCE, wait_until

import gtaskman
from gtaskman import TaskStatus
from gtaskman.host.client import HostClient

_ids = itertools.count(1)


class Ways:
    """The three ways to the same tasks, each with a manager in a process of its own."""

    def __init__(self) -> None:
        self._made: dict[str, tuple[Site, str]] = {}
        self._server: RunningServer | None = None

    def url(self, way: str) -> str:
        if way not in self._made:
            site = Site()
            queue = "" if way == "socket" else f"{self._redis().url}?namespace={way}"
            self._made[way] = site, queue
            site.host(queue=queue, min_processes=2)
        site, queue = self._made[way]
        return queue if way == "server" else site.url

    def _redis(self) -> RunningServer:
        if self._server is None:
            self._server = RunningServer(any_kind()).__enter__()
        return self._server

    def close(self) -> None:
        for site, _ in self._made.values():
            site.close()
        if self._server is not None:
            self._server.__exit__(None, None, None)


@pytest.fixture(scope="module")
def ways():
    made = Ways()
    yield made
    made.close()


@pytest.fixture(params=["socket", "durable", "server"])
def way(request):
    return request.param


@pytest.fixture
def client(ways, way):
    with gtaskman.Client(ways.url(way), patience=PATIENCE) as client:
        yield client


@pytest.fixture
def fresh():
    """An id that no other test has."""
    return f"mine-{next(_ids)}-{os.getpid()}"


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "marks")


def runs(handle):
    wait_until(lambda: handle.report.status is TaskStatus.PROCESSING, what=f"{handle} runs")


def test_it_is_a_client_whatever_the_url(client):
    assert isinstance(client, gtaskman.Client)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_values_go_there_and_back(client, kind):
    values = [None, True, 0, -5, 2**53 - 1, 1.5, "ü", [], {}, [{"a": [None]}]]
    handles = [client.submit(work.of(kind, "echo"), each) for each in values]
    assert [each.get(PATIENCE) for each in handles] == values
    assert all(each.successful() and each.done() and each.exception is None for each in handles)


def test_any_text_may_be_asked_for_and_said(client):
    for text in AWKWARD_TEXTS:
        if not isinstance(client, HostClient) and any(
            "\ud800" <= each <= "\udfff" for each in text
        ):
            continue  # not UTF-8, which the server's protocol is
        assert client.report(text[:3000]) is None
        assert not client.cancel(text[:3000])
        waiting = client.submit(tasks.double.with_options(delay=1000), 1)
        assert client.cancel(waiting.id, text[:3000])
        with pytest.raises(gtaskman.TaskCancelled):
            waiting.get(PATIENCE)
        try:
            failing = client.submit(tasks.fail, text[:3000])
        except gtaskman.PayloadError:
            continue  # JSON has no form for it
        with pytest.raises(gtaskman.TaskFailed):
            failing.get(PATIENCE)


def test_the_last_report_tells_it_all(client):
    handle = client.submit(tasks.double, 21)
    assert handle.get(PATIENCE) == 42
    report = handle.report
    assert (report.id, report.name) == (handle.id, "scenarios.tasks.double")
    assert (report.status, report.result, report.attempt) == (TaskStatus.COMPLETED, 42, 1)
    assert report.created_at <= report.started_at + 0.01 <= report.finished_at + 0.02
    assert abs(time.time() - report.finished_at) < PATIENCE
    again = client.report(handle.id)
    assert (again.result, again.status, again.attempt) == (42, TaskStatus.COMPLETED, 1)
    assert client.handle(handle.id).get(PATIENCE) == 42
    assert client.report("no such task") is None
    assert client.handle("no such task") is None


def test_a_failure_is_the_tasks_own(client):
    handle = client.submit(tasks.fail, "no luck")
    failed = fate(handle)
    assert type(failed) is gtaskman.TaskFailed
    assert (failed.exc_type, failed.message) == ("ValueError", "no luck")
    assert "raise ValueError(message)" in failed.traceback
    assert not handle.successful()
    assert type(handle.exception) is gtaskman.TaskFailed


def test_a_crash_and_a_time_limit(client):
    crashed = fate(client.submit(tasks.die, 3))
    assert (type(crashed), crashed.exitcode) == (gtaskman.WorkerCrashed, 3)
    late = client.submit(work.nap.with_options(timeout=0.2))
    assert type(fate(late)) is gtaskman.TaskTimedOut


def test_progress_comes_as_it_is_made(client):
    handle = client.submit(work.nap, 0.6)
    reports = list(handle.progress())
    assert any(each.message and not each.finished for each in reports)
    assert reports[-1].finished
    assert [each.finished for each in reports].count(True) == 1


def test_what_runs_and_what_waits_is_cancelled(client):
    running = client.submit(work.nap)
    waiting = client.submit(tasks.double.with_options(delay=1000.0), 1)
    runs(running)
    assert running.cancel("no more")
    assert waiting.cancel("never")
    assert [fate(each).reason for each in (running, waiting)] == ["no more", "never"]
    assert not running.cancel()
    assert not client.cancel("no such task")


def test_a_wait_ends_and_the_task_goes_on(client):
    handle = client.submit(work.nap, 0.6)
    with pytest.raises(TimeoutError):
        handle.get(timeout=0.05)
    assert not handle.wait(0.05)
    with pytest.raises(TimeoutError):
        client.wait(handle.id, timeout=0.05)
    assert client.wait(handle.id, PATIENCE).status is TaskStatus.COMPLETED
    assert handle.get(PATIENCE) == "rested"
    with pytest.raises(KeyError):
        client.wait("no such task")


def test_gevent_waits_for_handles(client):
    handles = [client.submit(work.rest, 0.01 * each) for each in range(8)]
    assert len(gevent.wait(handles, timeout=PATIENCE)) == 8
    more = [client.submit(tasks.double, each) for each in range(8)]
    assert {each.get() for each in gevent.iwait(more, timeout=PATIENCE)} == set(range(0, 16, 2))
    wanted, unwanted = [], []
    last = client.submit(work.rest, 0.1)
    last.rawlink(unwanted.append)
    last.unlink(unwanted.append)
    last.rawlink(wanted.append)
    wait_until(lambda: wanted)
    assert (wanted, unwanted) == ([last], [])


def test_many_at_once(client):
    handles = client.submit_many(tasks.double.task(each) for each in range(300))
    assert [each.get(PATIENCE) for each in handles] == [2 * each for each in range(300)]
    for chunksize in (None, 7):
        mapped = client.map(tasks.double, range(60), chunksize=chunksize)
        assert list(mapped) == [2 * each for each in range(60)]


def test_an_id_or_a_key_is_taken_once(client, fresh):
    first = client.submit(work.nap.with_id(fresh, 1000))
    with pytest.raises(gtaskman.DuplicateTaskError) as caught:
        client.submit(tasks.double.with_id(fresh, 1))
    assert (caught.value.id, caught.value.key) == (fresh, None)
    first.cancel()
    assert isinstance(fate(first), gtaskman.TaskCancelled)
    assert client.submit(tasks.double.with_id(fresh, 1)).get(PATIENCE) == 2

    keyed = work.nap.with_options(unique=f"key of {fresh}")
    holder = client.submit(keyed, 1000)
    with pytest.raises(gtaskman.DuplicateTaskError) as caught:
        client.submit(keyed, 1)
    assert (caught.value.id, caught.value.key) == (holder.id, f"key of {fresh}")
    holder.cancel()
    assert isinstance(fate(holder), gtaskman.TaskCancelled)
    assert client.submit(keyed, 0.01).get(PATIENCE) == "rested"


def test_a_mistake_is_raised_where_it_was_made(client):
    with pytest.raises(gtaskman.TaskOptionError):
        client.submit(tasks.double.task(1), 2)
    with pytest.raises(gtaskman.PayloadError):
        client.submit(work.echo, (each for each in ()))
    assert client.submit(tasks.double, 1).get(PATIENCE) == 2


def test_terms_hold(client, path):
    begin = time.monotonic()
    later = client.submit(work.echo.with_options(delay=0.3), "later")
    assert later.report.status is TaskStatus.WAITING
    assert later.get(PATIENCE) == "later"
    assert time.monotonic() - begin >= 0.3
    moment = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=0.2)
    assert client.submit(work.echo.with_options(eta=moment), 1).get(PATIENCE) == 1
    tried = client.submit(work.fail_until.with_options(retries=2, backoff=0.01), path, 2)
    tried.get(PATIENCE)
    assert tried.report.attempt == 2


def test_finding_counting_and_what_has_failed(client, fresh):
    client.submit(tasks.double.with_id(fresh, 1)).get(PATIENCE)
    failed = client.submit(tasks.fail, "again")
    fate(failed)
    unfinished = client.submit(work.nap, 1000)
    runs(unfinished)
    found = client.find(limit=10_000)
    assert [each.id for each in found if each.id == fresh] == [fresh]
    created = [each.created_at for each in found]
    assert created == sorted(created)
    assert unfinished.id in [each.id for each in client.find(finished=False)]
    assert client.find(TaskStatus.PROCESSING)[-1].id == unfinished.id
    assert client.count() >= 3
    assert client.count(TaskStatus.FAILED) == len(client.find(TaskStatus.FAILED, limit=10_000))
    assert failed.id in [each.id for each in client.dead(limit=10_000)]
    retried = client.retry(failed.id)
    assert retried.id == failed.id
    assert fate(retried).message == "again"
    assert client.retry(fresh) is None
    assert client.delete(fresh)
    assert client.report(fresh) is None
    assert not client.delete(fresh)
    unfinished.cancel()
    assert isinstance(fate(unfinished), gtaskman.TaskCancelled)


def test_numbers_and_pausing(client):
    before = client.stats()["pool"]["completed_tasks"]
    assert client.submit(tasks.double, 1).get(PATIENCE) == 2
    assert client.stats()["pool"]["completed_tasks"] > before
    client.pause()
    try:
        waiting = client.submit(tasks.double, 2)
        assert not waiting.wait(0.2)
        assert client.stats()["queue"]["current_tasks"] >= 1
    finally:
        client.resume()
    assert waiting.get(PATIENCE) == 4


def test_by_the_name_alone(client):
    assert client.send("scenarios.tasks.double", 4).get(PATIENCE) == 8
    with pytest.raises(gtaskman.TaskDefinitionError, match="task named 'scenarios"):
        client.send("scenarios.tasks.nothing")


def test_native_threads_use_it_too(client):
    def use(number):
        handles = [client.submit(tasks.double, number * 10 + each) for each in range(10)]
        return [each.get(timeout=PATIENCE) for each in handles]

    threads = [Thread(use, number) for number in range(4)]
    for number, thread in enumerate(threads):
        assert thread.join() == [2 * (number * 10 + each) for each in range(10)]


def test_a_closed_client_goes_on_when_it_is_asked(client):
    handle = client.submit(work.nap, 0.3)
    client.close()
    assert handle.get(PATIENCE) == "rested"
    assert client.submit(tasks.double, 3).get(PATIENCE) == 6
