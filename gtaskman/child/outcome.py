"""How a run ended, as the frame that says so."""

from __future__ import annotations

import os
import pickle
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple

from greenlet import GreenletExit

from gtaskman.errors import GTaskmanError, PayloadError, SoftTimeout
from gtaskman.reference import MAIN, MAIN_IN_WORKER
from gtaskman.report import well_formed
from gtaskman.wire.messages import DONE, FAIL, SEALED, Ended, Fault, pack
from gtaskman.wire.payload import NOTHING, Payload, encode_value

_OURS = os.path.dirname(os.path.abspath(__file__))
_LONGEST = 64 * 1024  # characters of a traceback
_LONGEST_MESSAGE = 16 * 1024
_LONGEST_NAME = 1000


class Outcome(NamedTuple):
    """The end of a run, ready to be framed: ``payload`` goes behind its start and end times."""

    kind: int
    flags: int
    payload: Payload


RETURNED = Outcome(DONE, NOTHING.flags, NOTHING)


def completed(name: str, value: Any, limit: int) -> Outcome:
    """It returned ``value``; a value that cannot travel is a failure of the task."""
    if value is None:
        return RETURNED
    return _done(name, value, encode_value, limit)


def sealed(name: str, value: Any, seal: Callable[[Any], bytes], limit: int) -> Outcome:
    """It returned ``value``, which goes on to a server in the envelope that ``seal`` makes."""

    def encode(value: Any, limit: int) -> Payload:
        payload = Payload(SEALED, seal(value), ())
        if payload.size > limit:
            raise PayloadError(f"it takes {payload.size:,} bytes, over the limit of {limit:,}")
        return payload

    return _done(name, value, encode, limit)


def _done(name: str, value: Any, encode: Callable[[Any, int], Payload], limit: int) -> Outcome:
    try:
        payload = encode(value, limit)
    except (GreenletExit, SoftTimeout, KeyboardInterrupt):
        raise  # thrown into the task: its result waited for something while it was pickled
    except BaseException as error:
        why = str(error) if isinstance(error, PayloadError) else in_words(error)
        error = PayloadError(f"the result of {name} cannot travel: {why}")
        return failed(Ended.ERROR, error, limit)
    return Outcome(DONE, payload.flags, payload)


def failed(ended: Ended, error: BaseException, limit: int, last_message: str = "") -> Outcome:
    """It ended with ``error``, which travels in words if it is too large to travel itself."""
    portable = _portable(error)
    if portable is not None and len(portable) > limit // 2:
        portable = None
    words = type_name(error), message_of(error), text_of(error)
    fault = Fault(*words, portable, last_message)
    return Outcome(FAIL, ended, Payload(0, pack(fault), ()))


def undecoded(error: BaseException, limit: int) -> Outcome:
    """Its arguments could not be decoded: a traceback of our own code would not say more."""
    if isinstance(error, GTaskmanError):
        error.__traceback__ = error.__cause__ = None
        error.__suppress_context__ = True
    return failed(Ended.UNDECODED, error, limit)


def stopped(ended: Ended) -> Outcome:
    """It was asked to stop, and did."""
    return Outcome(FAIL, ended, Payload(0, pack(Fault(None, "", None, None)), ()))


def type_name(error: BaseException) -> str:
    """The exception's name, with its module unless it is a builtin."""
    kind = type(error)
    try:
        module, name = str(kind.__module__), str(kind.__qualname__)
    except BaseException:
        module, name = "builtins", type.__dict__["__name__"].__get__(kind)
    if module != "builtins":
        name = f"{MAIN if module == MAIN_IN_WORKER else module}.{name}"
    return well_formed(name)[:_LONGEST_NAME]


def message_of(error: BaseException) -> str:
    """``str(error)``, even of an exception that cannot be printed."""
    try:
        return well_formed(str(error)[:_LONGEST_MESSAGE])[:_LONGEST_MESSAGE]
    except BaseException as broken:
        return f"<its message cannot be shown: {type_name(broken)}>"


def in_words(error: BaseException) -> str:
    """The exception's name and message."""
    return f"{type_name(error)}: {message_of(error)}"


def text_of(error: BaseException) -> str:
    """The traceback as text, from the task's own first frame on."""
    try:
        lines = traceback.format_exception(type(error), error, _own(error.__traceback__))
    except BaseException:
        return f"{in_words(error)}\n"
    return well_formed("".join(lines).replace(MAIN_IN_WORKER, MAIN))[-_LONGEST:]


def _own(trace: TracebackType | None) -> TracebackType | None:
    """Without the frames of the runner: they tell the reader nothing."""
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_OURS):
        trace = trace.tb_next
    return trace


def _portable(error: BaseException) -> bytes | None:
    """The exception pickled, if it also comes out of the pickle again."""
    try:
        data = pickle.dumps(error, 5)
        pickle.loads(data)
    except BaseException:
        return None
    return data
