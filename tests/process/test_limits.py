"""Sizes and counts at the edges of what the pipe between a manager and a worker carries."""

from __future__ import annotations

import os
import resource

import pytest
from scenarios import work
from scenarios.control import fate
from worlds import PATIENCE, parent_of, wait_until

import gtaskman
from gtaskman.pool import worker as pool_worker
from gtaskman.task import Definition
from gtaskman.wire.messages import payload_limit

MIB = 1024 * 1024
HUGE = pytest.param(10**5000, id="more digits than may be printed")
BELOW = (*range(0, 60, 3), 200, 4096, 4200)  # bytes below the largest frame
KINDS = pytest.mark.parametrize("kind", ["sync", "async"])


@pytest.fixture
def small(make_manager):
    """A manager with one worker and the smallest frames."""
    return make_manager(max_processes=1, max_frame=MIB)


def pid_of_worker(manager):
    return manager.submit(work.whoami).get(timeout=PATIENCE)


@KINDS
def test_arguments_near_the_largest_frame_arrive_or_are_refused(small, kind):
    pid = pid_of_worker(small)
    for below in BELOW:
        data = b"x" * (MIB - below)
        try:
            came = small.submit(work.of(kind, "echo"), data).get(timeout=PATIENCE)
        except gtaskman.PayloadError as refused:
            came = refused
        assert came == data or "max_frame" in str(came)
        assert pid_of_worker(small) == pid, below


@KINDS
def test_a_result_near_the_largest_frame_arrives_or_fails_its_task(small, kind):
    pid = pid_of_worker(small)
    for below in BELOW:
        came = fate(small.submit(work.of(kind, "give"), MIB - below))
        if isinstance(came, gtaskman.TaskFailed):
            assert isinstance(came.__cause__, gtaskman.PayloadError), came
            assert "max_frame" in came.message
        else:
            assert len(came) == MIB - below
        assert pid_of_worker(small) == pid, below


def test_an_argument_of_exactly_the_limit_travels_with_the_longest_id(small):
    data = b"x" * (payload_limit(MIB) - 200)  # the pickle around it
    task = work.echo.with_id("\U0001f600" * 200, data)
    assert small.submit(task).get(timeout=PATIENCE) == data


@pytest.mark.parametrize("attempt", [2**16 - 1, 2**30])
def test_attempts_are_counted_beyond_two_bytes(make_manager, attempt):
    manager = make_manager(max_processes=1)
    pid = pid_of_worker(manager)
    flaky = work.succeed_at.with_options(retries=2**31 - 1, backoff=0)
    manager.pause()
    handle = manager.submit(flaky, attempt + 1)
    handle._job.attempt = attempt
    manager.resume()
    assert handle.get(timeout=PATIENCE) == attempt + 1
    assert pid_of_worker(manager) == pid


@pytest.mark.parametrize("field", ["timeout", "soft_timeout"])
@pytest.mark.parametrize("value", [10**400, HUGE, 1e9 + 1, float("inf"), float("nan"), -1, 0])
def test_a_limit_that_no_clock_takes_is_refused_at_definition(field, value):
    with pytest.raises(gtaskman.TaskDefinitionError, match=f"{field} takes seconds above 0"):
        Definition("tests.limit", "sync", print, **{field: value})
    with pytest.raises(gtaskman.TaskDefinitionError, match=f"{field} takes seconds above 0"):
        work.add.with_options(**{field: value})


@pytest.mark.parametrize("field", ["retries", "max_crashes"])
@pytest.mark.parametrize("value", [2**31, 10**400, HUGE, 1.5, float("nan"), "3", True])
def test_a_count_beyond_the_wire_is_refused_at_definition(field, value):
    with pytest.raises(gtaskman.TaskDefinitionError, match=f"{field} takes a number from"):
        Definition("tests.count", "sync", print, **{field: value})


@pytest.mark.parametrize("value", [2**32, 10**400, HUGE])
def test_a_frame_beyond_four_bytes_of_length_is_refused(value):
    with pytest.raises(gtaskman.ConfigurationError, match="max_frame must be at most 4294967295"):
        gtaskman.Configuration(max_frame=value)


