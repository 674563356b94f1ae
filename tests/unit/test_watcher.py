"""Watchers: whatever their callbacks raise, they keep watching."""

from __future__ import annotations

import ctypes
import functools
import operator
import os
import signal

import gevent
import pytest
from greenlet import GreenletExit
from worlds import wait_until

from gtaskman.wire.watcher import READ, Watcher

pytestmark = pytest.mark.quick


class Reader:
    """Reads a pipe through a watcher; raises each of ``errors`` once before it reads."""

    def __init__(self, *errors: BaseException) -> None:
        self.pipe = os.pipe()
        self.errors = list(errors)
        self.read: list[bytes] = []
        self.calls = 0
        self.watcher = Watcher(gevent.get_hub().loop, self.pipe[0], READ, "a pipe of the test")
        os.set_blocking(self.pipe[0], False)
        self.watcher.start(self.on_readable)

    def on_readable(self) -> None:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        try:
            self.read.append(os.read(self.pipe[0], 100))
        except BlockingIOError:
            pass

    def close(self) -> None:
        self.watcher.close()
        for fd in self.pipe:
            os.close(fd)


@pytest.fixture
def make_reader():
    readers: list[Reader] = []

    def make(*errors: BaseException) -> Reader:
        readers.append(Reader(*errors))
        return readers[-1]

    yield make
    for each in readers:
        each.close()


@pytest.mark.parametrize("error", [KeyboardInterrupt("from a handler"), SystemExit(3)])
def test_what_ends_a_program_reaches_main_and_the_pipe_is_still_read(make_reader, error) -> None:
    reader = make_reader(error)
    os.write(reader.pipe[1], b"1")
    with pytest.raises(type(error)) as raised:
        wait_until(lambda: reader.read)
    assert raised.value is error
    wait_until(lambda: reader.read == [b"1"])
    os.write(reader.pipe[1], b"2")
    wait_until(lambda: reader.read == [b"1", b"2"])


def test_a_greenlet_exit_does_not_stop_it(make_reader) -> None:
    reader = make_reader(GreenletExit(), GreenletExit())
    os.write(reader.pipe[1], b"1")
    wait_until(lambda: reader.read == [b"1"])


def test_an_exception_is_logged_once_and_the_callback_called_again(make_reader, caplog) -> None:
    reader = make_reader(OSError("no descriptor"), OSError("no descriptor"))
    os.write(reader.pipe[1], b"1")
    wait_until(lambda: reader.read == [b"1"])
    assert reader.calls >= 3
    messages = [each.getMessage() for each in caplog.records if each.exc_info]
    assert messages == ["a pipe of the test: handling what came has failed; it is tried again"]


@pytest.fixture
def raising_sigint():
    """SIGINT raises KeyboardInterrupt, whatever an earlier test has set."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("raising_sigint")
def test_a_signal_handler_that_raises_before_the_first_instruction(make_reader) -> None:
    reader = make_reader()
    send = ctypes.PyDLL(None)["raise"]  # unlike signal.raise_signal it leaves the handler pending
    callback = reader.watcher._io.callback
    with pytest.raises(KeyboardInterrupt):
        # All of it in C: the handler runs when the callback's first instruction is reached.
        list(map(operator.call, [functools.partial(send, signal.SIGINT), callback]))
    reader.watcher._io.stop()  # as gevent does when the callback has raised
    os.write(reader.pipe[1], b"1")
    wait_until(lambda: reader.read and reader.read[-1] == b"1")


def test_stopped_by_its_own_callback_it_stays_stopped(make_reader) -> None:
    reader = make_reader()
    stop_and_fail = [True]

    def callback() -> None:
        reader.calls += 1
        reader.watcher.stop()
        if stop_and_fail:
            raise GreenletExit

    reader.watcher.start(callback)
    os.write(reader.pipe[1], b"1")
    wait_until(lambda: reader.calls)
    gevent.idle()
    assert not reader.watcher.active
    assert reader.calls == 1


def test_it_can_be_closed_while_it_pauses(make_reader, caplog) -> None:
    reader = make_reader(OSError("once"))
    os.write(reader.pipe[1], b"1")
    wait_until(lambda: reader.calls)
    reader.watcher.close()
    gevent.sleep(0.15)
    assert reader.calls == 1
