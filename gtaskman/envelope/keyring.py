"""``Keyring``: the secrets with which envelopes are signed and by which they are known.

HMAC-SHA256 over codec, key id, direction, namespace and queue, id, name and body; checked before
anything is decoded. Two keys may live at once, so that they can be changed while tasks wait.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping

from gtaskman.envelope.codec import PICKLE
from gtaskman.envelope.cover import MAX_KEY_ID, Opened, Purpose
from gtaskman.errors import ConfigurationError, EnvelopeError

MIN_KEY = 16  # bytes: fewer can be guessed
_KEY_ID = re.compile(rf"[A-Za-z0-9_-]{{1,{MAX_KEY_ID}}}")


class Keyring:
    """Keys by their ids: all of them verify, the one called ``sign_with`` signs.

    ::

        Keyring({"2024": old, "2025": new}, sign_with="2025")

    A key is at least 16 random bytes (``secrets.token_bytes(32)``), its id 1 to 32 letters,
    digits, ``_`` or ``-``. With ``required=False`` unsigned envelopes are let in too (pickles
    never are): for the time in which not every sender has the keys yet.
    Raises :class:`ConfigurationError`.
    """

    def __init__(
        self, keys: Mapping[str, bytes], sign_with: str | None = None, *, required: bool = True
    ) -> None:
        if not keys:
            raise ConfigurationError("a keyring needs at least one key", "keys")
        for key_id, key in keys.items():
            _check_id(key_id)
            _check_key(key_id, key)
        if sign_with is None and len(keys) == 1:
            sign_with = next(iter(keys))
        if sign_with is None or sign_with not in keys:
            raise ConfigurationError(
                f"sign_with takes the id of one of the keys ({', '.join(keys)}), not {sign_with!r}",
                "sign_with",
            )
        self._keys = {key_id: bytes(key) for key_id, key in keys.items()}
        self.sign_with = sign_with
        self.required = required

    def sign(self, letter: str, purpose: Purpose, body: bytes) -> tuple[str, bytes]:
        """The id of the signing key, and the signature: 64 hexadecimal digits."""
        return self.sign_with, self._signature(self.sign_with, letter, purpose, body)

    def verify(self, opened: Opened, purpose: Purpose) -> None:
        """Raise :class:`EnvelopeError` unless one of the keys signed this for this purpose."""
        if not opened.key_id:
            if self.required or opened.letter == PICKLE:
                raise EnvelopeError("the envelope is not signed, and signatures are required here")
            return
        if opened.key_id not in self._keys:
            raise EnvelopeError(
                f"the envelope is signed with the key {opened.key_id!r}, which is not in the"
                f" keyring here (it has: {', '.join(self._keys)})"
            )
        due = self._signature(opened.key_id, opened.letter, purpose, opened.body)
        if not hmac.compare_digest(due, opened.signature):
            raise EnvelopeError(
                f"the envelope's signature is wrong for this {purpose.direction}: it was changed,"
                " or made for another queue or task, or with another key"
            )

    def _signature(self, key_id: str, letter: str, purpose: Purpose, body: bytes) -> bytes:
        signed = purpose.with_body(letter, key_id, body)
        return hmac.digest(self._keys[key_id], signed, "sha256").hex().encode()

    def __repr__(self) -> str:
        return f"<Keyring {', '.join(self._keys)}; signs with {self.sign_with}>"


def _check_id(key_id: object) -> None:
    if not isinstance(key_id, str) or not _KEY_ID.fullmatch(key_id):
        raise ConfigurationError(
            f"a key's id takes 1 to {MAX_KEY_ID} letters, digits, '_' or '-', not {key_id!r:.80}",
            "keys",
        )


def _check_key(key_id: str, key: object) -> None:
    # What the key is stays out of the text: errors end up in logs.
    if not isinstance(key, (bytes, bytearray)) or len(key) < MIN_KEY:
        raise ConfigurationError(
            f"the key {key_id!r} takes at least {MIN_KEY} bytes; make one with"
            " secrets.token_bytes(32)",
            "keys",
        )
