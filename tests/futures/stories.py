"""What code that was written for ``ProcessPoolExecutor`` expects, one story each.

The behaviours are those that CPython checks for its process pool, and some of our own.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import gc
import io
import itertools
import logging
import operator
import os
import pickle
import signal
import tempfile
import threading
import time
import traceback
import weakref
from concurrent.futures import FIRST_COMPLETED, FIRST_EXCEPTION, BrokenExecutor, CancelledError
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from futures import calls
from gevent import monkey
from worlds import PATIENCE, children_of, threads_of, wait_until

import gtaskman
from gtaskman.cores import usable_cores
from gtaskman.futures import (
    Executor,
    ExecutorShutDown,
    Future,
    InitializerFailed,
    Unpicklable,
    WorkerLost,
    work,
)

STORIES = {}


def story(function):
    STORIES[function.__name__] = function
    return function


def play(names=()):
    """These stories, or all, one after the other: how each of them failed, or None."""
    executor = Executor(1)
    executor.submit(calls.square, 1).result(PATIENCE)
    executor.shutdown()
    threads = threads_of(os.getpid())
    outcomes = {}
    for name in names or STORIES:
        function = STORIES[name]
        try:
            with tempfile.TemporaryDirectory() as directory:
                parameters = (directory,) if function.__code__.co_argcount else ()
                function(*parameters)
            outcomes[name] = None
        except BaseException:
            outcomes[name] = traceback.format_exc()
    gc.collect()
    wait_until(lambda: not children_of(os.getpid()), what="no worker is left")
    wait_until(lambda: threads_of(os.getpid()) <= threads, what="no thread is left")
    return outcomes


def raised(kinds, function, *args, **kwargs):
    """The exception of these kinds that a call raises."""
    try:
        value = function(*args, **kwargs)
    except kinds as error:
        return error
    raise AssertionError(f"no {kinds} but {value!r}")


def lines(directory, name):
    path = Path(directory) / name
    return path.read_text().split() if path.exists() else []


def open_gate(directory, name="gate"):
    (Path(directory) / name).touch()


def begun(directory, name="gate", count=1):
    """Wait until so many calls of ``hold`` have begun; gives the pids."""
    return wait_until(
        lambda: len(found := lines(directory, f"{name}.begun")) >= count and list(map(int, found))
    )


@contextlib.contextmanager
def held(directory, workers=1, waiting=0):
    """An executor whose workers all hold, and calls that wait behind them."""
    executor = Executor(workers)
    try:
        first = [executor.submit(calls.hold, directory) for _ in range(workers)]
        begun(directory, count=workers)
        yield executor, first, [executor.submit(calls.note, directory, n) for n in range(waiting)]
    finally:
        open_gate(directory)
        executor.shutdown(cancel_futures=True)


# --- calls ---------------------------------------------------------------------------------------


@story
def a_call():
    with Executor(2) as executor:
        future = executor.submit(calls.add, 1, two=2, more=3)
        assert isinstance(future, concurrent.futures.Future) and isinstance(future, Future)
        assert future.result(PATIENCE) == 6
        assert future.done() and not future.cancelled() and not future.running()
        assert future.exception() is None
        assert executor.submit(pow, 2, 10).result(PATIENCE) == 1024
        assert executor.submit(calls.pid).result(PATIENCE) != os.getpid()


@story
def arguments_of_any_name():
    with Executor(1) as executor:
        future = executor.submit(calls.capture, 1, self=2, fn=3, task=4, args=5)
        assert future.result(PATIENCE) == ((1,), {"self": 2, "fn": 3, "task": 4, "args": 5})
        assert raised(TypeError, executor.submit)
        assert raised(TypeError, executor.submit, fn=calls.square, arg=1)


@story
def callables_without_a_name():
    with Executor(1) as executor:
        assert executor.submit(functools.partial(calls.add, 1), 2).result(PATIENCE) == 3
        assert executor.submit(calls.Traced(5).give).result(PATIENCE) == 5


@story
def an_exception_of_its_own_type():
    with Executor(1) as executor:
        error = raised(RuntimeError, executor.submit(calls.fail, 123).result, PATIENCE)
        assert type(error) is RuntimeError and error.args == (123,)
        assert "raise RuntimeError(message)  # some comment" in str(error.__cause__)
        text = "".join(traceback.format_exception(error))
        assert "some comment" in text and "calls.py" in text
        odd = executor.submit(calls.raise_odd).exception(PATIENCE)
        assert type(odd) is calls.Odd and (odd.code, odd.args) == (7, (7, "seven"))
        # One that cannot be built again here is told in words.
        words = raised(
            gtaskman.TaskFailed, executor.submit(calls.raise_unportable).result, PATIENCE
        )
        assert words.exc_type == "futures.calls.Unportable" and words.message == "1 and 2"


@story
def a_call_that_leaves():
    with Executor(1) as executor:
        left = raised(SystemExit, executor.submit(calls.leave).result, PATIENCE)
        assert left.code == 1
        assert executor.submit(calls.square, 3).result(PATIENCE) == 9


@story
def tasks_with_limits():
    with Executor(1) as executor:
        raised(gtaskman.TaskTimedOut, executor.submit(calls.endless).result, PATIENCE)
        raised(gtaskman.TaskOptionError, executor.submit, calls.endless, "too much")
        raised(TypeError, executor.submit, "nothing to call")


# --- map -----------------------------------------------------------------------------------------


@story
def results_of_a_map():
    with Executor(2) as executor:
        expected = list(map(pow, range(40), range(40)))
        for chunksize in (1, 3, 6, 50):
            found = executor.map(pow, range(40), range(40), chunksize=chunksize)
            assert list(found) == expected
        assert list(executor.map(calls.square, [])) == []
        assert list(executor.map(calls.add, range(3), itertools.count(10))) == [10, 12, 14]
        for wrong in ({"chunksize": 0}, {"chunksize": -1}, {"buffersize": 0}):
            raised(ValueError, executor.map, calls.square, [1], **wrong)
        raised(TypeError, executor.map, calls.square, [1], buffersize="2")


@story
def a_map_that_fails():
    with Executor(2) as executor:
        results = executor.map(operator.floordiv, [1, 1, 1, 1], [2, 3, 0, 5])
        assert next(results) == 0 and next(results) == 0
        raised(ZeroDivisionError, next, results)
        raised(StopIteration, next, results)


@story
def a_map_that_fails_cancels_the_rest(directory):
    with Executor(1) as executor:
        results = executor.map(
            calls.hold_or_fail, itertools.repeat(directory), range(40), timeout=PATIENCE
        )
        assert next(results) == 0
        raised(ValueError, next, results)
        open_gate(directory)
    # Of those behind it only what a worker had already has run.
    assert len(lines(directory, "gate.begun")) <= 2


@story
def a_map_that_takes_too_long(directory):
    with Executor(1) as executor:
        results = executor.map(calls.hold, [directory] * 5, timeout=0.3)
        raised(TimeoutError, next, results)
        open_gate(directory)
        assert list(executor.map(calls.square, [2], timeout=PATIENCE)) == [4]
    assert len(lines(directory, "gate.begun")) <= 2


@story
def a_map_that_is_closed(directory):
    with Executor(1) as executor:
        results = executor.map(calls.hold, [directory] * 10, ["free"] + ["gate"] * 9)
        open_gate(directory, "free")
        next(results)
        results.close()
        open_gate(directory)
    assert len(lines(directory, "gate.begun")) <= 2


@story
def a_map_is_submitted_at_once_or_as_far_as_is_said():
    taken = itertools.count()
    with Executor(2) as executor:
        everything = executor.map(calls.square, (next(taken) for _ in range(20)))
        assert next(taken) == 20
        assert list(everything) == [each * each for each in range(20)]
        for chunksize in (1, 3):
            source = itertools.count()
            ahead = executor.map(calls.square, source, buffersize=4, chunksize=chunksize)
            assert next(source) == 4 * chunksize
            assert next(ahead) == 0
            assert next(source) == 4 * chunksize + 1 + chunksize
            ahead.close()


@story
def results_are_held_by_nobody():
    with Executor(1) as executor:
        for value in executor.map(calls.Traced, range(10)):
            reference = weakref.ref(value)
            del value
            wait_until(functools.partial(gone, reference), what="the result is let go")


@story
def arguments_are_held_by_nobody():
    traced = calls.Traced(3)
    reference = weakref.ref(traced)
    with Executor(1) as executor:
        future = executor.submit(traced.give)
        del traced
        wait_until(lambda: gone(reference), what="the argument is let go")
        assert future.result(PATIENCE) == 3


@story
def arguments_are_kept_until_the_call_has_ended(directory):
    traced = calls.Traced(3)
    reference = weakref.ref(traced)
    with Executor(1) as executor:
        future = executor.submit(calls.hold, directory, "gate", traced)
        del traced
        begun(directory)
        assert not gone(reference)
        open_gate(directory)
        assert future.result(PATIENCE).number == 3
        wait_until(lambda: gone(reference), what="the argument is let go")


@story
def arguments_of_an_initializer_are_kept_until_the_end(directory):
    traced = calls.Traced(directory)
    reference = weakref.ref(traced)
    executor = Executor(1, initializer=calls.prepare, initargs=(traced,))
    del traced
    future = executor.submit(calls.hold, directory)
    del executor
    begun(directory)
    assert not gone(reference)
    open_gate(directory)
    future.result(PATIENCE)
    del future
    wait_until(lambda: gone(reference), what="the argument is let go")


def gone(reference):
    gc.collect()
    return reference() is None


# --- futures -------------------------------------------------------------------------------------


@story
def callbacks(directory):
    heard = []
    with held(directory, waiting=4) as (_, (first,), waiting):

        def odd(future):
            heard.append("odd")
            raise ValueError("in a callback")

        first.add_done_callback(odd)
        first.add_done_callback(lambda future: heard.append(future is first))
        waiting[3].add_done_callback(lambda future: heard.append(future.cancelled()))
        assert waiting[3].cancel()
        assert heard == [True]
        open_gate(directory)
        first.result(PATIENCE)
        wait_until(lambda: len(heard) == 3)
        assert heard == [True, "odd", True]
        first.add_done_callback(lambda future: heard.append("at once"))
        assert heard[3:] == ["at once"]


@story
def a_callback_that_submits_and_waits_for_nothing():
    with Executor(2) as executor:
        more = []
        future = executor.submit(calls.square, 2)
        future.add_done_callback(lambda done: more.append(executor.submit(calls.add, 1, 1)))
        wait_until(lambda: more)
        assert more[0].result(PATIENCE) == 2
        # One that shuts the executor down does not wait for itself.
        last = executor.submit(calls.square, 3)
        last.add_done_callback(lambda done: more.append(executor.shutdown()))
        assert last.result(PATIENCE) == 9
        wait_until(lambda: len(more) == 2)


@story
def cancelling(directory):
    with held(directory, waiting=6) as (_, (first,), waiting):
        assert first.running() and not first.cancel() and not first.cancelled()
        # A worker has one ahead at most; what it has counts as running.
        assert all(future.cancel() for future in waiting[1:])
        assert all(future.cancelled() and future.done() for future in waiting[1:])
        assert all(future.cancel() for future in waiting[1:])  # once more changes nothing
        raised(CancelledError, waiting[3].result)
        raised(CancelledError, waiting[3].exception)
        assert concurrent.futures.wait(waiting[1:], PATIENCE).not_done == set()
        open_gate(directory)
        first.result(PATIENCE)
        assert not first.cancel()
    assert set(lines(directory, "noted")) <= {"0"}


@story
def stopping_what_runs(directory):
    with held(directory) as (executor, (first,), _):
        assert first.handle.report.status is gtaskman.TaskStatus.PROCESSING
        assert first.handle.cancel("enough")
        raised(CancelledError, first.result, PATIENCE)
        assert executor.submit(calls.square, 2).result(PATIENCE) == 4


@story
def waiting_for_results(directory):
    with held(directory) as (_, (first,), _):
        raised(TimeoutError, first.result, 0.05)
        raised(TimeoutError, first.exception, 0)
        assert not first.done()


@story
def waiting_for_many(directory):
    wait = concurrent.futures.wait
    with Executor(3) as executor:
        slow = executor.submit(calls.hold, directory)
        quick = executor.submit(calls.square, 2)
        done, waiting = wait([slow, quick, quick], PATIENCE, FIRST_COMPLETED)
        assert (done, waiting) == ({quick}, {slow})
        bad = executor.submit(calls.fail, "soon")
        done, waiting = wait([slow, bad, quick], PATIENCE, FIRST_EXCEPTION)
        assert bad in done and slow in waiting
        done, waiting = wait([slow, quick, bad], 0.05)
        assert waiting == {slow}
        open_gate(directory)
        done, waiting = wait([slow, quick, bad], PATIENCE)
        assert waiting == set()


@story
def as_they_are_completed(directory):
    as_completed = concurrent.futures.as_completed
    with Executor(3) as executor:
        slow = executor.submit(calls.hold, directory)
        quick = [executor.submit(calls.square, number) for number in range(5)]
        concurrent.futures.wait(quick, PATIENCE)
        found = []
        assert gather(found, as_completed([slow, *quick, quick[0]], 0.05))
        assert set(found) == set(quick) and len(found) == len(quick)
        open_gate(directory)
        assert set(as_completed([slow, *quick], PATIENCE)) == {slow, *quick}


def gather(found, futures):
    """Add the futures to what was found; whether their time was over."""
    try:
        for future in futures:
            found.append(future)
    except TimeoutError:
        return True
    return False


@story
def many_calls():
    with Executor(2) as executor:
        futures = [executor.submit(calls.square, number) for number in range(500)]
        results = {future.result() for future in concurrent.futures.as_completed(futures, PATIENCE)}
        assert results == {number * number for number in range(500)}


# --- what cannot travel, and what dies -----------------------------------------------------------


@story
def arguments_that_cannot_travel():
    with Executor(1) as executor:
        for wrong in (threading.Lock(), calls.PickledHere("error"), open(os.devnull)):  # noqa: SIM115
            future = executor.submit(calls.square, wrong)
            error = raised(pickle.PicklingError, future.result, PATIENCE)
            assert type(error) is Unpicklable and isinstance(error, gtaskman.PayloadError)
            assert "futures.calls.square" in str(error) and error.__cause__ is not None
            assert future.handle is None and not future.running() and not future.cancel()
        raised(gtaskman.PayloadError, list, executor.map(calls.square, [1, threading.Lock()]))
        assert executor.submit(calls.square, 2).result(PATIENCE) == 4


@story
def arguments_that_do_not_arrive():
    with Executor(1) as executor:
        future = executor.submit(calls.capture, calls.Unpickled("error", os.getpid()))
        error = raised(ValueError, future.result, PATIENCE)
        assert "calls.py" in str(error.__cause__)
        raised(
            SystemExit,
            executor.submit(calls.capture, calls.Unpickled("leave", os.getpid())).result,
            PATIENCE,
        )
        for way in ("quit_at_once", "kill"):
            lost = executor.submit(calls.capture, calls.Unpickled(way, os.getpid()))
            raised(BrokenProcessPool, lost.result, PATIENCE)
        assert executor.submit(calls.square, 2).result(PATIENCE) == 4


@story
def results_that_do_not_travel():
    with Executor(1) as executor:
        error = raised(
            pickle.PicklingError, executor.submit(calls.give_pickled, "error").result, PATIENCE
        )
        assert type(error) is Unpicklable
        assert "the result of futures.calls.give_pickled" in str(error)
        assert "ValueError: when it was pickled" in str(error)
        lost = executor.submit(calls.give_pickled, "quit_at_once").exception(PATIENCE)
        assert isinstance(lost, BrokenProcessPool)
        # One that only we cannot unpickle is told in words, and breaks nothing.
        worker = executor.submit(calls.pid).result(PATIENCE)
        for way, kind in (("error", "ValueError"), ("leave", "SystemExit")):
            error = executor.submit(calls.give_unpickled, way, worker).exception(PATIENCE)
            assert isinstance(error, gtaskman.TaskFailed), repr(error)
            assert f"cannot be decoded in the application: {kind}" in str(error)
        assert executor.submit(calls.square, 2).result(PATIENCE) == 4


@story
def workers_that_die():
    with Executor(1) as executor:
        for way, how in (("crash", "SIGSEGV"), ("kill", "SIGKILL"), ("quit_at_once", "code 1")):
            error = executor.submit(calls.WAYS[way]).exception(PATIENCE)
            assert type(error) is WorkerLost
            assert isinstance(error, BrokenProcessPool) and isinstance(
                error, gtaskman.GTaskmanError
            )
            assert how in str(error) and calls.WAYS[way].__name__ in str(error)
            cause = error.__cause__
            assert isinstance(cause, gtaskman.WorkerCrashed)
            assert cause.signal == (how if how.startswith("SIG") else None)
            # And the executor lives on.
            assert executor.submit(calls.square, 2).result(PATIENCE) == 4


@story
def a_worker_that_dies_takes_one_call_only(directory):
    with Executor(2) as executor:
        calls_held = [executor.submit(calls.hold, directory, "gate", each) for each in range(2)]
        others = [executor.submit(calls.square, number) for number in range(20)]
        victim = begun(directory, count=2)[0]
        os.kill(victim, 9)
        wait_until(lambda: any(future.done() for future in calls_held))
        open_gate(directory)
        errors = [future.exception(PATIENCE) for future in calls_held]
        assert sorted(map(type, errors), key=str) == sorted([type(None), WorkerLost], key=str)
        assert [f.result(PATIENCE) for f in others] == [n * n for n in range(20)]


@story
def a_worker_that_dies_breaks_the_pool_if_that_is_wanted(directory):
    with Executor(2, broken="pool") as executor:
        error = executor.submit(calls.fail, "as ever").exception(PATIENCE)
        assert type(error) is RuntimeError
        futures = [executor.submit(calls.hold, directory) for _ in range(4)]
        victim = begun(directory, count=2)[0]
        os.kill(victim, 9)
        for future in futures:
            error = future.exception(PATIENCE)
            assert type(error) is WorkerLost and "SIGKILL" in str(error), error
        error = raised(BrokenProcessPool, executor.submit, calls.square, 1)
        assert "SIGKILL" in str(error)
    error = raised(gtaskman.ConfigurationError, Executor, broken="all")
    assert "'call' or 'pool'" in str(error) and error.field == "broken"


# --- initializers, replaced workers --------------------------------------------------------------


@story
def an_initializer_runs_once_in_each_worker(directory):
    with Executor(2, initializer=calls.prepare, initargs=("ready", directory)) as executor:
        futures = [executor.submit(calls.prepared) for _ in range(10)]
        assert {future.result(PATIENCE) for future in futures} == {("ready", 1)}
        assert list(executor.map(calls.add, [1, 2], [3, 4], chunksize=2)) == [4, 6]
        # In that of an async call too, and before the next call of whichever worker.
        number, state, _pid = executor.submit(calls.beside, 5).result(PATIENCE)
        assert (number, state) == (5, ("ready", 1))
        error = executor.submit(calls.fail, "as ever").exception(PATIENCE)
        assert type(error) is RuntimeError
        raised(gtaskman.TaskOptionError, executor.submit, calls.beside)
    prepared = lines(directory, "prepared")
    assert 1 <= len(prepared) <= 2 and len(set(prepared)) == len(prepared)


@story
def a_worker_that_takes_the_place_of_another_is_initialized(directory):
    settings = {"initializer": calls.prepare, "initargs": ("ready", directory)}
    with Executor(1, max_tasks_per_child=2, **settings) as executor:
        pids = [executor.submit(calls.pid).result(PATIENCE) for _ in range(6)]
        assert executor.submit(calls.prepared).result(PATIENCE) == ("ready", 1)
    assert len(set(pids)) >= 3
    assert all(pids.count(each) <= 2 for each in pids)
    assert set(map(str, pids)) <= set(lines(directory, "prepared"))


@story
def an_initializer_that_fails(directory):
    with Executor(1, initializer=calls.prepare_badly, initargs=("no such thing",)) as executor:
        futures = [executor.submit(calls.note, directory, number) for number in range(5)]
        for future in futures:
            error = raised(BrokenExecutor, future.result, PATIENCE)
            assert type(error) is InitializerFailed and "no such thing" in str(error)
        assert "prepare_badly" in "".join(traceback.format_exception(futures[0].exception()))
        error = raised(BrokenProcessPool, executor.submit, calls.square, 1)
        assert "LookupError: no such thing" in str(error)
    assert lines(directory, "noted") == []


@story
def initializers_that_are_none():
    raised(TypeError, Executor, initializer="nothing to call")
    error = raised(gtaskman.PayloadError, Executor, initializer=print, initargs=(threading.Lock(),))
    assert "initargs" in str(error)


@story
def workers_are_replaced():
    with Executor(1, max_tasks_per_child=3) as executor:
        pids = [executor.submit(calls.pid).result(PATIENCE) for _ in range(9)]
        assert len(set(pids)) == 3
        futures = [executor.submit(calls.square, number) for number in range(9)]
    assert [future.result(0) for future in futures] == [number * number for number in range(9)]


# --- settings ------------------------------------------------------------------------------------


class Context:
    def __init__(self, method):
        self.method = method

    def get_start_method(self):
        return self.method


@story
def settings_that_make_no_sense():
    raised(ValueError, Executor, 0)
    raised(ValueError, Executor, -1)
    raised(ValueError, Executor, max_tasks_per_child=0)
    raised(ValueError, Executor, max_tasks_per_child="three")
    error = raised(gtaskman.ConfigurationError, Executor, mp_context=Context("fork"))
    assert "no forks" in str(error)
    with gtaskman.TaskManager(config=gtaskman.Configuration(background=True)) as manager:
        for own in ({"max_workers": 2}, {"max_tasks_per_child": 2}, {"config": manager.config}):
            assert next(iter(own)) in str(raised(ValueError, Executor, manager=manager, **own))
    raised(ValueError, Executor, manager="memory://")
    if not monkey.is_module_patched("threading"):
        here = gtaskman.TaskManager()
        assert "background=True" in str(raised(ValueError, Executor, manager=here))


@story
def settings_that_do():
    config = gtaskman.Configuration(min_processes=3, max_processes=3, start_method="spawn")
    with Executor(2, Context("spawn"), config=config) as executor:
        assert executor.submit(calls.square, 2).result(PATIENCE) == 4
    with Executor() as executor:
        assert executor._max_workers == usable_cores()


# --- the end -------------------------------------------------------------------------------------


@story
def nothing_is_taken_after_a_shutdown():
    executor = Executor(1)
    executor.submit(calls.square, 1)
    executor.shutdown()
    error = raised(RuntimeError, executor.submit, calls.square, 1)
    assert type(error) is ExecutorShutDown and isinstance(error, gtaskman.GTaskmanError)
    assert str(error) == "cannot schedule new futures after shutdown"
    raised(RuntimeError, executor.map, calls.square, [1])
    executor.shutdown()
    Executor(1).shutdown()  # one that never ran anything


@story
def a_shutdown_waits_for_all():
    executor = Executor(2)
    futures = [executor.submit(calls.square, number) for number in range(50)]
    results = executor.map(calls.square, range(5))
    executor.shutdown()
    assert all(future.done() for future in futures)
    assert list(results) == [0, 1, 4, 9, 16]


@story
def a_shutdown_that_does_not_wait(directory):
    executor = Executor(1)
    futures = [executor.submit(calls.hold, directory, "gate", each) for each in range(3)]
    begun(directory)
    executor.shutdown(wait=False)
    assert not any(future.done() for future in futures)
    raised(RuntimeError, executor.submit, calls.square, 1)
    open_gate(directory)
    assert [future.result(PATIENCE) for future in futures] == [0, 1, 2]
    workers = set(map(int, lines(directory, "gate.begun")))
    wait_until(lambda: not any(map(is_there, workers)), what="the workers have ended")
    executor.shutdown()


def is_there(pid):
    return os.path.exists(f"/proc/{pid}")


@story
def a_shutdown_that_cancels(directory):
    for wait in (True, False):
        place = Path(directory) / str(wait)
        place.mkdir()
        executor = Executor(1)
        first = executor.submit(calls.hold, str(place))
        begun(place)
        waiting = [executor.submit(calls.note, str(place), number) for number in range(20)]
        if not wait:
            executor.shutdown(wait=False, cancel_futures=True)
            open_gate(place)
        else:
            opener = threading.Thread(target=open_when_cancelled, args=(place, waiting[-1]))
            opener.start()
            executor.shutdown(cancel_futures=True)
            opener.join()
        assert first.result(PATIENCE) is None
        cancelled = [future.cancelled() for future in waiting]
        assert all(cancelled[1:]), cancelled
        executor.shutdown()
        assert set(lines(place, "noted")) <= {"0"}


def open_when_cancelled(place, future):
    wait_until(future.cancelled)
    open_gate(place)


@story
def workers_that_are_ended(directory):
    log = io.StringIO()
    logging.getLogger("gtaskman").addHandler(logging.StreamHandler(log))
    for how in ("terminate_workers", "kill_workers"):
        place = Path(directory) / how
        place.mkdir()
        executor = Executor(2)
        running = [executor.submit(calls.hold, str(place)) for _ in range(2)]
        begun(place, count=2)
        waiting = [executor.submit(calls.note, str(place), number) for number in range(20)]
        getattr(executor, how)()
        for future in running:
            error = raised(BrokenProcessPool, future.result, PATIENCE)
            assert type(error) is WorkerLost and f"{how}()" in str(error), error
        ends = [future.exception(PATIENCE) for future in waiting if not future.cancelled()]
        assert all(type(error) is WorkerLost for error in ends) and len(ends) <= 2
        raised(RuntimeError, executor.submit, calls.square, 1)
        executor.shutdown()
        assert lines(place, "noted") == []
    # What was killed on purpose is not taken for a worker that ran out of memory.
    assert "was ended by kill_workers()" in log.getvalue()
    assert "not by gtaskman" not in log.getvalue()


@story
def an_executor_that_is_dropped(directory):
    executor = Executor(1)
    futures = [executor.submit(calls.hold, directory, "gate", each) for each in range(2)]
    reference = weakref.ref(executor)
    pids = begun(directory)
    del executor
    wait_until(lambda: gone(reference), what="the executor is let go")
    assert not any(future.done() for future in futures)
    open_gate(directory)
    assert [future.result(PATIENCE) for future in futures] == [0, 1]
    wait_until(lambda: not any(map(is_there, pids)), what="the workers have ended")


@story
def a_crash_and_a_shutdown_at_once():
    executor = Executor(2)
    executor.submit(calls.square, 1).result(PATIENCE)
    lost = executor.submit(calls.crash)
    executor.shutdown()
    raised(BrokenExecutor, lost.result, 0)


@story
def an_executor_on_a_shared_manager(directory):
    config = gtaskman.Configuration(max_processes=2, background=True)
    with gtaskman.TaskManager(config=config) as manager:
        with Executor(manager=manager) as executor:
            other = manager.submit(calls.hold, directory)
            assert list(executor.map(calls.square, range(5))) == [0, 1, 4, 9, 16]
        # Its shutdown waits for its own calls alone, and stops nobody.
        assert not other.done()
        raised(RuntimeError, executor.submit, calls.square, 1)
        ended = Executor(manager=manager)
        mine = ended.submit(calls.hold, directory)
        begun(directory, count=2)
        ended.terminate_workers()
        raised(BrokenExecutor, mine.result, PATIENCE)
        assert not other.done()
        open_gate(directory)
        assert other.get(PATIENCE) is None
        late = Executor(manager=manager)
    raised(RuntimeError, late.submit, calls.square, 1)


# --- threads, event loops, forks -----------------------------------------------------------------


@story
def an_event_loop(directory):
    async def work(executor):
        loop = asyncio.get_running_loop()
        ticks = []

        async def tick():
            while True:
                ticks.append(time.monotonic())
                await asyncio.sleep(0.002)

        ticker = asyncio.create_task(tick())
        slow = loop.run_in_executor(executor, calls.hold, directory, "gate", "slow")
        values = await asyncio.gather(
            *(loop.run_in_executor(executor, calls.square, number) for number in range(10))
        )
        before = len(ticks)
        while len(ticks) < before + 10:  # the loop goes on while a call is on its way
            await asyncio.sleep(0.002)
        open_gate(directory)
        try:
            await loop.run_in_executor(executor, calls.fail, "in a loop")
        except RuntimeError as error:
            failed = str(error)
        wrapped = await asyncio.wrap_future(executor.submit(calls.add, 1, 2))
        ticker.cancel()
        return values, await slow, failed, wrapped

    with Executor(2) as executor:
        found = asyncio.run(asyncio.wait_for(work(executor), PATIENCE))
    assert found == ([number * number for number in range(10)], "slow", "in a loop", 3)


@story
def native_threads_share_it():
    """Threads that are none of gevent's, patched or not."""
    executor = Executor(2)
    found, over = {}, []
    start = monkey.get_original("_thread", "start_new_thread")

    def work(number):
        try:
            futures = [executor.submit(calls.add, number * 100, each) for each in range(20)]
            if number % 2:
                assert concurrent.futures.wait(futures).not_done == set()
            found[number] = [future.result() for future in futures]
            assert list(executor.map(calls.square, range(5))) == [0, 1, 4, 9, 16]
        except BaseException as error:
            found[number] = repr(error)
        over.append(number)

    for number in range(4):
        start(work, (number,))
    wait_until(lambda: len(over) == 4)
    assert found == {n: [n * 100 + each for each in range(20)] for n in range(4)}
    assert executor.submit(calls.square, 5).result(PATIENCE) == 25
    executor.shutdown()


