"""``SocketAddress``: the path of a manager's socket, read from a URL. It opens nothing."""

from __future__ import annotations

import os
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from gtaskman.errors import ConfigurationError

LONGEST = 106  # bytes of a path: one fewer than fit into an address, for the name it begins with
_EXAMPLE = "unix:///run/app/gtaskman.sock"


@dataclass(frozen=True)
class SocketAddress:
    """Where the socket is: an absolute path."""

    path: str

    @classmethod
    def parse(cls, url: str) -> SocketAddress:
        """Read ``unix:///absolute/path`` or ``unix:path``.

        Raises :class:`ConfigurationError`, which says what would be right.
        """
        try:
            parts = urlsplit(url)
        except ValueError:  # a bracket in what stands for the host
            parts = urlsplit("")
        if parts.scheme.lower() != "unix" or parts.netloc or parts.query or parts.fragment:
            # It is not shown: one for a server, as redis-py has them, may hold a password.
            raise ConfigurationError(
                f"this 'unix:' URL is not that of a manager's socket: write {_EXAMPLE}, with three"
                " slashes and nothing behind the path (a Redis server that listens on a socket is"
                " redis+socket:///path)",
                "url",
            )
        return cls.of(unquote(parts.path))

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> SocketAddress:
        """The address of a path. Raises :class:`ConfigurationError`."""
        text = os.fspath(path)
        if not text or text.endswith("/") or "\0" in text:
            raise ConfigurationError(
                f"{text!r} is not the path of a socket: write one such as {_EXAMPLE}", "url"
            )
        whole = os.path.abspath(text)
        if len(os.fsencode(whole)) > LONGEST:
            raise ConfigurationError(
                f"the path of a socket may have {LONGEST} bytes, and {whole!r} has more: the"
                " system allows no longer ones",
                "url",
            )
        return cls(whole)

    def __str__(self) -> str:
        return f"unix://{self.path}"
