"""The plugin for pytest: the fixtures ``gtaskman_manager`` and ``gtaskman_eager``.

Settings of both are the fields of :class:`gtaskman.Configuration`, as the ini option ``gtaskman``,
one ``field = value`` a line, and for one test, class or module as a marker::

    @pytest.mark.gtaskman(max_processes=2, start_method="spawn")

Loading it imports neither gevent nor a manager: every pytest of the environment does.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from gtaskman.config import Configuration
    from gtaskman.taskmanager import TaskManager
    from gtaskman.testing.manager import EagerManager

_NAME = "gtaskman"
_WORKERS = 2  # of a manager, unless it is set


def pytest_addoption(parser: pytest.Parser) -> None:
    """The ini option."""
    parser.addini(
        _NAME,
        "settings of the managers of gtaskman's fixtures, one 'field = value' a line",
        type="linelist",
        default=[],
    )


def pytest_configure(config: pytest.Config) -> None:
    """The marker."""
    config.addinivalue_line(
        "markers", f"{_NAME}(**settings): settings of the managers of gtaskman's fixtures"
    )


@pytest.fixture
def gtaskman_manager(request: pytest.FixtureRequest) -> Iterator[TaskManager]:
    """A real manager with real workers, which is the default one during the test."""
    from gtaskman.taskmanager import TaskManager
    from gtaskman.testing.stage import as_default

    with as_default(TaskManager(config=_configuration(request))) as manager:
        yield manager


@pytest.fixture
def gtaskman_eager(request: pytest.FixtureRequest) -> Iterator[EagerManager]:
    """An eager manager, which is the default one during the test."""
    from gtaskman.testing.stage import eager

    with eager(_configuration(request)) as manager:
        yield manager


def _configuration(request: pytest.FixtureRequest) -> Configuration:
    """The settings of a test: a marker goes before the ini option, and the nearest before all."""
    from gtaskman.config import Configuration
    from gtaskman.errors import ConfigurationError

    settings: dict[str, Any] = dict(map(_setting, request.config.getini(_NAME)))
    for marker in reversed(list(request.node.iter_markers(_NAME))):
        if marker.args:
            raise ConfigurationError(
                f"the marker {_NAME} takes settings by name, such as max_processes=2, not"
                f" {marker.args[0]!r:.80}"
            )
        settings.update(marker.kwargs)
    settings.setdefault("max_processes", max(_WORKERS, settings.get("min_processes", 0)))
    return Configuration(**settings)


def _setting(line: str) -> tuple[str, Any]:
    name, equals, text = (part.strip() for part in line.partition("="))
    if not equals:
        from gtaskman.errors import ConfigurationError

        raise ConfigurationError(
            f"the ini option {_NAME} takes 'field = value' lines, not {line!r}"
        )
    try:
        return name, ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return name, text  # a bare word, such as the name of a start method
