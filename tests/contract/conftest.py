"""What both suites share."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import settings

from gtaskman.job import Job
from gtaskman.task import Definition
from gtaskman.terms import DEFAULT
from gtaskman.wire.payload import NOTHING

# A machine that is busy with other things makes no test fail.
settings.register_profile("gtaskman", deadline=None)
settings.load_profile("gtaskman")


@pytest.fixture(scope="session")
def make_job():
    """Makes jobs of either kind, under any terms; each is made later than the one before."""
    definitions = {
        kind: Definition(name=f"tests.{kind}", kind=kind, target=print)
        for kind in ("sync", "async")
    }
    moments = itertools.count(1)

    def make(task_id, kind="sync", created_at=None, payload=NOTHING, **terms):
        job = Job(task_id, definitions[kind], payload)
        job.created_at = float(next(moments)) if created_at is None else created_at
        if terms:
            job.put_under(DEFAULT.replace(**terms), str(terms.get("unique", "")))
        return job

    return make
