"""For tests of applications: an eager manager, and a plugin for pytest with fixtures.

Its parts are imported when they are first used, so that the plugin costs nothing while no test
asks for its fixtures.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gtaskman.testing.manager import EagerManager
    from gtaskman.testing.stage import as_default, eager

__all__ = ["EagerManager", "as_default", "eager"]

_ON_DEMAND = {
    "EagerManager": "gtaskman.testing.manager",
    "as_default": "gtaskman.testing.stage",
    "eager": "gtaskman.testing.stage",
}


def __getattr__(name: str) -> Any:
    home = _ON_DEMAND.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
