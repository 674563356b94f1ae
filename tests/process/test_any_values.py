"""Whatever is submitted is refused at once with a clear error, or ends exactly once: with an equal
value, or with an error that names the thing. Workers, neighbours and the manager go on.

The properties run a bounded number of examples, always the same ones. A long random run is::

    GTASKMAN_EXAMPLES=3000 pytest -p no:xdist tests/process/test_any_values.py -k holds
"""

from __future__ import annotations

import collections
import functools

import pytest
import strategies
from hypothesis import given
from hypothesis import strategies as st
from scenarios import values, work
from scenarios.control import fate
from worlds import PATIENCE, wait_until

import gtaskman
from gtaskman.child import outcome
from gtaskman.report import LONGEST_MESSAGE
from gtaskman.task import Definition, FunctionTask
from gtaskman.wire import messages

MIB = 1024 * 1024
REFUSALS = (gtaskman.GTaskmanError, TypeError, ValueError)
KIND = st.sampled_from(("sync", "async"))
# In the few bytes below the largest frame, or around any size at which something changes.
SIZES = st.integers(MIB - 64, MIB) | strategies.sizes_near(
    MIB, messages.payload_limit(MIB), 64 * 1024
)


class World:
    """A manager with a worker for each kind, and a task that waits in one during all examples."""

    def __init__(self, manager, path):
        self.manager = manager
        self._ends = collections.Counter()
        self._submitted = collections.Counter()
        for event in ("task-completed", "task-failed", "task-cancelled"):
            manager.on(event, lambda report: self._ends.update([report.id]))
        self._path = path
        self._neighbour = self.submit(values.wait_for_file, str(path))
        wait_until(lambda: len(manager.pids()) == 2)
        self._pids = set(manager.pids())

    def submit(self, task, *args):
        handle = self.manager.submit(task, *args)
        self._submitted[handle.id] += 1
        return handle

    def end_of(self, task, *args):
        """The value or the error of a task, or the error that refuses it at once."""
        try:
            handle = self.submit(task, *args)
        except REFUSALS as error:
            assert str(error), "a refusal without a word"  # noqa: PT017
            return error
        end = fate(handle)
        assert not isinstance(end, gtaskman.WorkerCrashed), end
        assert end != "unharmed", f"{handle} has not ended"
        for text in (handle.report.message, handle.report.exc_type, handle.report.traceback):
            assert text is None or text.encode() is not None
        return end

    def goes_on(self):
        """Tasks of both kinds run, the neighbour still waits, and no worker was replaced."""
        for task in (work.whoami, work.whoami_async):
            assert self.submit(task).get(timeout=PATIENCE) in self._pids
        assert not self._neighbour.done(), self._neighbour.report
        assert set(self.manager.pids()) == self._pids

    def close(self):
        self._path.write_text("")
        assert self._neighbour.get(timeout=PATIENCE) == "came"
        wait_until(lambda: self._ends.total() >= self._submitted.total(), what="all tasks told")
        assert self._ends == self._submitted


# --- the properties: each takes a world and an example


def argument(world, kind, value):
    came = world.end_of(work.of(kind, "echo"), value)
    assert isinstance(came, gtaskman.PayloadError) or strategies.alike(came, value)


def option(world, value):
    came = world.end_of(values.Carry(value=value))
    assert isinstance(came, gtaskman.PayloadError) or strategies.alike(came, value)


def depth(world, kind, levels):
    value = strategies.nested(levels)
    came = world.end_of(work.of(kind, "echo"), value)
    assert isinstance(came, gtaskman.GTaskmanError) or strategies.alike(came, value)
    came = world.end_of(values.of(kind, "give_nested"), levels)
    assert isinstance(came, gtaskman.TaskFailed) or strategies.alike(came, value)


def argument_size(world, kind, size):
    came = world.end_of(work.of(kind, "echo"), bytes(size))
    assert isinstance(came, gtaskman.PayloadError) or came == bytes(size)
    assert not isinstance(came, gtaskman.PayloadError) or "max_frame" in str(came)


def result_size(world, kind, size):
    came = world.end_of(work.of(kind, "give"), size)
    if isinstance(came, gtaskman.TaskFailed):
        assert "result" in came.message and "max_frame" in came.message, came
    else:
        assert len(came) == size


def exception_text(world, kind, text):
    came = world.end_of(values.of(kind, "raise_text"), text)
    assert type(came) is gtaskman.TaskFailed, came
    assert came.exc_type == "ValueError"
    assert came.__cause__ is None or came.__cause__.args == (text,)
    came.message.encode()


def progress(world, kind, message, number):
    came = world.end_of(values.of(kind, "say_progress"), message, number)
    if isinstance(came, gtaskman.TaskFailed):
        assert came.exc_type == "ValueError" and "completed" in came.message, came
    else:
        assert len(came) <= LONGEST_MESSAGE and came.encode() is not None


