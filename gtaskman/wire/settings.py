"""What a template or a worker is told when it starts."""

from __future__ import annotations

import dataclasses

from gtaskman.reference import Main


@dataclasses.dataclass(frozen=True)
class Settings:
    """The parts of the application that its children need; all plain values."""

    path: tuple[str, ...]
    argv: tuple[str, ...]
    directory: str | None  # None if it was removed
    main: Main | None
    preload: tuple[str, ...]
    max_frame: int
    max_result: int
    nice: int
    reuse_greenlets: bool
    title: str
    authkey: bytes | None  # of the application's multiprocessing, if it uses that
