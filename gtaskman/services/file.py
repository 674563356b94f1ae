"""Services that are described in a TOML file: ``read(path).manager()``.

::

    [manager]                       # a Configuration, if the usual one will not do
    start_method = "spawn"

    [services.web]                  # "web" is its id; beside the task: its ServiceOptions
    task = "shop.services:Web"
    restart = "on-failure"
    sockets = { http = ["127.0.0.1", 8000] }

    [services.web.options]          # the fields that the class declares
    greeting = "Hello"

Modules are looked for in the directory of the file, then in the working directory.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import os
import sys
import tomllib
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from gtaskman.backoff import Backoff
from gtaskman.config import Configuration
from gtaskman.errors import ConfigurationError, GTaskmanError
from gtaskman.fields import declared
from gtaskman.services.manager import ServiceManager
from gtaskman.services.options import ServiceOptions
from gtaskman.services.task import ServiceTask

T = TypeVar("T")

_TASK, _OPTIONS = "task", "options"
_TABLES = ("manager", "services")


class ServiceFileError(ConfigurationError):
    """Raised when a file of services cannot be read, or says what cannot be.

    ``file`` is its path, ``field`` the key, with dots.
    """

    def __init__(self, file: Path, key: str | None, message: str) -> None:
        super().__init__(f"{file}: {f'{key}: ' if key else ''}{message}", key)
        self.file = file


class TargetError(ConfigurationError):
    """Raised when ``module:name`` cannot be imported, or names nothing."""


class Entry(NamedTuple):
    """One service of a file."""

    task: ServiceTask
    options: ServiceOptions


class Plan(NamedTuple):
    """What a file says: how processes start, and which services there are, by their ids."""

    config: Configuration
    services: dict[str, Entry]

    def manager(self) -> ServiceManager:
        """A manager of all of them, not started."""
        manager = ServiceManager(self.config)
        for entry in self.services.values():
            manager.add(*entry)
        return manager

    def is_kept(self, name: str, manager: ServiceManager) -> bool:
        """Whether the manager has this service just as the plan says."""
        task, options = self.services[name]
        if name not in manager or manager.options(name) != options:
            return False
        other = manager.task(name)
        return type(other) is type(task) and other.arguments() == task.arguments()


def read(path: str | Path) -> Plan:
    """What a file says.

    Raises :class:`ServiceFileError`.
    """
    return _File(Path(path)).plan()


def find(target: str) -> Any:
    """What ``module:name`` names, the working directory first on the path.

    Raises :class:`TargetError`.
    """
    look_in(Path.cwd())
    name, _, path = target.partition(":")
    if not path or not all(part.isidentifier() for part in name.split(".")):
        raise TargetError(
            f"{target!r} is no name of something in a module: write module:name, such as"
            " 'shop.services:Web'"
        )
    try:
        found: Any = importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise TargetError(f"the module {name!r} cannot be imported: {in_a_line(error)}") from error
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise TargetError(f"the module {name!r} has no {path!r}") from None
    return found


def look_in(directory: Path) -> None:
    """Look for modules in this directory too, before all others."""
    if str(directory) not in sys.path:
        sys.path.insert(0, str(directory))


def in_a_line(error: BaseException) -> str:
    """An error of somebody's code, and where it is."""
    what = " ".join(f"{type(error).__name__}: {error}".split())
    if isinstance(error, SyntaxError):
        return what  # it names the place itself
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return what if frame.filename.startswith("<") else f"{what} ({frame.filename}:{frame.lineno})"


class _File:
    """One file: its path is in all that is said of it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._content = self._parse()

    def _parse(self) -> dict[str, Any]:
        try:
            with self._path.open("rb") as file:
                return tomllib.load(file)
        except OSError as error:
            raise self._wrong(None, error.strerror or str(error)) from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise self._wrong(None, f"it is no TOML: {error}") from None

    def plan(self) -> Plan:
        """All that it says."""
        self._refuse_unknown(None, self._content, _TABLES)
        services = self._table("services", self._content.get("services", {}))
        if not services:
            raise self._wrong("services", "it has no service; describe one in [services.ID]")
        look_in(Path(os.path.abspath(self._path)).parent)
        plan = Plan(self._configuration(), {name: self._entry(name, services) for name in services})
        # What only a manager sees, a health check that is no method for one, is seen here too.
        trial = ServiceManager(plan.config)
        for name, entry in plan.services.items():
            self._made(f"services.{name}", functools.partial(trial.add, *entry))
        return plan

    def _configuration(self) -> Configuration:
        values = self._table("manager", self._content.get("manager", {}))
        self._refuse_unknown("manager", values, declared(Configuration, object))
        return self._made("manager", lambda: Configuration(**_tuples(values)))

    def _entry(self, name: str, services: dict[str, Any]) -> Entry:
        key = f"services.{name}"
        values = dict(self._table(key, services[name]))
        self._refuse_unknown(key, values, (_TASK, _OPTIONS, *declared(ServiceOptions, object)))
        service = self._class(f"{key}.{_TASK}", values.pop(_TASK, None))
        fields = self._table(f"{key}.{_OPTIONS}", values.pop(_OPTIONS, {}))
        if "id" in fields:
            raise self._wrong(f"{key}.{_OPTIONS}.id", f"the id of this service is {name!r} already")
        if isinstance(values.get("backoff"), dict):
            self._refuse_unknown(f"{key}.backoff", values["backoff"], Backoff.__struct_fields__)
        options = self._made(key, lambda: ServiceOptions(**values))
        return Entry(self._made(f"{key}.{_OPTIONS}", lambda: service(id=name, **fields)), options)

    def _class(self, key: str, target: Any) -> type[ServiceTask]:
        if not isinstance(target, str):
            raise self._wrong(key, "it takes the name of a class, such as 'shop.services:Web'")
        found = self._made(key, lambda: find(target))
        if not (isinstance(found, type) and issubclass(found, ServiceTask)):
            raise self._wrong(
                key, f"{target} is {found!r:.80}, no class derived from gtaskman.ServiceTask"
            )
        return found

    # --- mistakes

    def _table(self, key: str, found: Any) -> dict[str, Any]:
        if not isinstance(found, dict):
            raise self._wrong(key, f"it takes a table, [{key}], not {found!r:.80}")
        return found

    def _refuse_unknown(
        self, key: str | None, found: Mapping[str, Any], known: Iterable[str]
    ) -> None:
        known = list(known)
        for name in found:
            if name not in known:
                close = difflib.get_close_matches(name, known, 1)
                hint = f"; did you mean {close[0]!r}?" if close else f" (there are: {_list(known)})"
                raise self._wrong(f"{key}.{name}" if key else name, f"there is no such key{hint}")

    def _made(self, key: str, make: Callable[[], T]) -> T:
        """What ``make`` gives; its error says where in the file the mistake is."""
        try:
            return make()
        except GTaskmanError as error:
            field = getattr(error, "field", None)
            raise self._wrong(f"{key}.{field}" if field else key, str(error)) from error

    def _wrong(self, key: str | None, message: str) -> ServiceFileError:
        return ServiceFileError(self._path, key, message)


def _list(names: Iterable[str]) -> str:
    return ", ".join(names)


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    """TOML has lists only; a Configuration, which can be hashed, has tuples."""
    return {name: tuple(each) if isinstance(each, list) else each for name, each in values.items()}
