"""How a run ended, in the form that travels: whatever the exception is like."""

from __future__ import annotations

import pytest
from gevent import GreenletExit

from gtaskman.child import outcome
from gtaskman.errors import EnvelopeError, RemoteTraceback, SoftTimeout
from gtaskman.wire.messages import FAIL, Ended, Fault, unpack

pytestmark = pytest.mark.quick
LIMIT = 1 << 20


def fault_of(result):
    assert result.kind == FAIL
    return Fault(*unpack(memoryview(result.payload.body)))


class OfTheMainModule(Exception):
    __module__ = "__mp_main__"


class Hostile(type):
    @property
    def __module__(cls):
        raise SystemExit(3)


class Unnameable(Exception, metaclass=Hostile):
    pass


class Unprintable(Exception):
    def __str__(self):
        raise SystemExit(3)

    __repr__ = __str__


class Unpicklable(Exception):
    def __reduce__(self):
        raise KeyboardInterrupt


def test_classes_of_the_main_module_go_by_the_name_that_the_application_knows():
    error = OfTheMainModule("no")
    fault = fault_of(outcome.failed(Ended.ERROR, error, LIMIT))
    assert fault.exc_type == "__main__.OfTheMainModule"
    assert "__mp_main__" not in fault.traceback


@pytest.mark.parametrize("error", [Unnameable("x"), Unprintable("x"), Unpicklable("x")])
def test_an_exception_that_resists_travels_in_words(error):
    fault = fault_of(outcome.failed(Ended.ERROR, error, LIMIT))
    assert type.__getattribute__(type(error), "__name__") in fault.exc_type
    assert fault.message and fault.traceback


def test_texts_with_lone_surrogates_can_be_encoded():
    error = ValueError("caf\udce9.txt")
    fault = fault_of(outcome.failed(Ended.ERROR, error, LIMIT))
    for text in (fault.message, fault.traceback):
        assert "\\udce9" in text.encode().decode()


def test_a_name_of_any_length_fits_a_frame():
    error = type("N" * LIMIT, (Exception,), {})("x" * LIMIT)
    result = outcome.failed(Ended.ERROR, error, LIMIT)
    assert result.payload.size < LIMIT


def test_arguments_that_do_not_fit_are_told_in_one_line():
    try:
        try:
            raise ValueError("Expected `int`, got `str`")
        except ValueError as cause:
            raise EnvelopeError("argument 'n': Expected `int`, got `str`") from cause
    except EnvelopeError as error:
        fault = fault_of(outcome.undecoded(error, LIMIT))
    assert fault.traceback.count("\n") == 1
    assert "argument 'n': Expected `int`" in fault.traceback


class Raises:
    def __init__(self, error):
        self.error = error

    def __reduce__(self):
        raise self.error


@pytest.mark.parametrize("error", [SystemExit(3), RuntimeError("no"), GeneratorExit()])
def test_whatever_leaves_the_pickling_of_a_result_is_its_failure(error):
    fault = fault_of(outcome.completed("tests.task", Raises(error), LIMIT))
    assert fault.exc_type == "gtaskman.errors.PayloadError"
    assert "the result of tests.task cannot travel" in fault.message
    assert type(error).__name__ in fault.message


@pytest.mark.parametrize("error", [GreenletExit(), SoftTimeout("soft"), KeyboardInterrupt()])
def test_what_is_thrown_into_a_task_passes_through_the_pickling_of_its_result(error):
    with pytest.raises(type(error)):
        outcome.completed("tests.task", Raises(error), LIMIT)


def test_a_sealed_result_over_the_frame_is_its_failure():
    result = outcome.sealed("tests.task", "value", lambda _: bytes(LIMIT + 1), LIMIT)
    assert "over the limit" in fault_of(result).message


def test_the_remote_traceback_has_the_name_that_concurrent_futures_gives_it():
    assert RemoteTraceback("Traceback ...").tb == "Traceback ..."
