"""The dead letters of the in-memory queue, and how many of them are kept."""

from __future__ import annotations

import time

import pytest

from gtaskman import Failure, FailureKind
from gtaskman.job import OVERHEAD
from gtaskman.queues.dead import DeadLetters
from gtaskman.wire.payload import decode_arguments, encode_arguments

pytestmark = pytest.mark.quick


@pytest.fixture
def dies(make_job):
    """Has a job die, and puts it among the letters."""

    def die(letters, task_id, size=0, **attributes):
        job = make_job(task_id, cost=OVERHEAD + size, **attributes)
        report = job.failed_report(Failure(FailureKind.ERROR, "no"), None, time.monotonic())
        letters.add(job, report)
        return report

    return die


def kept(letters):
    return [report.id for report in letters.reports(0, 100)]


def test_so_many_are_kept_and_the_oldest_go(dies):
    letters = DeadLetters(3, 10**9)
    for name in "abcde":
        dies(letters, name)
    assert kept(letters) == ["c", "d", "e"]
    assert letters.job("a") is None
    letters.bound(1, 10**9)
    assert kept(letters) == ["e"]


def test_their_arguments_take_so_many_bytes_and_the_newest_stays(dies):
    letters = DeadLetters(100, 10 * OVERHEAD)
    for name in "abc":
        dies(letters, name, size=3 * OVERHEAD)
    assert kept(letters) == ["b", "c"]
    dies(letters, "d", size=100 * OVERHEAD)
    assert kept(letters) == ["d"]
    dies(letters, "e")
    assert kept(letters) == ["e"]


def test_one_that_dies_again_is_the_newest(dies):
    letters = DeadLetters(2, 10**9)
    for name in "aba":
        dies(letters, name)
    assert kept(letters) == ["b", "a"]


def test_none_are_kept(dies):
    letters = DeadLetters(0, 10**9)
    dies(letters, "a")
    assert kept(letters) == []


def test_what_is_forgotten_takes_no_room(dies):
    letters = DeadLetters(100, 10 * OVERHEAD)
    dies(letters, "a", size=8 * OVERHEAD)
    letters.forget("a")
    letters.forget("nobody")
    dies(letters, "b", size=4 * OVERHEAD)
    dies(letters, "c", size=3 * OVERHEAD)
    assert kept(letters) == ["b", "c"]


def test_a_letter_makes_a_job_that_has_never_run(dies):
    letters = DeadLetters(100, 10**9)
    report = dies(letters, "a", attempt=3, crashes=2, flags=1, unique="key", created_at=5.0)
    job = letters.job("a")
    assert (job.id, job.attempt, job.crashes, job.number) == ("a", 1, 0, 0)
    assert (job.flags, job.unique, job.created_at) == (1, "key", report.created_at)


def test_arguments_stay_as_they_were_when_the_task_died(dies):
    # given arguments that travel without being copied, and are the caller's again afterwards
    data = bytearray(b"1" * 100_000)
    payload = encode_arguments((data, "x"), {}, 10**9)
    assert payload.buffers
    letters = DeadLetters(100, 10**9)
    dies(letters, "a", payload=payload)
    data[:] = bytes(100_000)
    again = letters.job("a").payload
    (value, text), _ = decode_arguments(again.flags, again.body, again.buffers)
    assert (bytes(value), text) == (b"1" * 100_000, "x")


def test_arguments_that_cannot_change_are_not_copied(dies):
    payload = encode_arguments((b"1" * 100_000,), {}, 10**9)
    letters = DeadLetters(100, 10**9)
    dies(letters, "a", payload=payload)
    assert letters.job("a").payload.buffers[0] is payload.buffers[0]
