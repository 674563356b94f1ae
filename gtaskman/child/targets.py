"""The code that orders name by number, found when it is first needed."""

from __future__ import annotations

import pickle
from typing import Any

from gtaskman.reference import Main, Reference, import_main, resolve


class Unresolved(Exception):  # noqa: N818 - private, always translated
    """Raised when the code cannot be had in this worker; the cause says why."""


class Targets:
    """Numbers -> code, for one worker."""

    def __init__(self, main: Main | None) -> None:
        self._main = main
        self._names: dict[int, str] = {}
        self._references: dict[int, Reference] = {}
        self._found: dict[int, Any] = {}

    def define(self, number: int, definition: tuple[str, Reference]) -> None:
        """The manager says what ``number`` stands for: a task's name and where its code is."""
        self._names[number], self._references[number] = definition

    def name(self, number: int) -> str:
        """The task's name."""
        return self._names[number]

    def get(self, number: int) -> Any:
        """The code. Raises :class:`Unresolved`, each time again, if it cannot be imported."""
        try:
            return self._found[number]
        except KeyError:
            pass
        try:
            self._found[number] = found = resolve(self._references[number], self._main)
        except BaseException as error:
            raise Unresolved from error
        return found

    def decode_with_main(self, error: BaseException) -> bool:
        """Whether importing the main module may mend ``error``: a class of its own did not load."""
        if self._main is None or not isinstance(error, (AttributeError, pickle.UnpicklingError)):
            return False
        import_main(self._main)
        return True
