"""The work that every peer is given: plain functions, importable by any worker.

Each returns something its caller can check. Nothing here imports a peer or gevent.
"""

import hashlib
import os
import random
import time


def noop() -> None:
    """The no-op task."""


def echo(value: int) -> int:
    """Give back the argument, so that each result can be told apart."""
    return value


def nap(seconds: float) -> float:
    """Take time without taking a core, then give back how long was asked for."""
    time.sleep(seconds)
    return seconds


def where(seconds: float) -> int:
    """Stay long enough that the next task goes to another worker; say who ran this one."""
    time.sleep(seconds)
    return os.getpid()


def burn(loops: int) -> int:
    """Keep a core busy; the number that comes out proves that all the loops were done."""
    state = 1
    for _ in range(loops):
        state = (state * 1103515245 + 12345) & 0x7FFFFFFF
    return state


def content(seed: int, size: int) -> bytes:
    """Random bytes, the same for the same seed on both sides of the pipe."""
    return random.Random(seed).randbytes(size)


def digest(payload: bytes | bytearray) -> str:
    """What two equal payloads of one type have in common."""
    return f"{type(payload).__name__}:{hashlib.sha256(payload).hexdigest()}"


# What a worker holds between two tasks of the "big" scenario. Making the bytes and hashing them
# is neither the pipe's work nor the library's, so it is done in tasks of its own, not timed.
_held: dict[str, bytes | bytearray] = {}


def keep(payload: bytes | bytearray) -> int:
    """Take a payload and hold it for `digest_of_kept`; give back its length."""
    _held["payload"] = payload
    return len(payload)


def digest_of_kept(_: int) -> str:
    """Let go of the payload that `keep` took, and say what it was."""
    return digest(_held.pop("payload"))


def prepare_bytes(size: int) -> str:
    """Hold `size` random bytes for `give`; say what they are."""
    _held["payload"] = content(size, size)
    return digest(_held["payload"])


def prepare_bytearray(size: int) -> str:
    """Hold a bytearray of `size` random bytes for `give`; say what it is."""
    _held["payload"] = bytearray(content(size, size))
    return digest(_held["payload"])


def give(_: int) -> bytes | bytearray:
    """Let go of the prepared payload, as the result."""
    return _held.pop("payload")
