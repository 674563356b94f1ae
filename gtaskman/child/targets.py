"""The code that orders name by number, found when it is first needed."""

from __future__ import annotations

import pickle
import time
from typing import Any

from gtaskman.reference import Main, Reference, import_main, resolve


class Unresolved(Exception):
    """Raised when the code cannot be had in this worker; the cause says why."""


class Targets:
    """Numbers -> code, for one worker."""

    def __init__(self, main: Main | None) -> None:
        self._main = main
        self._defined: dict[int, tuple[str, Reference]] = {}
        self._found: dict[int, tuple[str, Any]] = {}
        self.found_at = 0.0  # monotonic: when the last import of code ended

    def define(self, number: int, definition: tuple[str, Reference]) -> None:
        """The manager says what ``number`` stands for: a task's name and where its code is."""
        self._defined[number] = definition

    def get(self, number: int) -> tuple[str, Any]:
        """The task's name and its code.

        Raises :class:`Unresolved`, each time again, if the code cannot be imported.
        """
        try:
            return self._found[number]
        except KeyError:
            pass
        name, reference = self._defined[number]
        try:
            found = (name, resolve(reference, self._main))
        except BaseException as error:
            raise Unresolved from error
        self._found[number] = found
        self.found_at = time.monotonic()
        return found

    def decode_with_main(self, error: BaseException) -> bool:
        """Whether importing the main module may mend ``error``: a class of its own did not load."""
        if self._main is None or not isinstance(error, (AttributeError, pickle.UnpicklingError)):
            return False
        import_main(self._main)
        return True
