"""A task in an envelope: sealed by a client, looked at by a manager, unpacked by a worker.

The manager reads the header alone; arguments stay as they came until the worker that has the
code, and so its annotations, decodes them.
"""

from __future__ import annotations

import itertools
import pickle
from typing import Annotated, Any, Literal

import msgspec

from gtaskman.envelope.codec import MALFORMED, MSGPACK, PICKLE, VERSION, Codec, codec_of
from gtaskman.envelope.cover import TASK_LIMIT, Purpose, cover, open_envelope, uncover
from gtaskman.envelope.hints import Hints, Slot
from gtaskman.envelope.keyring import Keyring
from gtaskman.envelope.values import (
    arrived,
    at_place,
    blame,
    called,
    carried_arguments,
    check_finite,
    labelled,
)
from gtaskman.errors import EnvelopeError, PayloadError
from gtaskman.task import MAX_ID

MAX_NAME = 200  # bytes
_Id = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID)]
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME)]


class Sealed(msgspec.Struct, array_like=True):
    """A task's header; ``args`` and ``kwargs`` are still encoded, and not yet looked at.

    ``kind`` is ``"sync"``, ``"async"`` or ``"service"``; ``created`` is in seconds since the epoch.
    """

    version: int
    id: _Id
    name: _Name
    kind: Literal["sync", "async", "service"]
    args: msgspec.Raw
    kwargs: msgspec.Raw
    created: float
    options: dict[str, Any]


class _Untyped(msgspec.Struct, array_like=True):
    version: int
    id: str
    name: str
    kind: str
    args: list[Any]
    kwargs: dict[str, Any]


class _Typed(msgspec.Struct, array_like=True):
    version: int
    id: str
    name: str
    kind: str
    args: list[msgspec.Raw]
    kwargs: dict[str, msgspec.Raw]


class _Pickled(msgspec.Struct, array_like=True):
    version: int
    id: str
    name: str
    kind: str
    args: bytes


class _Versioned(msgspec.Struct, array_like=True):
    version: int


class _Decoders:
    """What one codec decodes of a task's body."""

    def __init__(self, codec: Codec) -> None:
        self.header = codec.decoder(Sealed)
        self.untyped = codec.decoder(_Untyped)
        self.typed = codec.decoder(_Typed)
        self.version = codec.decoder(_Versioned)


_decoders = {letter: _Decoders(codec_of(letter)) for letter in "jm"}
_decoders[PICKLE] = _decoders[MSGPACK]  # a pickle's header is MessagePack
_decode_pickled = codec_of(MSGPACK).decoder(_Pickled)


# --- the client ----------------------------------------------------------------------------------


def seal_task(
    task_id: str,
    name: str,
    kind: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    created: float,
    options: dict[str, Any],
    *,
    codec: str = "j",
    hints: Hints | None = None,
    keyring: Keyring | None = None,
    queue: str = "",
    limit: int = TASK_LIMIT,
) -> bytes:
    """The envelope of a task.

    ``hints`` are those of its code, where the sender has it: without them only what the codec
    carries itself may travel. ``created`` is in seconds since the epoch, ``options`` is plain
    data, ``queue`` is what a signature is bound to, ``limit`` is in bytes.
    Raises :class:`PayloadError`, which names the argument that cannot travel and says why.
    """
    _check_name(name)
    head = (VERSION, task_id, name, kind)
    if codec == PICKLE:
        body = _encode_pickled(head, args, kwargs, created, options)
    else:
        body = _encode(head, args, kwargs, created, options, codec_of(codec), hints or Hints.NONE)
    data = cover(codec, body, keyring, Purpose("task", queue))
    if len(data) > limit:
        raise PayloadError(
            f"the task takes {len(data):,} bytes, over the limit of {limit:,}; send a path or a"
            " key instead of the data, or raise the limit"
        )
    return data


def _check_name(name: str) -> None:
    if not name or not name.isprintable() or len(name.encode()) > MAX_NAME:
        raise PayloadError(
            f"a task's name takes a printable text of 1 to {MAX_NAME} bytes, not {name!r:.80}"
        )


