"""Sizes and counts at the edges of what the pipe between a manager and a worker carries."""

from __future__ import annotations

import pytest
from scenarios import work
from scenarios.control import fate
from worlds import PATIENCE, wait_until

import gtaskman
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
