"""What only an eager manager does: at once, right here, whoever asks."""

from __future__ import annotations

import os
import threading
import time

import gevent
import kit_tasks as tasks
import pytest

import gtaskman
from gtaskman import default
from gtaskman.futures import Executor
from gtaskman.testing import EagerManager, as_default, eager

pytestmark = pytest.mark.quick


def nested(number):
    """A task that submits another one and waits for it."""
    return gtaskman.submit(tasks.double, number).get() + 1


def test_tasks_have_ended_when_submit_returns():
    heard = []
    with EagerManager() as manager:
        manager.on("task-completed", lambda report: heard.append(report.worker))
        handle = manager.submit(tasks.pid)

        assert handle.done()
        assert handle.get() == os.getpid()
        assert heard == [os.getpid()]
        assert manager.pids() == [] and manager.stacks() == {}
        assert manager.stats()["pool"]["current_processes"] == 0


def test_what_is_eager_is_the_default_for_a_while():
    before = default.current()
    with eager() as manager:
        assert default.manager() is manager
        assert gtaskman.submit(nested, 4).get() == 9
        assert tasks.annotated.submit(3).get() == "3"
        assert tasks.Steps().submit().get() == "returned"
        assert list(gtaskman.map(tasks.double, range(3))) == [0, 2, 4]
        assert gtaskman.stats()["pool"]["completed_tasks"] == 7
        failed = gtaskman.submit(tasks.odd, 1)
        assert gtaskman.report(failed.id).exc_type == "kit_tasks.Odd"
        assert gtaskman.cancel(failed.id) is False
    assert default.current() is before
    with pytest.raises(gtaskman.ManagerStopped):
        manager.submit(tasks.double, 1)


def test_settings_hold():
    with eager(gtaskman.Configuration(max_processes=7, max_frame=1024 * 1024)) as manager:
        assert manager.stats()["pool"]["max_processes"] == 7
        with pytest.raises(gtaskman.PayloadError, match="over the limit"):
            gtaskman.submit(tasks.same, b"x" * 2_000_000)
        with pytest.raises(gtaskman.TaskFailed, match="over the limit"):
            gtaskman.submit(bytes, 2_000_000).get()


def test_the_one_before_is_the_default_again_whatever_happens():
    outer = EagerManager()
    with as_default(outer):
        with pytest.raises(ZeroDivisionError), eager():
            raise ZeroDivisionError
        assert default.current() is outer
        with eager():
            gtaskman.shutdown()
            assert default.current() is None
        assert default.current() is outer
        assert gtaskman.submit(tasks.double, 1).get() == 2


def test_terms_and_limits_of_time_have_no_effect():
    with EagerManager() as manager:
        begin = time.monotonic()
        late = tasks.annotated.with_options(delay=3600, ttl=0.001, priority=-5)
        assert manager.submit(late, 1).get(0) == "1"
        assert manager.submit(tasks.annotated.with_options(eta=time.time() + 3600), 2).get(0) == "2"
        patient = tasks.third_time.with_options(backoff=3600)
        assert manager.submit(patient, "well").get(0)[0] == 3
        assert manager.submit(tasks.annotated.with_options(timeout=1e-9), 3).get(0) == "3"
        assert time.monotonic() - begin < 60
        assert manager.submit(tasks.annotated.with_options(result_ttl=0), 4).get() == "4"


def test_every_thread_runs_its_own():
    found = []
    with eager() as manager:

        def work():
            found.append((gtaskman.submit(threading.get_ident).get(), threading.get_ident()))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert manager.stats()["pool"]["completed_tasks"] == 4
    assert len(found) == 4
    assert all(ran == asked != threading.get_ident() for ran, asked in found)


def test_greenlets_run_side_by_side():
    order = []

    def work(name):
        order.append(f"{name} begins")
        gevent.sleep(0)
        order.append(f"{name} ends")

    with EagerManager() as manager:
        # What runs is one and the same object here: it has a name by which it is found.
        globals()["_side_by_side"] = work
        work.__module__, work.__qualname__ = __name__, "_side_by_side"
        gevent.joinall(
            [gevent.spawn(manager.submit, work, name) for name in "ab"], raise_error=True
        )
        del globals()["_side_by_side"]
    assert order == ["a begins", "b begins", "a ends", "b ends"]


def test_who_is_killed_is_killed():
    with EagerManager() as manager:
        killed = gevent.spawn(lambda: (manager.submit(gevent.sleep, 3600), "went on"))
        gevent.sleep(0)
        assert manager.stats()["pool"]["current_tasks"] == 1
        killed.kill()
        assert killed.value != "went on"
        assert manager.stats()["pool"]["cancelled_tasks"] == 1
        assert manager.stats()["pool"]["current_tasks"] == 0


def test_a_keyboard_interrupt_is_for_the_caller():
    with EagerManager() as manager:
        with pytest.raises(KeyboardInterrupt):
            manager.submit(interrupt)
        assert manager.stats()["pool"]["cancelled_tasks"] == 1


def interrupt():
    raise KeyboardInterrupt


def test_code_that_could_not_travel_is_refused(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cloudpickle", None)
    with (
        EagerManager() as manager,
        pytest.raises((gtaskman.TaskTravelError, gtaskman.PayloadError)),
    ):
        manager.submit(lambda: 1)


def test_resuming_runs_what_waits_and_what_that_submits():
    with eager() as manager:
        manager.pause()
        handles = [gtaskman.submit(nested, number) for number in range(3)]
        assert not any(handle.done() for handle in handles)
        manager.resume()
        assert [handle.get(0) for handle in handles] == [1, 3, 5]


def test_progress_is_an_iterator_of_what_is_left():
    with EagerManager() as manager:
        assert [each.result for each in manager.submit(tasks.Steps()).progress()] == ["returned"]
        manager.pause()
        handle = manager.submit(tasks.Steps())
        feed = handle.progress()
        manager.resume()
        assert [each.message for each in feed] == ["half", "half"]


def test_an_executor_runs_on_it():
    with EagerManager() as manager, Executor(manager=manager) as executor:
        assert executor.submit(tasks.double, 2).result(0) == 4
        assert list(executor.map(tasks.double, range(4), chunksize=3)) == [0, 2, 4, 6]
        with pytest.raises(tasks.Odd):
            executor.submit(tasks.odd, 1).result(0)


def test_queues_on_a_server_are_refused():
    with pytest.raises(gtaskman.ConfigurationError, match="no use for a queue on a server"):
        EagerManager("redis://localhost")


def wait_for(seconds):
    gevent.sleep(seconds)


def time_out(seconds):
    with gevent.Timeout(seconds):
        gevent.sleep(60)


def wait_inside(seconds):
    """A task whose own timeout ends a task that it submits."""
    with gevent.Timeout(seconds):
        gtaskman.submit(wait_for, 60)


@pytest.mark.parametrize("task", [wait_for, time_out, wait_inside])
def test_a_timeout_of_the_caller_reaches_the_caller(task):
    with eager() as manager:
        with gevent.Timeout(0.02) as around, pytest.raises(gevent.Timeout) as caught:
            manager.submit(task, 60)
        assert caught.value is around
        assert manager.stats()["pool"]["cancelled_tasks"] >= 1
        assert manager.submit(tasks.double, 2).get() == 4


@pytest.mark.parametrize("task", [time_out, wait_inside])
def test_a_timeout_of_the_task_fails_the_task(task):
    with eager() as manager, gevent.Timeout(60), pytest.raises(gtaskman.TaskFailed) as caught:
        manager.submit(task, 0.02).get()
    assert caught.value.exc_type.endswith("Timeout")
