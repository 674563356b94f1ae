"""What the unit tests share: nothing here starts a process."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import settings

from gtaskman.job import Job
from gtaskman.task import Definition, registry
from gtaskman.wire.payload import NOTHING

# A machine that is busy with other things makes no test fail.
settings.register_profile("gtaskman", deadline=None)
settings.load_profile("gtaskman")


@pytest.fixture
def make_job():
    """Makes jobs; those of one test share two definitions, as the calls of two tasks do."""
    definitions = {
        kind: Definition(name=f"tests.{kind}", kind=kind, target=print)
        for kind in ("sync", "async")
    }
    numbers = itertools.count(1)

    def make(task_id=None, kind="sync", number=0, **attributes):
        job = Job(task_id or f"job-{next(numbers)}", definitions[kind], NOTHING)
        job.number = number
        for name, value in attributes.items():
            setattr(job, name, value)
        return job

    return make


@pytest.fixture
def registered():
    """The registry of task names, put back as it was afterwards."""
    before = dict(registry)
    yield registry
    registry.clear()
    registry.update(before)
