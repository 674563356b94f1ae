"""The Lua scripts, each in its own file under ``scripts/``; see the README there."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

_FOLDER = Path(__file__).with_name("scripts")


class Script(NamedTuple):
    """A script with the prelude before it; ``sha`` is the name under which a server keeps it."""

    name: str
    source: str
    sha: str


def _read(name: str) -> str:
    return (_FOLDER / f"{name}.lua").read_text(encoding="utf-8")


_PRELUDE = _read("lib")


def _script(name: str) -> Script:
    source = f"{_PRELUDE}\n{_read(name)}"
    return Script(name, source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())


ENQUEUE = _script("enqueue")
TURN = _script("turn")
BEAT = _script("beat")
RESIGN = _script("resign")
VOW = _script("vow")
CANCEL = _script("cancel")
PROGRESS = _script("progress")
WATCH = _script("watch")
SHOW = _script("show")
FIND = _script("find")
COUNTS = _script("counts")
PAUSE = _script("pause")
REQUEUE = _script("requeue")
DELETE = _script("delete")
STORE = _script("store")
KEEP = _script("keep")
TEND = _script("tend")
