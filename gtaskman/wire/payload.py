"""Values <-> bytes: pickle protocol 5, large buffers beside it instead of in it.

What travels arrives as it was, equal and of the same type. Large ``bytes`` and ``bytearray`` at
the top level, and whatever offers its memory to pickle (numpy arrays do), travel as buffers: they
are neither copied nor do they stop the hub while they are encoded.
"""

from __future__ import annotations

import functools
import io
import pickle
import types
from collections.abc import Sequence
from typing import Any, NamedTuple

from gtaskman.errors import GTaskmanError, PayloadError, SoftTimeout
from gtaskman.reference import MAIN, main_of_application
from gtaskman.wire.frames import KEPT, MAX_BUFFERS

EMPTY = 1  # flag: there is no body, the value is None, or there are no arguments
BESIDE = 64 * 1024  # bytes from which a value at the top level travels as a buffer
_BESIDE = frozenset({bytes, bytearray})
# Values with no memory to offer and no parts that might: pickled straight away.
_PLAIN = frozenset({int, float, bool, str, type(None)})
_PROTOCOL = 5
_dumps = pickle.dumps
_loads = pickle.loads


class Payload(NamedTuple):
    """An encoded value: the flag ``EMPTY`` or 0, the body, the buffers beside it."""

    flags: int
    body: bytes
    buffers: tuple[memoryview, ...]

    @property
    def size(self) -> int:
        """Bytes on the pipe."""
        return len(self.body) + sum(raw.nbytes for raw in self.buffers)


NOTHING = Payload(EMPTY, b"", ())


def encode_arguments(args: tuple[Any, ...], kwargs: dict[str, Any], limit: int) -> Payload:
    """Encode what a task is called with. Raises :class:`PayloadError`."""
    if not args and not kwargs:
        return NOTHING
    if not kwargs and _PLAIN.issuperset(map(type, args)):
        body = _dumps((args, kwargs), _PROTOCOL)
        if len(body) <= limit:
            return Payload(0, body, ())
    args = tuple(map(_beside, args))
    if kwargs:
        kwargs = {name: _beside(value) for name, value in kwargs.items()}
    return _encode((args, kwargs), limit)


def decode_arguments(
    flags: int, body: bytes | memoryview, buffers: Sequence[object]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What :func:`encode_arguments` encoded."""
    if flags & EMPTY:
        return (), {}
    args, kwargs = _loads(body, buffers=buffers) if buffers else _loads(body)
    return args, kwargs


def encode_value(value: Any, limit: int) -> Payload:
    """Encode a result. Raises :class:`PayloadError`."""
    if value is None:
        return NOTHING
    if type(value) in _PLAIN:
        body = _dumps(value, _PROTOCOL)
        if len(body) <= limit:
            return Payload(0, body, ())
    return _encode(_beside(value), limit)


def decode_value(flags: int, body: bytes | memoryview, buffers: Sequence[object]) -> Any:
    """What :func:`encode_value` encoded."""
    if flags & EMPTY:
        return None
    return _loads(body, buffers=buffers) if buffers else _loads(body)


def as_it_came(flags: int, body: memoryview, buffers: Sequence[Any]) -> Payload:
    """An encoded value of a frame, to be handed on to another process as it is."""
    if flags & EMPTY:
        return NOTHING
    # What is small lies in the reader's own buffer, and only until the next read.
    kept: Any = bytes(body) if body.nbytes < KEPT else body
    return Payload(flags, kept, tuple(map(memoryview, buffers)) if buffers else ())


def _beside(value: Any) -> Any:
    if type(value) in _BESIDE and len(value) >= BESIDE:
        return pickle.PickleBuffer(value)
    return value


def _encode(value: Any, limit: int) -> Payload:
    buffers: list[pickle.PickleBuffer] = []
    try:
        body = _dumps(value, _PROTOCOL, buffer_callback=buffers.append)
        if MAIN.encode() in body and _main_is_lost() and _names_main(value):
            raise pickle.PicklingError(
                "it was defined in a console or by python -c, so that no worker can import it"
            )
    except SoftTimeout:
        raise  # thrown into the task: a part of its result waited for something
    except Exception as error:
        buffers.clear()
        body = _by_value(value, error)
    if not buffers and len(body) <= limit:
        return Payload(0, body, ())
    return _with_buffers(value, body, buffers, limit)


@functools.cache
def _main_is_lost() -> bool:
    return main_of_application() is None


def _names_main(value: Any) -> bool:
    """Whether its pickle names code of the main module."""
    finder = _MainFinder(io.BytesIO(), _PROTOCOL, buffer_callback=lambda _: None)
    finder.dump(value)
    return finder.found


class _MainFinder(pickle.Pickler):
    found = False

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, (type, types.FunctionType)) and obj.__module__ == MAIN:
            self.found = True
        return NotImplemented


def _with_buffers(
    value: Any, body: bytes, buffers: list[pickle.PickleBuffer], limit: int
) -> Payload:
    if len(buffers) > MAX_BUFFERS:
        body, buffers = _dumps(value, _PROTOCOL), []
    try:
        raws = tuple(each.raw() for each in buffers)
    except BufferError:
        # Memory that is not contiguous has no raw view: it travels inside the pickle.
        body, raws = _dumps(value, _PROTOCOL), ()
    payload = Payload(0, body, raws)
    if payload.size > limit:
        raise PayloadError(
            f"it takes {payload.size:,} bytes, over the limit of {limit:,}; send a path or a key"
            " instead of the data, or raise Configuration.max_frame"
        )
    return payload


def _by_value(value: Any, error: Exception) -> bytes:
    """Lambdas, nested functions and the like: cloudpickle carries them if it is installed."""
    if isinstance(error, GTaskmanError):
        raise PayloadError(str(error)) from error
    try:
        import cloudpickle
    except ImportError:
        raise PayloadError(
            f"{type(error).__name__}: {error}; what cannot be imported by name travels only if"
            " cloudpickle is installed (pip install 'gtaskman[cloudpickle]')"
        ) from error

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc] # cloudpickle has no type hints
        def reducer_override(self, obj: Any) -> Any:
            if isinstance(obj, (memoryview, io.IOBase)):
                # cloudpickle would send something else in their place, without a word.
                raise pickle.PicklingError(f"a {type(obj).__name__} cannot travel")
            return super().reducer_override(obj)

    try:
        with io.BytesIO() as stream:
            Pickler(stream, _PROTOCOL).dump(value)
            return stream.getvalue()
    except Exception:
        raise PayloadError(f"{type(error).__name__}: {error}") from error
