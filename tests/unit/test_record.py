"""Reports as records, and records as reports."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gtaskman import Report, TaskStatus
from gtaskman.errors import PayloadError
from gtaskman.redis.record import LETTERS, body_of, end_of, parts, record_of, report_of
from gtaskman.report import Failure, FailureKind

pytestmark = pytest.mark.quick

moments = st.floats(0, 1e12)
numbers = st.one_of(st.floats(allow_nan=False), st.integers(-(2**70), 2**70))
failures = st.builds(
    Failure,
    st.sampled_from(FailureKind),
    st.text(),
    st.none() | st.text(),
    st.none() | st.text(),
    st.none() | st.integers(-255, 255),
    st.none() | st.text(),
)
reports = st.builds(
    Report,
    st.just("mine"),
    st.just("tests.name"),
    st.sampled_from(["sync", "async"]),
    st.sampled_from(TaskStatus),
    moments,
    st.text(),
    numbers,
    numbers,
    st.none(),
    st.none() | failures,
    st.none() | moments,
    st.none() | moments,
    st.integers(1, 1000),
    st.none() | st.integers(1, 2**22),
    st.integers(0, 2**60),
    st.integers(0, 2**40),
)


def record(body=b"", **fields):
    fields = {"st": "W", "n": "tests.name", "k": "s", "q": "1", "c": "2000", **fields}
    flat = [text.encode() for pair in fields.items() for text in pair]
    return record_of(b"mine", flat, body)


def read(made):
    return report_of(made, lambda record: record.result.decode() or None)


@given(reports)
def test_a_report_survives_as_a_record(report):
    letter = LETTERS[report.status]
    made = record(body_of(end_of(report), b""), st=letter, k=report.kind[0])
    found = read(made)
    assert found == report or abs(report.completed) >= 2**63 or abs(report.target) >= 2**63
    assert found.completed == pytest.approx(report.completed)
    assert type(found.completed) is type(report.completed) or abs(report.completed) >= 2**63


@given(st.binary(), st.binary())
def test_an_end_and_a_result_are_told_apart(end, result):
    assert parts(body_of(end, result)) == (end, result)


def test_the_result_of_a_completed_task_alone_is_decoded():
    end = end_of(Report("mine", "tests.name", "sync", TaskStatus.COMPLETED, 1.0))
    assert read(record(body_of(end, b"value"), st="C")).result == "value"
    assert read(record(body_of(end, b"value"), st="F")).result is None
    assert read(record(body_of(end, b""), st="C")).result is None


def test_a_task_of_which_nobody_told_anything_has_a_report_all_the_same():
    waiting = read(record())
    assert (waiting.status, waiting.created_at, waiting.attempt) == (TaskStatus.WAITING, 2.0, 1)
    assert (waiting.started_at, waiting.finished_at, waiting.revision) == (None, None, 1)
    running = read(record(st="P", a="3", t="7000000", b="2500", k="a"))
    assert (running.status, running.kind, running.attempt) == (TaskStatus.PROCESSING, "async", 3)
    assert running.started_at == 2.5
    assert running.revision > waiting.revision
    cancelled = read(record(st="X", y="enough", f="9000", t="7000000"))
    assert (cancelled.status, cancelled.message) == (TaskStatus.CANCELLED, "enough")
    assert (cancelled.finished_at, cancelled.error) == (9.0, None)
    assert cancelled.revision > running.revision


@pytest.mark.parametrize(
    ("why", "kind", "words"),
    [
        ("expired", FailureKind.EXPIRED, "it had not started within 1.5 s"),
        ("poison", FailureKind.CRASH, "died, 3 times"),
        ("lost", FailureKind.CRASH, "at most once"),
    ],
)
def test_a_task_that_failed_without_its_owner_says_why(why, kind, words):
    failed = read(record(st="F", y=why, tt="1500", lo="3", f="9000"))
    assert failed.error.kind is kind
    assert words in failed.error.message == failed.message


def test_progress_is_a_report_too():
    half = Report("mine", "tests.name", "sync", TaskStatus.PROCESSING, 1.0, "half", 5, 10)
    flat = [b"st", b"P", b"n", b"tests.name", b"k", b"s", b"pg", end_of(half)]
    assert read(record_of(b"mine", flat, b"")) == half


@pytest.mark.parametrize("end", [b"x", b"\xc0", b"\x90"])
def test_a_damaged_record_is_told_by_its_id(end):
    with pytest.raises(PayloadError, match="'mine' is damaged"):
        read(record(body_of(end, b""), st="C"))


def test_lone_surrogates_in_texts_are_kept_as_escapes():
    failure = Failure(FailureKind.ERROR, "no \udce9", "my.\udce9", "frame \udce9")
    failed = Report("mine", "tests.name", "sync", TaskStatus.FAILED, 1.0, "\udce9", error=failure)
    read_again = report_of(record(body_of(end_of(failed), b""), st="F"), None)
    assert read_again.message == r"\udce9"
    assert read_again.error == Failure(
        FailureKind.ERROR, r"no \udce9", r"my.\udce9", r"frame \udce9"
    )


@pytest.mark.parametrize("number", [10**400, -(10**400)])
def test_a_number_beyond_all_floats_is_the_largest_float(number):
    made = Report("mine", "tests.name", "sync", TaskStatus.PROCESSING, 1.0, "", number, number)
    blob = end_of(made)
    back = report_of(record(pg="")._replace(status="P", progress=blob), None)
    assert abs(back.completed) == sys.float_info.max
    assert (back.completed > 0) is (number > 0)