def test_a_worker_notes_a_large_order_before_it_reads_it(make_manager):
    manager = make_manager(max_processes=1)
    manager.submit(work.echo, bytes(2 * MIB)).get(timeout=PATIENCE)
    (worker,) = manager._pool._workers.values()
    slate = worker._slate
    wait_until(lambda: slate.received() >= 1)
    assert slate.arriving() == slate.received()


def memory_for_workers(manager, more):
    """Let workers that are forked from now on map ``more`` bytes beside what they have."""
    template = parent_of(pid_of_worker(manager))
    with open(f"/proc/{template}/statm") as file:
        mapped = int(file.read().split()[0]) * resource.getpagesize()
    _, hard = resource.prlimit(template, resource.RLIMIT_AS)
    resource.prlimit(template, resource.RLIMIT_AS, (mapped + more, hard))


@KINDS
def test_arguments_that_no_worker_has_memory_for_are_given_up_as_poison(make_manager, kind):
    # given workers with little memory
    manager = make_manager(max_processes=1)
    memory_for_workers(manager, 100 * MIB)
    os.kill(pid_of_worker(manager), 9)
    # when a task comes that none of them can read, with others behind it
    poison = manager.submit(work.of(kind, "echo"), bytes(200 * MIB))
    others = [manager.submit(work.of(kind, "add"), number, 1) for number in range(10)]
    # then it fails when it has taken as many workers with it as a task may, and says why,
    error = fate(poison)
    assert isinstance(error, gtaskman.WorkerCrashed), error
    assert "while it read the arguments (209," in error.message
    assert "taken 3 workers" in error.message
    # and the others, which had not begun, run as if nothing had happened.
    assert [each.get(timeout=PATIENCE) for each in others] == list(range(1, 11))
    assert {each.report.attempt for each in others} == {1}


@KINDS
def test_a_worker_killed_while_it_reads_a_task_costs_the_task_nothing(make_manager, kind):
    # given a worker that reads nothing, and a large task on its way to it
    manager = make_manager(max_processes=1)
    pid = pid_of_worker(manager)
    (worker,) = manager._pool._workers.values()
    os.kill(pid, 19)
    data = bytes(4 * MIB)
    handle = manager.submit(work.of(kind, "echo"), data)
    # when it is killed in the middle of it: it had begun to read, as its page says
    worker._slate.arrive(handle._job.number)
    os.kill(pid, 9)
    # then the task runs elsewhere, as if nothing had happened
    assert handle.get(timeout=PATIENCE) == data
    assert handle.report.attempt == 1


@KINDS
def test_a_task_of_which_no_order_can_be_made_fails_alone(make_manager, kind, monkeypatch):
    # given a task that the wire cannot carry, whatever the reason, between others
    def order_frame(flags, number, target, attempt, task_id, *rest):
        if task_id == "unfit":
            raise OverflowError("too much of something")
        return original(flags, number, target, attempt, task_id, *rest)

    original = pool_worker.order_frame
    monkeypatch.setattr(pool_worker, "order_frame", order_frame)
    manager = make_manager(max_processes=1)
    pid = pid_of_worker(manager)
    add = work.of(kind, "add").with_options(retries=5, backoff=0)
    manager.pause()
    before = [manager.submit(add, number, 1) for number in range(5)]
    unfit = manager.submit(add.with_id("unfit", 1, 1))
    after = [manager.submit(add, number, 1) for number in range(5)]
    manager.resume()
    # then it fails, once, with what is wrong, and nothing else does
    error = fate(unfit)
    assert isinstance(error, gtaskman.TaskFailed)
    assert error.exc_type == "gtaskman.errors.PayloadError"
    assert "cannot be sent to a worker: OverflowError: too much of something" in error.message
    assert unfit.report.attempt == 1
    assert [each.get(timeout=PATIENCE) for each in before + after] == [*range(1, 6)] * 2
    assert pid_of_worker(manager) == pid


def test_code_that_does_not_fit_a_frame_is_refused_and_the_mend_is_named(small):
    pid = pid_of_worker(small)
    data = bytes(2 * MIB)

    @gtaskman.task(name="tests.large_code")
    def large():
        return len(data)

    for _ in range(2):
        with pytest.raises(gtaskman.TaskTravelError, match=r"tests\.large_code.*max_frame"):
            small.submit(large)
    assert pid_of_worker(small) == pid
