"""The archivist: what a storage raises stops no later report."""

from __future__ import annotations

import gevent
import pytest
from gevent.event import Event

from gtaskman.report import Report, TaskStatus
from gtaskman.storages.archivist import Archivist
from gtaskman.storages.memory import InMemoryTaskStorage

pytestmark = pytest.mark.quick

PATIENCE = 10


class Storage(InMemoryTaskStorage):
    """Raises ``error`` at the first report."""

    def __init__(self, error):
        super().__init__(100)
        self.errors = [error]

    def insert(self, report):
        if self.errors:
            raise self.errors.pop()
        super().insert(report)


def report(task_id):
    return Report(task_id, "tests.task", "sync", TaskStatus.WAITING, 0.0)


@pytest.mark.parametrize(
    "error",
    [ValueError(), gevent.Timeout(1), gevent.GreenletExit()],
    ids=lambda e: type(e).__name__,
)
def test_reports_after_a_failure_are_written(error, caplog):
    storage = Storage(error)
    archivist = Archivist(storage)
    archivist.insert(report("first"))
    archivist.insert(report("second"))
    assert archivist.flush(PATIENCE)
    archivist.insert(report("third"))
    assert archivist.flush(PATIENCE)
    assert storage.report("second")
    assert storage.report("third")
    assert type(error).__name__ in caplog.text


def test_reports_are_written_although_the_writer_is_killed():
    gate = Event()
    storage = Storage(None)
    storage.errors.clear()
    archivist = Archivist(storage)
    storage.insert_now, storage.insert = (
        storage.insert,
        lambda each: (
            gate.wait(PATIENCE),
            storage.insert_now(each),
        ),
    )
    archivist.insert(report("first"))
    archivist.insert(report("second"))
    gevent.sleep(0)
    archivist._loop._greenlet.kill(block=False)
    gate.set()
    assert archivist.flush(PATIENCE)
    assert storage.report("second")
    assert storage.report("first")
