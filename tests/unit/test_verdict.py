"""The verdict on the tasks of a worker that died."""

from __future__ import annotations

import pytest

from gtaskman.pool.verdict import Traces, Verdict, judge

pytestmark = pytest.mark.quick

U, B, S, C = Verdict.UNTOUCHED, Verdict.BYSTANDER, Verdict.SUSPECT, Verdict.CULPRIT
R, D = Verdict.UNREAD, Verdict.DOUBTFUL

# Each case: given tasks with these numbers, if the worker was at `running`, had begun up to `begun`
# and read up to `received`, and was killed for the sake of `culprits`: expect these verdicts.
SYNC = {
    "none": ([], {}, []),
    "running": ([1], {"running": 1, "begun": 1, "received": 1}, [S]),
    "not read": ([1], {}, [U]),
    "read and not begun": ([1, 2, 3], {"running": 1, "begun": 1, "received": 3}, [S, U, U]),
    "partly read": ([1, 2, 3], {"running": 1, "begun": 1, "received": 2}, [S, U, U]),
    "ended, with its result lost": (
        [1, 2, 3],
        {"running": 2, "begun": 2, "received": 3},
        [B, S, U],
    ),
    "all but the last had ended": ([1, 2, 3], {"running": 3, "begun": 3, "received": 3}, [B, B, S]),
    "between two": ([1, 2], {"running": 0, "begun": 1, "received": 2}, [S, U]),
    "all ended, the last result was on its way": (
        [1, 2],
        {"running": 0, "begun": 2, "received": 2},
        [B, S],
    ),
    "none begun": ([1, 2], {"running": 0, "begun": 0, "received": 2}, [U, U]),
    "killed for its sake": (
        [1, 2],
        {"running": 1, "begun": 1, "received": 2, "culprits": (1,)},
        [C, U],
    ),
    "killed for another's": (
        [5, 6],
        {"running": 5, "begun": 5, "received": 6, "culprits": (9,)},
        [B, U],
    ),
    "others had run between": ([3, 8], {"running": 8, "begun": 8, "received": 8}, [B, S]),
}
LARGE = {
    "being read": ([1], {"arriving": 1}, [R]),
    "being read behind others": ([1, 2, 3], {"received": 1, "arriving": 2}, ["?", R, U]),
    "read to its end": ([1, 2], {"received": 1, "arriving": 1}, ["?", U]),
    "killed for another's sake": ([5, 6], {"arriving": 6, "culprits": (9,)}, [U, U]),
}
# The same for async tasks, which run side by side.
ASYNC = {
    "all that were read": ([1, 2], {"received": 2}, [S, S]),
    "not read": ([1, 2], {"received": 1}, [S, U]),
    "none read": ([4, 5], {}, [U, U]),
    "killed for the sake of one": ([1, 2, 3], {"received": 2, "culprits": (1,)}, [C, B, U]),
    "killed for the sake of two": ([1, 2, 3], {"received": 3, "culprits": (1, 3)}, [C, B, C]),
    "killed for one not even read": ([1, 2], {"received": 1, "culprits": (2,)}, [B, C]),
}


def verdicts(jobs, culprits=(), **traces):
    judged = judge(iter(jobs), Traces(**traces), culprits)
    assert [job for job, _ in judged] == jobs
    return [verdict for _, verdict in judged]


@pytest.mark.parametrize(("numbers", "slate", "expected"), SYNC.values(), ids=SYNC)
def test_sync_tasks(make_job, numbers, slate, expected):
    assert verdicts([make_job(number=each) for each in numbers], **slate) == expected


@pytest.mark.parametrize(("numbers", "slate", "expected"), ASYNC.values(), ids=ASYNC)
def test_async_tasks(make_job, numbers, slate, expected):
    jobs = [make_job(kind="async", number=each) for each in numbers]
    assert verdicts(jobs, **slate) == expected


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize(("numbers", "slate", "expected"), LARGE.values(), ids=LARGE)
def test_large_orders(make_job, kind, numbers, slate, expected):
    # One that was read to its end had begun, if it is async.
    ran = S if slate.get("arriving", 0) <= slate.get("received", 0) else D
    expected = [{"sync": U, "async": ran}[kind] if each == "?" else each for each in expected]
    assert verdicts([make_job(kind=kind, number=each) for each in numbers], **slate) == expected


def test_a_sync_task_that_ran_while_a_large_order_was_read_is_doubtful(make_job):
    jobs = [make_job(number=each) for each in (1, 2, 3)]
    assert verdicts(jobs, running=2, begun=2, received=2, arriving=3) == [B, D, R]


def test_both_kinds_are_judged_each_in_its_way(make_job):
    jobs = [make_job(kind="async", number=1), make_job(number=2), make_job(number=3)]
    assert verdicts(jobs, running=2, begun=2, received=3) == [S, S, U]
