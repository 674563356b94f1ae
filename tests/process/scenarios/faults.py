"""Workers that die, pipes that carry nonsense, values that cannot travel."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import sys

import gevent
from worlds import parent_of

import gtaskman
from gtaskman.wire import frames, messages
from scenarios import stage, work
from scenarios.control import assert_empty, fate, lines, play, running, scratch
from scenarios.stage import PATIENCE

MIB = 1024 * 1024


def each(story, cases, **common):
    """:func:`control.each` for the scenarios of this module."""
    play(globals()[story], cases, **common)


@contextlib.contextmanager
def one_worker(**config):
    """A manager with one worker, and a check that it is in order afterwards."""
    with stage.manager(max_processes=1, **config) as manager:
        yield manager
        assert manager.submit(work.add, 20, 22).get(timeout=PATIENCE) == 42
        assert manager.submit(work.add_async, 20, 22).get(timeout=PATIENCE) == 42
        assert_empty(manager)
        assert len(manager.pids()) == 1


def assert_crashed(handle, *, exitcode=None, signal=None, reason=""):
    error = fate(handle)
    assert type(error) is gtaskman.WorkerCrashed, repr(error)
    assert (error.exitcode, error.signal) == (exitcode, signal), (error.exitcode, error.signal)
    assert reason in error.reason, error.reason
    assert error.reason in str(error)
    report = error.report
    assert report.status is gtaskman.TaskStatus.FAILED
    assert report.error.kind is gtaskman.FailureKind.CRASH
    return error


# --- deaths


def a_task_that_kills_its_worker(kind, how, start_method="zygote"):
    known = {
        "exit": {"exitcode": 7, "reason": "exit code 7"},
        "segv": {"signal": "SIGSEGV", "reason": "SIGSEGV"},
        "kill": {"signal": "SIGKILL", "reason": "not by gtaskman"},
        "abrt": {"signal": "SIGABRT", "reason": "SIGABRT"},
        "term": {"signal": "SIGTERM", "reason": "SIGTERM"},
    }[how]
    path = scratch()
    with one_worker(start_method=start_method, prefetch=4) as manager:
        handle = manager.submit(work.of(kind, "die"), how, path)
        assert_crashed(handle, **known)
        assert lines(path) == ["x"]
        report = handle.report
        assert report.created_at <= report.started_at <= report.finished_at, report


def others_of_a_worker_that_dies(start_method):
    """Only the task that ran is lost: what its worker held ahead runs elsewhere."""
    path = scratch()
    with one_worker(start_method=start_method, prefetch=8) as manager:
        first = manager.submit(work.spin)
        pid = running(first)
        # The worker has not even read these when it dies, or has them in its inbox.
        early = [manager.submit(work.once, path, f"early {each}") for each in range(3)]
        gevent.sleep(0)
        assert sum(manager.queue.waiting()) == 0
        os.kill(pid, signal.SIGKILL)
        late = [manager.submit(work.leave_mark, path, f"late {each}") for each in range(3)]
        assert_crashed(first, signal="SIGKILL", reason="not by gtaskman")
        assert [each.get(timeout=PATIENCE) for each in early] == [f"early {n}" for n in range(3)]
        assert {each.report.worker for each in early} == {each.get() for each in late}
        assert all(each.report.attempt == 1 for each in early + late)
        assert pid not in manager.pids()
        assert sorted(lines(path)) == sorted(
            [f"early {n}" for n in range(3)] + [f"late {n}" for n in range(3)]
        )


def only_its_own_tasks_are_lost():
    with stage.manager(max_processes=2) as manager:
        one = manager.submit(work.nap, 1.0)
        other = manager.submit(work.nap, 1.0)
        pids = running(one), running(other)
        assert pids[0] != pids[1]
        os.kill(pids[0], signal.SIGKILL)
        assert_crashed(one, signal="SIGKILL")
        assert other.get(timeout=PATIENCE) == "rested"
        assert other.report.worker == pids[1]
        assert_empty(manager)


def suspects_of_a_worker_that_dies():
    """Nobody knows which of the async tasks it was: all are told how it ended."""
    with one_worker() as manager:
        handles = [manager.submit(work.nap_async) for _ in range(5)]
        pids = {running(each) for each in handles}
        os.kill(pids.pop(), signal.SIGKILL)
        for handle in handles:
            assert_crashed(handle, signal="SIGKILL")


def a_template_that_dies():
    """All workers go with it: their tasks are told, and what follows runs in new ones."""
    with stage.manager(max_processes=2) as manager:
        handles = [manager.submit(work.nap) for _ in range(2)]
        pids = [running(each) for each in handles]
        waiting = [manager.submit(work.add, each, each) for each in range(10)]
        os.kill(parent_of(pids[0]), signal.SIGKILL)
        for handle in handles:
            error = fate(handle)
            assert type(error) is gtaskman.WorkerCrashed, error
            assert "template" in error.reason, error.reason
        assert [each.get(timeout=PATIENCE) for each in waiting] == [2 * each for each in range(10)]
        assert not set(pids) & set(manager.pids())
        assert_empty(manager)


def out_of_memory():
    with one_worker() as manager:
        pid = manager.submit(work.whoami).get(timeout=PATIENCE)
        handle = manager.submit(work.use_memory, 4096 * MIB, 2048 * MIB)
        error = fate(handle)
        assert type(error) is gtaskman.TaskFailed, error
        assert error.exc_type == "MemoryError"
        assert isinstance(error.__cause__, MemoryError)
        assert manager.submit(work.whoami).get(timeout=PATIENCE) == pid


# --- again, or not


def trying_again_after_an_exception(kind):
    path = scratch()
    with one_worker() as manager:
        task = work.of(kind, "fail_until").with_options(retries=2)
        handle = manager.submit(task, path, 3)
        assert handle.get(timeout=PATIENCE) == 3
        assert handle.report.attempt == 3
        assert len(lines(path)) == 3
        # One more than it may try.
        error = fate(manager.submit(task, path, 4))
        assert type(error) is gtaskman.TaskFailed
        assert error.message == "attempt 3"
        assert error.report.attempt == 3
        assert len(lines(path)) == 6


def trying_again_after_a_crash(kind):
    path = scratch()
    with one_worker() as manager:
        handle = manager.submit(
            work.of(kind, "die_until").with_options(retries=2, max_crashes=5), path, 3
        )
        assert handle.get(timeout=PATIENCE) == 3
        assert len(lines(path)) == 3


def trying_again_after_a_timeout(kind):
    path = scratch()
    with one_worker(kill_grace=20.0) as manager:
        task = work.of(kind, "dawdle_until").with_options(retries=1, timeout=0.3)
        handle = manager.submit(task, path, 2)
        assert handle.get(timeout=PATIENCE) == 2
        assert handle.report.attempt == 2
        error = fate(manager.submit(task, path, 3))
        assert type(error) is gtaskman.TaskTimedOut
        assert len(lines(path)) == 4


def a_cancelled_task_is_not_tried_again(kind):
    with one_worker(kill_grace=20.0) as manager:
        handle = manager.submit(work.of(kind, "nap").with_options(retries=5))
        running(handle)
        assert handle.cancel("for good")
        assert type(fate(handle)) is gtaskman.TaskCancelled


def poison(kind):
    """A task that kills worker after worker is given up, however often it may try."""
    path = scratch()
    with one_worker(max_crashes=3) as manager:
        handle = manager.submit(work.of(kind, "die").with_options(retries=100), "kill", path)
        error = assert_crashed(handle, signal="SIGKILL", reason="poison")
        assert "3 workers" in error.reason
        assert len(lines(path)) == 3
        handle = manager.submit(
            work.of(kind, "die").with_options(retries=100, max_crashes=1), "exit", path
        )
        assert_crashed(handle, exitcode=7)
        assert len(lines(path)) == 4


def at_most_once_when_killed(kind):
    path = scratch()
    with one_worker() as manager:
        handle = manager.submit(work.of(kind, "once"), path, "only", 60.0)
        pid = running(handle)
        os.kill(pid, signal.SIGKILL)
        assert_crashed(handle, signal="SIGKILL")
        assert lines(path) == ["only"]


def at_most_once_while_its_result_is_sent():
    """Its worker dies after the task and before the result is here: it must not run again (6)."""
    path = scratch()
    with one_worker() as manager:
        handle = manager.submit(work.die_while_sending_once, path, 400 * MIB)
        assert_crashed(handle, signal="SIGKILL")
        assert lines(path) == ["x"]


def a_task_that_always_dies_while_its_result_is_sent():
    """It had run, and its worker is gone: a crash like any other, not a task that never began."""
    path = scratch()
    with one_worker() as manager:
        handle = manager.submit(work.die_while_sending, path, 400 * MIB)
        assert_crashed(handle, signal="SIGKILL")
        assert lines(path) == ["x"]


# --- the pipe


def a_pipe_that_is_closed(kind):
    with one_worker() as manager:
        handle = manager.submit(work.of(kind, "close_pipe"))
        # Whoever closes its pipe is killed by us, so nobody must suspect the memory.
        error = assert_crashed(handle, signal="SIGKILL", reason="pipe")
        assert "memory" not in error.reason, error.reason


def nonsense():
    """What a worker might write that is no message of ours."""
    bad = b"this is not a pickle"
    return {
        "noise": bytes(range(256)) * 16,
        "text": b"print() goes astray\n" * 40,
        "endless": frames.HEADER.pack(2**32 - 1, messages.DONE, 0, 0, 1),
        "unknown kind": frames.head(99, 0, 1, 4) + b"abcd",
        "progress without a pickle": frames.head(messages.PROGRESS, 0, 1, len(bad)) + bad,
        "returned without a pickle": frames.head(messages.RETURNED, 0, 0, len(bad)) + bad,
        "pong of nobody": frames.head(messages.PONG, 0, 12345, 0),
        "done of nobody": frames.head(messages.DONE, 0, 2**40, 0),
        "void of nobody": frames.head(messages.VOIDS, 0, 0, 24)
        + messages.VOID.pack(2**40, 1.0, 2.0),
        "void without its times": frames.head(messages.VOIDS, 0, 0, 8) + bytes(8),
        "numberless": frames.head(messages.RETURNED, 0, 0, 0),
    }


_HARMLESS = {"pong of nobody", "done of nobody", "void of nobody"}


def nonsense_in_the_pipe(what):
    """The worker is killed with a clear reason and the pool goes on, or nothing happens at all."""
    with one_worker() as manager:
        handle = manager.submit(work.write_to_pipe, nonsense()[what], 1.0)
        if what in _HARMLESS:
            assert fate(handle) == "unharmed"
            return
        error = assert_crashed(handle, signal="SIGKILL", reason="nonsense")
        assert "out of memory" not in error.reason


def a_forged_end():
    """The end of the very task that runs, without a body or with one that is no value."""
    for kind, body in (
        (messages.DONE, b""),
        (messages.DONE, messages.SPAN.pack(1.0, 2.0) + b"no pickle"),
        (messages.FAIL, messages.SPAN.pack(1.0, 2.0) + b"no pickle"),
        (messages.FAIL, messages.SPAN.pack(1.0, 2.0) + pickle.dumps((1, 2))),
    ):
        with one_worker() as manager:
            forged = frames.head(kind, 0, 1, len(body)) + body  # 1 is its own number
            handle = manager.submit(work.write_to_pipe, forged, 0.5)
            error = fate(handle, timeout=10)
            assert isinstance(error, gtaskman.TaskFailed), (kind, body, error)


# --- values


def a_result_over_the_limit(kind):
    with one_worker(max_frame=MIB) as manager:
        pid = manager.submit(work.whoami).get(timeout=PATIENCE)
        assert (
            len(manager.submit(work.of(kind, "give"), 900 * 1024).get(timeout=PATIENCE)) > MIB / 2
        )
        error = fate(manager.submit(work.of(kind, "give"), 2 * MIB))
        assert type(error) is gtaskman.TaskFailed, error
        assert isinstance(error.__cause__, gtaskman.PayloadError)
        assert "max_frame" in error.message and "result" in error.message
        assert "give" in error.message
        assert manager.submit(work.whoami).get(timeout=PATIENCE) == pid


def a_result_that_cannot_travel(kind):
    with one_worker() as manager:
        pid = manager.submit(work.whoami).get(timeout=PATIENCE)
        error = fate(manager.submit(work.of(kind, "give_what_cannot_travel")))
        assert type(error) is gtaskman.TaskFailed, error
        assert isinstance(error.__cause__, gtaskman.PayloadError)
        assert "lock" in error.message and "result" in error.message
        error = fate(manager.submit(work.of(kind, "give_what_cannot_arrive")))
        assert type(error) is gtaskman.TaskFailed, error
        assert "cannot be decoded" in error.message
        assert "it cannot be built here" in error.message
        assert manager.submit(work.whoami).get(timeout=PATIENCE) == pid


class Leaver:
    """Ends the interpreter of the process with this pid when it is decoded there."""

    def __init__(self, pid):
        self.pid = pid

    def __reduce__(self):
        return _leave, (self.pid,)


def _leave(pid):
    if os.getpid() == pid:
        sys.exit(1)
    return Leaver(pid)


@gtaskman.task
def give_a_leaver(pid):
    return Leaver(pid)


def a_result_that_would_end_the_application(background):
    """It is a failure of its task, and of nothing else."""
    with stage.manager(background=background, max_processes=1) as manager:
        handle = manager.submit(give_a_leaver, os.getpid())
        error = fate(handle)
        assert type(error) is gtaskman.TaskFailed, error
        assert "cannot be decoded in the application: SystemExit" in str(error)
        assert manager.submit(abs, -3).get(stage.PATIENCE) == 3


def an_argument_over_the_limit(kind):
    with one_worker(max_frame=MIB) as manager:
        before = manager.stats()
        for wrong in (b"x" * (2 * MIB), ["x" * (2 * MIB)]):
            try:
                manager.submit(work.of(kind, "echo"), wrong)
            except gtaskman.PayloadError as error:
                text = str(error)
            else:
                text = "it was taken"
            assert "max_frame" in text and "echo" in text, text
        assert manager.stats() == before


# --- exceptions


def exceptions(kind):
    with one_worker() as manager:
        pid = manager.submit(work.whoami).get(timeout=PATIENCE)

        def raised(name, *args):
            error = fate(manager.submit(work.of(kind, name), *args))
            assert type(error) is gtaskman.TaskFailed, error
            assert error.report.status is gtaskman.TaskStatus.FAILED
            return error

        error = raised("fail_with_attributes")
        cause = error.__cause__
        assert type(cause) is work.Custom
        assert (cause.text, cause.code, cause.extra) == ("went wrong", 42, {"more": [1, 2]})
        assert error.exc_type == "scenarios.work.Custom"
        assert error.report.exc_type == error.exc_type
        assert "went wrong" in error.message and "went wrong" in str(error)
        # The task's own frames, and no others.
        assert "fail_with_attributes" in error.traceback
        assert "gtaskman/child" not in error.traceback
        assert "fail_with_attributes" in str(cause.__cause__)
        assert type(cause.__cause__).__name__ == "RemoteTraceback"

        error = raised("fail_for_a_reason")
        assert type(error.__cause__) is ValueError
        assert "KeyError: 'missing'" in error.traceback
        assert "direct cause" in error.traceback

        for what, exc_type, message in (
            ("no way back", "scenarios.work.NoWayBack", "only one argument"),
            ("no way out", "scenarios.work.NoWayOut", "cannot leave"),
        ):
            error = raised("fail", what)
            assert error.exc_type == exc_type
            assert message in error.message
            assert "in fail" in error.traceback
            assert type(error.__cause__).__name__ == "RemoteTraceback"

        error = raised("fail", "unprintable")
        assert error.exc_type == "scenarios.work.Unprintable"
        assert "cannot be shown" in error.message

        for what, exc_type in (
            ("exit", SystemExit),
            ("interrupt", KeyboardInterrupt),
            ("base", BaseException),
            ("stop iteration", StopIteration),
        ):
            error = raised("fail", what)
            assert error.exc_type == exc_type.__name__
            assert type(error.__cause__) is exc_type

        # What gevent means by it: the greenlet was asked to end.
        error = fate(manager.submit(work.of(kind, "fail"), "greenlet exit"))
        assert type(error) is gtaskman.TaskCancelled, error
        assert manager.submit(work.whoami).get(timeout=PATIENCE) == pid


def an_exception_over_the_limit(kind):
    """Its text, or a part of it, arrives; nothing is killed."""
    with one_worker(max_frame=MIB) as manager:
        pid = manager.submit(work.whoami).get(timeout=PATIENCE)
        error = fate(manager.submit(work.of(kind, "fail"), "large"))
        assert type(error) is gtaskman.TaskFailed, type(error)
        assert error.exc_type == "ValueError"
        assert manager.submit(work.whoami).get(timeout=PATIENCE) == pid


def a_progress_message_over_the_limit(kind):
    with one_worker(max_frame=MIB) as manager:
        pid = manager.submit(work.whoami).get(timeout=PATIENCE)
        handle = manager.submit(work.of(kind, "say"), 3 * MIB)
        assert fate(handle) == "said"
        assert manager.submit(work.whoami).get(timeout=PATIENCE) == pid
