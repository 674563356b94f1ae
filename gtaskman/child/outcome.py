"""How a run ended, as the frame that says so."""

from __future__ import annotations

import os
import pickle
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple

from gtaskman.errors import PayloadError
from gtaskman.wire.messages import DONE, FAIL, SEALED, Ended, Fault, pack
from gtaskman.wire.payload import NOTHING, Payload, encode_value

_OURS = os.path.dirname(os.path.abspath(__file__))
_LONGEST = 64 * 1024  # characters of a traceback
_LONGEST_MESSAGE = 16 * 1024


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
    return _done(name, lambda: encode_value(value, limit), limit)


def sealed(name: str, value: Any, seal: Callable[[Any], bytes], limit: int) -> Outcome:
    """It returned ``value``, which goes on to a server in the envelope that ``seal`` makes."""
    return _done(name, lambda: Payload(SEALED, seal(value), ()), limit)


def _done(name: str, encode: Callable[[], Payload], limit: int) -> Outcome:
    try:
        payload = encode()
    except PayloadError as error:
        error = PayloadError(f"the result of {name} cannot travel: {error}")
        return failed(Ended.ERROR, error, limit)
    return Outcome(DONE, payload.flags, payload)


def failed(ended: Ended, error: BaseException, limit: int) -> Outcome:
    """It ended with ``error``, which travels in words if it is too large to travel itself."""
    portable = _portable(error)
    if portable is not None and len(portable) > limit // 2:
        portable = None
    fault = Fault(type_name(error), message_of(error), text_of(error), portable)
    return Outcome(FAIL, ended, Payload(0, pack(fault), ()))


def stopped(ended: Ended) -> Outcome:
    """It was asked to stop, and did."""
    return Outcome(FAIL, ended, Payload(0, pack(Fault(None, "", None, None)), ()))


def type_name(error: BaseException) -> str:
    """The exception's name, with its module unless it is a builtin."""
    kind = type(error)
    return (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}"
    )


def message_of(error: BaseException) -> str:
    """``str(error)``, even of an exception that cannot be printed."""
    try:
        return str(error)[:_LONGEST_MESSAGE]
    except Exception as broken:
        return f"<its message cannot be shown: {type(broken).__name__}>"


def text_of(error: BaseException) -> str:
    """The traceback as text, from the task's own first frame on."""
    try:
        lines = traceback.format_exception(type(error), error, _own(error.__traceback__))
    except Exception:
        return f"{type_name(error)}: {message_of(error)}\n"
    return "".join(lines)[-_LONGEST:]


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
    except Exception:
        return None
    return data
