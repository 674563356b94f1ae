"""A real gunicorn that serves ``served``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gunicorn_server import Gunicorn


@pytest.fixture
def serve(tmp_path) -> Iterator[Any]:
    """Gives a gunicorn that serves; ``mode`` and more are those of our line."""
    made: list[Gunicorn] = []

    def serving(
        settings: dict[str, Any] | None = None, /, within: Path = tmp_path, **install: Any
    ) -> Gunicorn:
        directory = within / str(len(made))
        directory.mkdir()
        directory.chmod(within.stat().st_mode)
        made.append(Gunicorn(directory, install, settings or {}))
        return made[-1].start()

    yield serving
    for each in made:
        each.kill()
