"""A signal handler that raises anywhere in the handling of a worker's pipe: no end is lost."""

from __future__ import annotations

import sys
from collections import Counter

import gevent
import pytest
from scenarios import tasks, work
from worlds import PATIENCE

from gtaskman.wire.channel import Channel

STEP = 7  # every so manieth place in a short run; coprime to the length of the loops in there


class Interrupter:
    """Raises KeyboardInterrupt in the hub at the n-th place where a signal handler may run.

    The interpreter runs handlers when a function begins and when a call of C code has returned,
    which is where a profiler is called.
    """

    def __init__(self, monkeypatch) -> None:
        self.left = 0  # 0: raise nothing
        self.places: Counter[str] = Counter()
        read = Channel.read

        def watched(channel: Channel) -> None:
            if not self.left:
                read(channel)
                return
            sys.setprofile(self._on_event)
            try:
                read(channel)
            finally:
                sys.setprofile(None)

        monkeypatch.setattr(Channel, "read", watched)

    def _on_event(self, frame, event, _arg) -> None:
        if event not in ("call", "c_return") or frame.f_code.co_name == "watched":
            return
        if gevent.getcurrent() is not gevent.get_hub() or not self.left or _moving(frame):
            return
        self.left -= 1
        if not self.left:
            self.places[frame.f_code.co_qualname] += 1
            raise KeyboardInterrupt(f"in {frame.f_code.co_qualname}")


def _moving(frame) -> bool:
    """Whether tasks are being handed out or given back: only the ends of tasks are safe here."""
    while frame is not None:
        if frame.f_code.co_name in ("on_capacity", "_on_returned"):
            return True
        frame = frame.f_back
    return False


def outcome(handle) -> object:
    """What became of a task, however often the wait for it is interrupted."""
    with gevent.Timeout(PATIENCE):
        while True:
            try:
                return handle.get()
            except KeyboardInterrupt:
                continue
            except Exception as error:
                return type(error).__name__


@pytest.mark.parametrize("first", range(1, STEP + 1))
def test_an_interrupt_anywhere_in_reading_loses_no_end(make_manager, monkeypatch, first) -> None:
    # given a manager whose pipes are read as a signal handler raises
    interrupter = Interrupter(monkeypatch)
    manager = make_manager()
    assert manager.wait_ready(PATIENCE)
    for at in range(first, 10_000, STEP):
        # when three tasks end: one with a value, one with nothing, one with an error
        handles = [
            manager.submit(work.echo, at),
            manager.submit(work.echo),
            manager.submit(tasks.fail, "on purpose"),
        ]
        interrupter.left = at
        outcomes = [outcome(each) for each in handles]
        never, interrupter.left = interrupter.left, 0
        # then each has ended as it should
        assert outcomes == [at, None, "TaskFailed"], f"interrupted at {at}"
        if never:
            break
    assert len(interrupter.places) > 5
