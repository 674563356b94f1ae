"""The outside of an envelope: which codec, and whose signature.

    g1j[1,"id",...                     a body, unsigned
    g1J2025.5f3a...c2[1,"id",...       signed: the key's id, a dot, 64 hexadecimal digits, the body

``g1`` is the format's version; the codec is a small letter, or a capital in the signed form.
This module puts covers on and takes them off; it knows keys only as something that signs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from gtaskman.envelope.codec import LETTERS, PICKLE
from gtaskman.errors import EnvelopeError, PayloadError

if TYPE_CHECKING:
    from gtaskman.envelope.keyring import Keyring

TASK_LIMIT = 256 * 1024
RESULT_LIMIT = 1024 * 1024
MAX_KEY_ID = 32  # characters
_MAGIC = b"g1"
_DIGITS = 64
_UNSIGNED = {_MAGIC + letter.encode(): letter for letter in LETTERS}
_SIGNED = {_MAGIC + letter.upper().encode(): letter for letter in LETTERS}


class Purpose(NamedTuple):
    """What a signature is good for, beside its body: it is worth nothing elsewhere.

    ``direction`` is ``"task"`` or ``"result"``. A task's body tells its id and name itself.
    """

    direction: str
    queue: str
    task_id: str = ""
    name: str = ""

    def with_body(self, letter: str, key_id: str, body: bytes) -> bytes:
        """The bytes that are signed: every part with its length, so that none runs into another."""
        parts = (letter, key_id, *self)
        prefix = "".join([f"{len(part)}:{part}," for part in parts])
        return prefix.encode(errors="surrogatepass") + body


class Opened(NamedTuple):
    """The parts of an envelope; ``key_id`` and ``signature`` are empty if it is not signed."""

    letter: str
    key_id: str
    signature: bytes
    body: bytes


def cover(letter: str, body: bytes, keyring: Keyring | None, purpose: Purpose) -> bytes:
    """The envelope of ``body``. Raises :class:`PayloadError` for pickle without a keyring."""
    if keyring is None:
        if letter == PICKLE:
            raise PayloadError("pickle travels signed only: give a Keyring, or use JSON")
        return _MAGIC + letter.encode() + body
    key_id, signature = keyring.sign(letter, purpose, body)
    return b"%s%s%s.%s%s" % (_MAGIC, letter.upper().encode(), key_id.encode(), signature, body)


def uncovered(letter: str, body: bytes) -> bytes:
    """The envelope before it is signed, for the way from a worker to its manager."""
    return _MAGIC + letter.encode() + body


def open_envelope(data: bytes) -> Opened:
    """Its parts, believed for nothing yet. Raises :class:`EnvelopeError` if they are not there."""
    head = data[:3]
    letter = _UNSIGNED.get(head)
    if letter is not None:
        return Opened(letter, "", b"", data[3:])
    letter = _SIGNED.get(head)
    if letter is None:
        raise EnvelopeError(_unknown(data))
    dot = data.find(b".", 3, 3 + MAX_KEY_ID + 1)
    key_id = data[3 : max(dot, 3)]
    if not key_id or not key_id.isascii() or len(data) < dot + 1 + _DIGITS:
        raise EnvelopeError("the envelope is malformed: its signature is not whole")
    body = dot + 1 + _DIGITS
    return Opened(letter, key_id.decode(), data[dot + 1 : body], data[body:])


def _unknown(data: bytes) -> str:
    if data[:2] == _MAGIC:
        return f"the envelope's codec {data[2:3]!r} is unknown; is its sender newer than this?"
    if data[:1] == b"g" and data[1:2].isdigit():
        return f"the envelope's version {data[:2]!r} is unknown; is its sender newer than this?"
    return f"this is no envelope of a task or result: it begins with {data[:8]!r}"


def uncover(
    data: bytes, accept: str, keyring: Keyring | None, purpose: Purpose, limit: int
) -> tuple[str, bytes]:
    """The codec's letter and the body, vouched for if there is a keyring.

    Raises :class:`EnvelopeError` for what is too large, not accepted, not (or wrongly) signed.
    """
    if len(data) > limit:
        raise EnvelopeError(f"the envelope has {len(data):,} bytes, over the limit of {limit:,}")
    opened = open_envelope(data)
    if opened.letter not in accept:
        raise EnvelopeError(
            f"the codec {opened.letter!r} is not accepted here (accepted: {', '.join(accept)})"
        )
    if keyring is not None:
        keyring.verify(opened, purpose)
    elif opened.key_id:
        raise EnvelopeError(
            f"the envelope is signed with the key {opened.key_id!r}, but there is no keyring here"
        )
    elif opened.letter == PICKLE:
        raise EnvelopeError("a pickle that nobody signed is never opened")
    return opened.letter, opened.body
