"""What a scenario stands on: telling the test, holding still, and making managers."""

from __future__ import annotations

import importlib
import json
import os
import traceback
from typing import Any

from worlds import PATIENCE, wait_until

import gtaskman

__all__ = ["PATIENCE", "hold", "manager", "perform", "tell", "wait_until", "world"]

gunicorn_worker: Any = None  # gunicorn's own object, in its world


def world() -> str:
    """The world that this is."""
    return os.environ["WORLD"]


def tell(event: str, **facts: Any) -> None:
    """Tell the test something, which ``run.told(event)`` waits for."""
    line = json.dumps({"event": event, **facts}) + "\n"
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    news = os.open(os.environ["WORLD_NEWS"], flags, 0o600)
    try:
        os.write(news, line.encode())
    finally:
        os.close(news)


def hold(step: str = "", timeout: float = 4 * PATIENCE) -> None:
    """Wait, cooperatively, until the test calls ``run.release(step)``."""
    gate = os.environ["WORLD_NEWS"] + ".released"
    wait_until(
        lambda: os.path.exists(gate + step) or os.path.exists(gate),
        timeout,
        f"{step or 'the end'} released by the test",
        0.005,
    )


def manager(**config: Any) -> gtaskman.TaskManager:
    """A manager that is not started yet: two workers at most, unless it is said otherwise."""
    config.setdefault("max_processes", 2)
    return gtaskman.TaskManager(config=gtaskman.Configuration(**config))


def perform(spec: dict[str, Any]) -> None:
    """Do what the test wants to be done here, and tell it how that went."""
    try:
        found: Any = importlib.import_module(spec["module"])
        for name in spec["name"].split("."):
            found = getattr(found, name)
        value = found(**spec["params"])
        tell("result", value=value)
    except BaseException:
        tell("error", traceback=traceback.format_exc())
