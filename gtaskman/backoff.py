"""``Backoff``: how long to wait before the next try, longer each time."""

from __future__ import annotations

import sys
from typing import cast

import msgspec

from gtaskman.errors import ConfigurationError
from gtaskman.fields import shown


class Backoff(msgspec.Struct, frozen=True):
    """Exponential back-off with jitter, for the retries of a task and the restarts of a service.

    ``first`` is the wait after the first failure, ``maximum`` the longest one, both in seconds;
    each wait is ``factor`` times the one before. ``jitter`` is the part of a wait, from 0 to 1,
    that is left to chance, so that those that failed together do not all come back together.
    Raises :class:`ConfigurationError`, which names the field.

    The formula is that of "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015):
    ``jitter=1`` is its "full jitter", ``jitter=0.5`` its "equal jitter".
    """

    first: float = 0.1
    factor: float = 2.0
    maximum: float = 60.0
    jitter: float = 0.2

    def __post_init__(self) -> None:
        _check("first", self.first, 0.0)
        _check("factor", self.factor, 1.0)
        _check("maximum", self.maximum, 0.0)
        _check("jitter", self.jitter, 0.0, 1.0)
        if self.first > self.maximum:
            raise ConfigurationError(
                f"first={self.first} is more than maximum={self.maximum}: raise the one or lower"
                " the other",
                "first",
            )

    @classmethod
    def starting_with(cls, first: float) -> Backoff:
        """The usual back-off, with this wait (seconds) after the first failure."""
        _check("first", first, 0.0)
        return cls(first=first, maximum=max(first, cls().maximum))

    def delay(self, attempt: int, random: float) -> float:
        """Seconds to wait after the failure of ``attempt``, which counts from 1.

        ``random`` is a number from 0 to 1 by chance: the same one gives the same wait.
        """
        try:
            longest = min(self.maximum, self.first * self.factor ** (attempt - 1))
        except OverflowError:
            longest = self.maximum if self.first else 0.0
        return longest * (1.0 - self.jitter * random)


def _check(field: str, value: object, low: float, high: float = sys.float_info.max) -> None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not low <= cast(float, value) <= high:
        bounds = f"from {low:g}" + (f" to {high:g}" if high < sys.float_info.max else "")
        raise ConfigurationError(f"{field} takes a number {bounds}, not {shown(value)}", field)
