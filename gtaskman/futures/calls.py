"""What an executor has its workers run. The workers import this, and nothing else of us."""

from __future__ import annotations

import os
import pickle
import traceback
from collections.abc import Callable, Iterable
from typing import Any

from gevent.lock import Semaphore

from gtaskman.errors import GTaskmanError, PayloadError, SoftTimeout
from gtaskman.reference import Main, import_main, main_of_application
from gtaskman.wire.payload import decode_value, encode_value


class NotPrepared(GTaskmanError):
    """Raised instead of a call in a worker whose initializer has failed."""

    def __init__(self, message: str, text: str) -> None:
        super().__init__(message, text)
        self.message = message
        self.text = text  # the traceback


_prepared: dict[str, tuple[str, str] | None] = {}  # by executor: how its initializer failed, if so
_turn = Semaphore()  # async calls may come while it runs


class Prepared:
    """The code of all calls of one executor: the initializer, once in each worker, then the call.

    It travels to each worker once, by value. Raises :class:`PayloadError` if the initializer or
    its arguments cannot.
    """

    def __init__(
        self, initializer: Callable[..., object], initargs: tuple[Any, ...], limit: int
    ) -> None:
        try:
            flags, body, buffers = encode_value((initializer, initargs), limit)
        except PayloadError as error:
            raise PayloadError(
                f"the initializer and its initargs cannot travel to a worker: {error}"
            ) from error.__cause__
        self._token = os.urandom(8).hex()
        self._encoded = flags, body, tuple(map(bytes, buffers))
        self._main = main_of_application()

    def __call__(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        if self._token not in _prepared:
            with _turn:
                if self._token not in _prepared:
                    _prepared[self._token] = self._prepare()
        failure = _prepared[self._token]
        if failure is not None:
            raise NotPrepared(*failure)
        return function(*args, **kwargs)

    def _prepare(self) -> tuple[str, str] | None:
        try:
            initializer, initargs = self._decode(self._main)
            initializer(*initargs)
        except SoftTimeout:
            raise  # the call's own limit: the next call tries again
        except (Exception, SystemExit) as error:
            return f"{type(error).__name__}: {error}", traceback.format_exc()
        return None

    def _decode(self, main: Main | None) -> Any:
        try:
            return decode_value(*self._encoded)
        except (AttributeError, pickle.UnpicklingError):
            if main is None:
                raise
            # It lives in the main module, which only tasks of its own bring in here.
            import_main(main)
            return decode_value(*self._encoded)


def run_chunk(function: Callable[..., Any], calls: Iterable[tuple[Any, ...]]) -> list[Any]:
    """Several calls of a ``map``, one after the other."""
    return [function(*args) for args in calls]