def _encode(
    head: tuple[int, str, str, str],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    created: float,
    options: dict[str, Any],
    codec: Codec,
    hints: Hints,
) -> bytes:
    plan = hints.plan(codec.letter)
    some, named = carried_arguments(plan, codec, args, kwargs)
    try:
        body = codec.encode((*head, some, named, created, options))
    except Exception as error:
        raise blame(codec, labelled(plan, some, named), error) from error
    about = (("the time of creation", created), ("the options", options))
    check_finite(codec, body, itertools.chain(labelled(plan, some, named), about))
    return body


def _encode_pickled(
    head: tuple[int, str, str, str],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    created: float,
    options: dict[str, Any],
) -> bytes:
    try:
        pickled = pickle.dumps((args, kwargs), 5)
    except Exception as error:
        raise PayloadError(
            f"the arguments cannot travel as pickle: {type(error).__name__}: {error}"
        ) from error
    return codec_of(MSGPACK).encode((*head, pickled, None, created, options))


# --- the manager ---------------------------------------------------------------------------------


def read_task(
    data: bytes,
    *,
    accept: str = "jm",
    keyring: Keyring | None = None,
    queue: str = "",
    task_id: str | None = None,
    limit: int = TASK_LIMIT,
) -> Sealed:
    """The header of a task's envelope, vouched for if there is a keyring.

    ``accept`` are the letters of the codecs that are let in; ``task_id`` is the id under which the
    envelope was found, so that it cannot stand in for another task. Raises
    :class:`EnvelopeError`: too large, not ours, unknown version, codec not accepted, signature
    missing or wrong, key unknown, another id, malformed.
    """
    letter, body = uncover(data, accept, keyring, Purpose("task", queue), limit)
    decoders = _decoders[letter]
    try:
        sealed: Sealed = decoders.header(body)
    except MALFORMED as error:
        _check_version(decoders, body)
        raise EnvelopeError(f"the envelope is malformed: {error}") from error
    if sealed.version != VERSION:
        _check_version(decoders, body)
    if task_id is not None and sealed.id != task_id:
        raise EnvelopeError(
            f"the envelope is of the task {sealed.id!r:.80}, not of {task_id!r:.80}"
        )
    if not (sealed.id.isprintable() and sealed.name.isprintable()):
        raise EnvelopeError("the envelope is malformed: its id or name is not printable")
    return sealed


def _check_version(decoders: _Decoders, body: bytes) -> None:
    """Raise :class:`EnvelopeError` if the body is of a version that we do not know."""
    try:
        version = decoders.version(body).version
    except MALFORMED:
        return
    if version != VERSION:
        raise EnvelopeError(
            f"the task's version {version} is unknown; is its sender newer than this?"
        )


# --- the worker ----------------------------------------------------------------------------------


def arguments_of(
    data: bytes | memoryview, hints: Hints | None = None
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a task that :func:`read_task` has let in, as the code's annotations say.

    It verifies nothing: never call it with an envelope that was not read before, since that may
    be a pickle. Raises :class:`EnvelopeError`, which names the argument that does not fit.
    """
    letter, _, _, body = open_envelope(bytes(data))
    if letter == PICKLE:
        return _unpickle(body)
    plan = (hints or Hints.NONE).plan(letter)
    decoders = _decoders[letter]
    try:
        task = decoders.untyped(body) if plan.untyped else decoders.typed(body)
    except MALFORMED as error:
        raise EnvelopeError(f"the task's arguments are malformed: {error}") from error
    if plan.untyped:
        return tuple(task.args), task.kwargs
    return (
        tuple([_at(plan.at(place), place, raw) for place, raw in enumerate(task.args)]),
        {name: arrived(called(name), plan.called(name), raw) for name, raw in task.kwargs.items()},
    )


def _at(slot: Slot, place: int, raw: msgspec.Raw) -> Any:
    return arrived(at_place(slot, place), slot, raw)


def _unpickle(body: bytes) -> tuple[tuple[Any, ...], dict[str, Any]]:
    try:
        args, kwargs = pickle.loads(_decode_pickled(body).args)
    except Exception as error:
        raise EnvelopeError(
            f"the task's arguments cannot be unpickled: {type(error).__name__}: {error}"
        ) from error
    return args, kwargs