@story
def a_native_thread_comes_first():
    """The manager has a thread of its own then, and whoever waits for it waits in any way."""
    executor = Executor(2)
    first = []
    start = monkey.get_original("_thread", "start_new_thread")
    start(lambda: first.append(executor.submit(calls.square, 1).result()), ())
    wait_until(lambda: first == [1])
    futures = [executor.submit(calls.square, number) for number in range(20)]
    assert concurrent.futures.wait(futures).not_done == set()
    assert len(list(concurrent.futures.as_completed(futures))) == 20
    assert executor.submit(calls.square, 5).result() == 25
    more = [executor.submit(calls.square, number) for number in range(20)]
    assert len(list(concurrent.futures.as_completed(more))) == 20
    executor.shutdown()


@story
def threads_that_come_first_at_once():
    """The manager is started once, whoever comes first."""
    executor = Executor(2)
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(executor.submit(calls.square, 3).result()))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert found == [9] * 8
    assert (
        len({os.path.realpath(f"/proc/{each.pid}/exe") for each in children_of(os.getpid())}) == 1
    )
    executor.shutdown()


@story
def a_fork_is_refused_what_is_not_its_own(directory):
    executor = Executor(1)
    future = executor.submit(calls.hold, directory)
    begun(directory)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        kinds = []
        for attempt in (future.result, future.exception, lambda: executor.submit(calls.square, 1)):
            try:
                kinds.append(repr(attempt()))
            except BaseException as error:
                kinds.append(type(error).__name__)
        os.write(writer, pickle.dumps(kinds))
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        assert pickle.load(pipe) == ["ForkedManagerError"] * 3
    os.waitpid(pid, 0)
    open_gate(directory)
    assert future.result(PATIENCE) is None
    executor.shutdown()


@story
def a_fork_ends_while_calls_of_the_original_are_open(directory):
    executor, unused = Executor(1), Executor(1)
    future = executor.submit(calls.hold, directory)
    begun(directory)
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(gtaskman.ForkedManagerError):
            executor.submit(calls.square, 1)
        executor.kill_workers()
        executor.shutdown(cancel_futures=True)
        nine = unused.submit(calls.square, 3).result(PATIENCE)
        work._at_exit()
        os._exit(nine)
    ends = []
    try:
        wait_until(lambda: ends.append(os.waitpid(pid, os.WNOHANG)) or ends[-1][0])
    finally:
        open_gate(directory)
        if not ends[-1][0]:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(ends[-1][1]) == 9
    assert future.result(PATIENCE) is None
    executor.shutdown()
