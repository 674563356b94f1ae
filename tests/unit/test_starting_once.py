"""``start_once``: one start, whoever asks for it, and never a wait for oneself."""

from __future__ import annotations

import gevent
import pytest

from gtaskman import default, taskmanager
from gtaskman.config import Configuration
from gtaskman.errors import ManagerStopped, WouldBlockError
from gtaskman.futures.work import Work
from gtaskman.starting import start_once
from gtaskman.taskmanager import TaskManager

pytestmark = pytest.mark.quick


def test_others_wait_for_the_start_that_is_under_way():
    starts, calls = {}, []

    def start():
        gevent.sleep(0)
        calls.append(len(starts))

    asking = [gevent.spawn(start_once, starts, "it", "it", start) for _ in range(3)]
    gevent.joinall(asking, raise_error=True)

    assert calls == [1]
    assert starts == {}


def test_a_start_that_fails_is_made_anew():
    starts, calls = {}, []

    def start():
        calls.append(1)
        if len(calls) == 1:
            raise LookupError("not yet")

    with pytest.raises(LookupError):
        start_once(starts, "it", "it", start)
    start_once(starts, "it", "it", start)

    assert len(calls) == 2


def test_code_that_interrupts_a_start_does_not_wait_for_it():
    starts = {}

    with pytest.raises(WouldBlockError, match="the thing is being started"):
        start_once(starts, "it", "the thing", lambda: start_once(starts, "it", "the thing", list))

    assert starts == {}


def test_a_submit_in_the_middle_of_the_first_one_is_refused(monkeypatch):
    monkeypatch.setattr(default, "make", lambda *_args, **_more: default.submit(abs, -1))

    with pytest.raises(WouldBlockError, match="the default manager is being started"):
        default.submit(abs, -1)


def test_so_is_one_of_an_executor():
    work = Work(lambda: work.submit(abs, (-1,), {}), owned=True)

    with pytest.raises(WouldBlockError, match="the manager of this executor is being started"):
        work.submit(abs, (-1,), {})


@pytest.mark.parametrize("by", ["the default manager", "an executor", "a with statement"])
def test_a_manager_whose_start_is_interrupted_is_not_left_running(by):
    made = []

    class Manager(TaskManager):
        def __init__(self, *args, **more):
            super().__init__(*args, **more)
            made.append(self)

    config = Configuration(background=True)
    ways = {
        "the default manager": lambda: default.make("memory://", config),
        "a with statement": lambda: Manager(config=config).__enter__(),
        "an executor": lambda: Work(lambda: Manager(config=config), owned=True).submit(abs, (), {}),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(taskmanager, "TaskManager", Manager)
        starting = gevent.spawn(ways[by])
        gevent.sleep(0)  # now it waits for its thread
        starting.kill()

    assert isinstance(starting.value, gevent.GreenletExit)
    assert [each.pids() for each in made] == [[]]
    with pytest.raises(ManagerStopped):
        made[0].submit(abs, -1)
