"""Tasks and results as bytes for a server in between, where others may read and write too.

    seal_task -> bytes -> read_task (header only) -> arguments_of      (client, manager, worker)
    read_result <- bytes <- sign_result <- bytes <- seal_result        (client, manager, worker)

An envelope is ``g1``, the letter of a codec, and a body; see :mod:`gtaskman.envelope.cover` for
the signed form. What the code's annotations say is what arrives; what cannot be carried raises
when it is sealed. Nothing here finds code by its name, and nothing here talks to a server.
"""

from __future__ import annotations

from gtaskman.envelope.cover import RESULT_LIMIT, TASK_LIMIT
from gtaskman.envelope.hints import Hints
from gtaskman.envelope.keyring import Keyring
from gtaskman.envelope.result import read_own_result, read_result, seal_result, sign_result
from gtaskman.envelope.task import Sealed, arguments_of, read_task, seal_task

__all__ = [
    "RESULT_LIMIT",
    "TASK_LIMIT",
    "Hints",
    "Keyring",
    "Sealed",
    "arguments_of",
    "read_own_result",
    "read_result",
    "read_task",
    "seal_result",
    "seal_task",
    "sign_result",
]
