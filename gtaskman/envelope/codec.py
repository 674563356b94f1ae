"""The codecs of an envelope's body: JSON and MessagePack, and which values each carries itself.

Pickle is no codec here: it carries everything and checks nothing, so it goes its own way where
envelopes are sealed and read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from gtaskman.errors import ConfigurationError

VERSION = 1
JSON, MSGPACK, PICKLE = "j", "m", "p"
LETTERS = "jmp"
# What decoding raises; in older versions of msgspec its own errors are no ValueErrors.
MALFORMED = (msgspec.MsgspecError, ValueError, TypeError, RecursionError)

_JSON_SCALARS: frozenset[type] = frozenset({str, int, float, bool, type(None)})
_MSGPACK_SCALARS: frozenset[type] = _JSON_SCALARS | {bytes}


class Codec:
    """One encoding of values.

    ``encode`` gives bytes of what the codec carries itself, ``encode_typed`` of what an annotation
    will make whole again. ``scalars`` and ``keys`` are the types that need no annotation, as
    values and as the keys of a dict.
    """

    def __init__(
        self,
        letter: str,
        label: str,
        scalars: frozenset[type],
        keys: frozenset[type],
        encode: Callable[[Any], bytes],
        encode_typed: Callable[[Any], bytes],
        decoder: Callable[[Any], Any],
    ) -> None:
        self.letter = letter
        self.label = label
        self.scalars = scalars
        self.keys = keys
        self.encode = encode
        self.encode_typed = encode_typed
        self._decoder = decoder

    def decoder(self, annotation: Any) -> Callable[[Any], Any]:
        """What decodes values so annotated. Raises ``TypeError`` if nothing can."""
        decode: Callable[[Any], Any] = self._decoder(annotation).decode
        return decode


_encode_msgpack = msgspec.msgpack.Encoder().encode
_encode_json = msgspec.json.Encoder().encode


def _encode_typed_msgpack(value: Any) -> bytes:
    # MessagePack's own timestamps forget a datetime's offset; its text keeps it.
    plain = msgspec.to_builtins(value, builtin_types=(bytes, bytearray, memoryview))
    return _encode_msgpack(plain)


_CODECS = {
    JSON: Codec(
        JSON,
        "JSON",
        _JSON_SCALARS,
        frozenset[type]({str}),
        _encode_json,
        _encode_json,
        msgspec.json.Decoder,
    ),
    MSGPACK: Codec(
        MSGPACK,
        "MessagePack",
        _MSGPACK_SCALARS,
        _MSGPACK_SCALARS,
        _encode_msgpack,
        _encode_typed_msgpack,
        msgspec.msgpack.Decoder,
    ),
}


def codec_of(letter: str) -> Codec:
    """The codec with this letter. Raises :class:`ConfigurationError` for any other text."""
    try:
        return _CODECS[letter]
    except KeyError:
        raise ConfigurationError(
            f"there is no codec {letter!r}: use 'j' (JSON), 'm' (MessagePack) or 'p' (pickle)",
            "codec",
        ) from None
