"""A storage that fails holds nobody up: what becomes of a task when its reports cannot be kept."""

from __future__ import annotations

import pytest

import gtaskman
from gtaskman.storages import InMemoryTaskStorage


class Down(Exception):
    pass


class StorageThatFails(InMemoryTaskStorage):
    """Told each report, and down whenever it is told to be."""

    follows = False
    down: tuple[str, ...] = ()

    def insert(self, report):
        if "insert" in self.down:
            raise Down("insert")
        super().insert(report)

    def update(self, report):
        if "update" in self.down:
            raise Down("update")
        return super().update(report)


@pytest.fixture
def storage():
    return StorageThatFails()


@pytest.fixture
def manager(storage):
    config = gtaskman.Configuration(min_processes=1, max_processes=1, stop_timeout=20)
    with gtaskman.TaskManager(config=config, storage=storage) as manager:
        yield manager


def test_a_storage_that_follows_nobody_is_told_each_report(manager, storage):
    handle = manager.submit(len, "four")
    assert handle.get(timeout=20) == 4
    assert storage.report(handle.id).status is gtaskman.TaskStatus.COMPLETED


def test_a_task_that_cannot_be_noted_is_refused_and_forgotten(manager, storage):
    storage.down = ("insert",)
    with pytest.raises(Down):
        manager.submit(len, "four")
    assert manager.stats()["queue"]["current_tasks"] == 0
    # and the next one is as good as ever
    storage.down = ()
    assert manager.submit(len, "four").get(timeout=20) == 4


def test_a_result_reaches_its_waiter_though_it_cannot_be_stored(manager, storage, caplog):
    storage.down = ("update",)
    handles = [manager.submit(len, "x" * length) for length in range(5)]
    assert [handle.get(timeout=20) for handle in handles] == [0, 1, 2, 3, 4]
    assert "could not be stored" in caplog.text


def test_a_thread_is_told_that_its_task_could_not_be_noted(manager, storage):
    storage.down = ("insert",)
    import gevent

    handle = gevent.get_hub().threadpool.apply(manager.submit, (len, "four"))
    with pytest.raises(gtaskman.TaskFailed, match="could not be queued: Down: insert"):
        handle.get(timeout=20)
