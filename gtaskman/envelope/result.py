"""A result in an envelope: sealed by a worker, signed by its manager, read by a client.

Workers run the users' code and hold no keys: a result is signed when it leaves the manager.
"""

from __future__ import annotations

import pickle
from typing import Any

import msgspec

from gtaskman.envelope.codec import MALFORMED, PICKLE, VERSION, Codec, codec_of
from gtaskman.envelope.cover import (
    RESULT_LIMIT,
    Purpose,
    cover,
    open_envelope,
    uncover,
    uncovered,
)
from gtaskman.envelope.hints import Hints, Slot
from gtaskman.envelope.keyring import Keyring
from gtaskman.envelope.plain import LIST, is_plain
from gtaskman.envelope.values import (
    Refusal,
    arrived,
    cannot_travel,
    carried,
    check_finite,
    typed,
    why_not_encoded,
)
from gtaskman.errors import EnvelopeError, PayloadError


class _Result(msgspec.Struct, array_like=True):
    """``typed`` if the value needs the annotation of the task's code to be whole."""

    version: int
    typed: bool
    value: msgspec.Raw


_LABEL = "the result"
_decoders = {letter: codec_of(letter).decoder(_Result) for letter in "jm"}


def seal_result(
    value: Any, *, codec: str = "j", hints: Hints | None = None, limit: int = RESULT_LIMIT
) -> bytes:
    """The envelope of a result, not signed yet: see :func:`sign_result`. ``limit`` is in bytes.

    Raises :class:`PayloadError` if the value would not arrive as it is.
    """
    if codec == PICKLE:
        body = _pickled(value)
    else:
        body = _encode(value, codec_of(codec), hints or Hints.NONE)
    data = uncovered(codec, body)
    if len(data) > limit:
        raise PayloadError(
            f"the result takes {len(data):,} bytes, over the limit of {limit:,}; store the data"
            " and return its path or key, or raise the limit"
        )
    return data


def _encode(value: Any, codec: Codec, hints: Hints) -> bytes:
    slot = hints.plan(codec.letter).result
    try:
        needs_type, travels = _carried(value, codec, slot)
        body = codec.encode((VERSION, needs_type, travels))
    except Refusal as refusal:
        raise cannot_travel(_LABEL, codec, refusal) from refusal.__cause__
    except Exception as error:
        raise cannot_travel(_LABEL, codec, why_not_encoded(error)) from error
    check_finite(codec, body, [(_LABEL, travels)])
    return body


def _carried(value: Any, codec: Codec, slot: Slot) -> tuple[bool, Any]:
    """Whether the value needs its annotation, and the value in a form that can be encoded.

    Nobody checks what a task returns against its annotation, so that one may be wrong: plain
    values go without it.
    """
    if type(value) in codec.scalars or is_plain(value, codec, LIST):
        return False, value
    if slot.annotation is not Any:
        try:
            return True, typed(slot, codec, value)
        except Refusal:
            if not is_plain(value, codec):
                raise
    return False, carried(slot._replace(annotation=Any), codec, value)


def _pickled(value: Any) -> bytes:
    try:
        return pickle.dumps(value, 5)
    except Exception as error:
        raise PayloadError(
            f"the result cannot travel as pickle: {type(error).__name__}: {error}"
        ) from error


def sign_result(
    data: bytes, keyring: Keyring | None, *, queue: str, task_id: str, name: str
) -> bytes:
    """``data`` from :func:`seal_result`, signed as the result of this very task.

    Without a keyring it is given back as it is; :class:`PayloadError` if it is a pickle.
    """
    opened = open_envelope(data)
    return cover(opened.letter, opened.body, keyring, Purpose("result", queue, task_id, name))


def read_result(
    data: bytes,
    hints: Hints | None = None,
    *,
    accept: str = "jm",
    keyring: Keyring | None = None,
    queue: str = "",
    task_id: str = "",
    name: str = "",
    limit: int = RESULT_LIMIT,
) -> Any:
    """The value, as the return annotation of the task's code says.

    Without ``hints`` (whoever asks need not have the code) it comes as the codec's own types: a
    ``datetime`` as its text. No bytes at all are a None, unless ``keyring`` requires signatures.
    Raises :class:`EnvelopeError` as :func:`gtaskman.envelope.read_task` does.
    """
    if not data:
        if keyring is not None and keyring.required:
            raise EnvelopeError("there is no signed result, and signatures are required here")
        return None
    purpose = Purpose("result", queue, task_id, name)
    letter, body = uncover(data, accept, keyring, purpose, limit)
    return _value(letter, body, hints)


def read_own_result(data: bytes, hints: Hints | None = None) -> Any:
    """The value in what a worker of this process has sealed, and nobody has signed yet.

    It came over the worker's pipe, which is trusted with pickles, and with any size. Raises
    :class:`EnvelopeError` if it cannot be read.
    """
    opened = open_envelope(data)
    return _value(opened.letter, opened.body, hints)


def _value(letter: str, body: bytes, hints: Hints | None) -> Any:
    if letter == PICKLE:
        return _unpickled(body)
    try:
        result: _Result = _decoders[letter](body)
    except MALFORMED as error:
        raise EnvelopeError(f"the result is malformed: {error}") from error
    if result.version != VERSION:
        raise EnvelopeError(
            f"the result's version {result.version} is unknown; is its sender newer than this?"
        )
    known = hints if hints is not None and result.typed else Hints.NONE
    return arrived(_LABEL, known.plan(letter).result, result.value)


def _unpickled(body: bytes) -> Any:
    try:
        return pickle.loads(body)
    except Exception as error:
        raise EnvelopeError(
            f"the result cannot be unpickled: {type(error).__name__}: {error}"
        ) from error
