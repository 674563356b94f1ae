"""Text for a terminal: characters that would steer it, or reorder what it shows, are written out.

Names, ids, messages and results come from other processes. An escape sequence in one of them could
set the title of the operator's terminal, clear its screen or hide text.
"""

from __future__ import annotations

import re

# C0 but for tab and newline, DEL, C1; marks and overrides of the direction of text; lone surrogates
_STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_BREAKING = re.compile("[\t\n\u2028\u2029]")


def printable(text: str) -> str:
    """The text with such characters as escapes; it may have several lines."""
    return _STEERING.sub(_escape, text)


def printable_line(text: str) -> str:
    """Likewise, in one line."""
    return _BREAKING.sub(_escape, printable(text))


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape", "surrogatepass").decode()