def task_id(world, given_id):
    try:
        task = work.echo.with_id(given_id, 1)
    except gtaskman.TaskOptionError as error:
        assert error.field == "id"  # noqa: PT017
    else:
        assert world.end_of(task) == 1


def task_name(world, kind, name):
    try:
        definition = Definition(name, kind, work.echo.definition.target)
    except gtaskman.TaskDefinitionError as error:
        assert "the name of a task" in str(error)  # noqa: PT017
    else:
        assert world.end_of(FunctionTask(definition, (1,), {})) == 1


def options(world, kind, given_options):
    try:
        function = work.of(kind, "echo").with_options(**given_options)
    except (gtaskman.TaskOptionError, gtaskman.TaskDefinitionError) as error:
        assert any(name in str(error) for name in given_options), error  # noqa: PT017
    else:
        came = world.end_of(function, 1)
        assert came == 1 or isinstance(came, (gtaskman.TaskExpired, gtaskman.TaskOptionError)), came


def attempt(world, number):
    """The number of an attempt comes back, however often the task has failed before."""
    world.manager.pause()
    handle = world.submit(values.tell_attempt)
    handle._job.attempt = number
    world.manager.resume()
    came = fate(handle)
    assert came == number or "cannot be sent" not in str(came), came


EXAMPLES = {
    argument: (60, {"kind": KIND, "value": strategies.values()}),
    option: (40, {"value": strategies.values()}),
    depth: (14, {"kind": KIND, "levels": strategies.depths()}),
    argument_size: (
        50,
        {"kind": KIND, "size": SIZES},
    ),
    result_size: (
        50,
        {"kind": KIND, "size": SIZES},
    ),
    exception_text: (50, {"kind": KIND, "text": strategies.texts()}),
    progress: (
        60,
        {
            "kind": KIND,
            "message": strategies.texts() | strategies.sizes_near(LONGEST_MESSAGE).map("x".__mul__),
            "number": strategies.numbers(),
        },
    ),
    task_id: (50, {"given_id": strategies.ids()}),
    task_name: (40, {"kind": KIND, "name": strategies.texts(1002) | strategies.ids()}),
    options: (120, {"kind": KIND, "given_options": strategies.limits() | strategies.terms()}),
    attempt: (12, {"number": strategies.sizes_near(2**8, 2**15, 2**16, 2**31 - 90).map(abs)}),
}


def play(manager, path, holds, examples, *, shrink=True):
    """Try the property with so many examples."""
    world = World(manager, path)

    @strategies.bounded(examples, shrink=shrink)
    @given(**EXAMPLES[holds][1])
    def tried(**example):
        holds(world, **example)
        world.goes_on()

    tried()
    world.close()


@pytest.mark.parametrize("holds", EXAMPLES, ids=lambda holds: holds.__name__)
def test_it_holds(make_manager, tmp_path, holds):
    manager = make_manager(min_processes=2, max_frame=MIB, keep_finished=10)
    play(manager, tmp_path / "gate", holds, EXAMPLES[holds][0])


# --- what the properties are worth: they find what was wrong once


def without_room_in_frames(monkeypatch):
    for module in ("gtaskman.taskmanager", "gtaskman.wire.messages"):
        monkeypatch.setattr(f"{module}.payload_limit", lambda max_frame: max_frame)


def with_attempts_in_two_bytes(monkeypatch):
    monkeypatch.setattr(
        messages,
        "_pack_order",
        functools.partial(_pack_narrow_order, messages._pack_order),
    )


def _pack_narrow_order(pack, *fields):
    attempt = fields[6]
    messages.struct.pack("<H", attempt)
    return pack(*fields)


def with_surrogates_in_failures(monkeypatch):
    monkeypatch.setattr(outcome, "well_formed", str)


MUTANTS = [
    (without_room_in_frames, argument_size),
    (without_room_in_frames, result_size),
    (with_attempts_in_two_bytes, attempt),
    (with_surrogates_in_failures, exception_text),
]


@pytest.mark.parametrize(
    ("mutate", "holds"), MUTANTS, ids=[f"{m.__name__}-{p.__name__}" for m, p in MUTANTS]
)
def test_an_old_fault_is_found(make_manager, tmp_path, monkeypatch, mutate, holds):
    mutate(monkeypatch)
    # A direct fork has the mutant on both sides of the pipe.
    manager = make_manager(
        min_processes=2, max_frame=MIB, keep_finished=10, start_method="fork", max_crashes=1
    )
    with pytest.raises((AssertionError, gtaskman.TaskFailed, UnicodeEncodeError)):
        play(manager, tmp_path / "gate", holds, EXAMPLES[holds][0], shrink=False)
