"""``Environment``: a virtual environment with what one extra brings, and nothing else.

``linked`` is quick and needs no package index: it links the distributions that the running
environment has, those alone that the extra asks for, and what they ask for. ``installed`` has pip
do it, with a wheel of gtaskman.
"""

from __future__ import annotations

import configparser
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path, PurePosixPath

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
Wanted = tuple[str, frozenset[str]]  # a distribution, and its extras

_SCRIPT = """#!{python}
import sys

from {module} import {start}

sys.exit({attribute}())
"""


class Environment:
    """One virtual environment."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        venv.EnvBuilder(symlinks=True).create(directory)
        self.bin = directory / "bin"
        self.python = self.bin / "python"
        (self.packages,) = (directory / "lib").glob("python*/site-packages")

    @classmethod
    def linked(cls, directory: Path, extras: Iterable[str]) -> Environment:
        """One of links to the distributions of the running environment, and to this checkout."""
        made = cls(directory)
        (made.packages / "gtaskman").symlink_to(ROOT / "gtaskman")
        made._write_scripts(_own_scripts())
        for distribution in closure(extras):
            for path in _tops(distribution):
                made._link(Path(str(distribution.locate_file(str(path)))), path)
            points = distribution.entry_points.select(group="console_scripts")
            made._write_scripts(points)
        return made

    @classmethod
    def installed(cls, directory: Path, extras: Iterable[str], wheel: Path) -> Environment:
        """One in which pip has installed this wheel of gtaskman with these extras."""
        made = cls(directory)
        named = ",".join(extras)
        _pip("--python", str(made.python), "install", f"{wheel}[{named}]" if named else str(wheel))
        return made

    def _link(self, source: Path, name: PurePosixPath) -> None:
        target = self.packages / name
        target.parent.mkdir(exist_ok=True)
        if not target.exists():
            target.symlink_to(source)

    def _write_scripts(self, points: Iterable[metadata.EntryPoint]) -> None:
        for point in points:
            script = self.bin / point.name
            script.write_text(
                _SCRIPT.format(
                    python=self.python,
                    module=point.module,
                    start=point.attr.split(".")[0],
                    attribute=point.attr,
                )
            )
            script.chmod(0o755)


def wheel(directory: Path) -> Path:
    """A wheel of this checkout, of a copy of it: nothing that an earlier one left gets in."""
    source = directory / "source"
    source.mkdir()
    for name in ("setup.cfg", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "gtaskman", source / "gtaskman", ignore=ignored)
    _pip("wheel", "--no-deps", "--wheel-dir", str(directory), str(source))
    (found,) = directory.glob("gtaskman-*.whl")
    return found


def _pip(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", "--quiet", *words], check=True)


# --- what setup.cfg says -------------------------------------------------------------------------


def _setup() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def extras() -> list[str]:
    """The names of all extras."""
    return list(_setup()["options.extras_require"])


def requirements(extras: Iterable[str]) -> list[Requirement]:
    """What gtaskman requires, with these extras."""
    setup = _setup()
    sections = [setup["options"]["install_requires"]]
    sections += [setup["options.extras_require"][extra] for extra in extras]
    lines = [line.strip() for section in sections for line in section.splitlines()]
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def _own_scripts() -> list[metadata.EntryPoint]:
    lines = _setup()["options.entry_points"]["console_scripts"].split("\n")
    pairs = [line.split("=") for line in lines if line.strip()]
    return [
        metadata.EntryPoint(name.strip(), value.strip(), "console_scripts") for name, value in pairs
    ]


# --- what that brings ----------------------------------------------------------------------------


def closure(extras: Iterable[str]) -> Iterator[metadata.Distribution]:
    """All distributions that gtaskman needs with these extras, as this environment has them.

    Raises :class:`importlib.metadata.PackageNotFoundError` for one that it has not.
    """
    seen: set[Wanted] = set()
    given: set[str] = set()
    left = [_wanted(each) for each in requirements(extras)]
    while left:
        name, its_extras = wanted = left.pop()
        if wanted in seen:
            continue
        seen.add(wanted)
        distribution = metadata.distribution(name)
        left += _required(distribution, its_extras)
        if name not in given:
            given.add(name)
            yield distribution


def _wanted(requirement: Requirement) -> Wanted:
    return requirement.name.lower(), frozenset(requirement.extras)


def _required(distribution: metadata.Distribution, extras: frozenset[str]) -> list[Wanted]:
    return [
        _wanted(each)
        for each in map(Requirement, distribution.requires or ())
        if each.marker is None
        or any(each.marker.evaluate({"extra": extra}) for extra in ("", *extras))
    ]


def _tops(distribution: metadata.Distribution) -> set[PurePosixPath]:
    """What is to be linked: packages and modules; of a namespace, what the distribution adds."""
    files = [PurePosixPath(str(file)) for file in distribution.files or ()]
    inside = [path for path in files if path.parts[0] not in ("..", "__pycache__")]
    packages = {path.parts[0] for path in inside if path.parts[1:] == ("__init__.py",)}
    tops = set()
    for path in inside:
        whole = path.parts[0] in packages or path.parts[0].endswith(".dist-info")
        tops.add(PurePosixPath(*path.parts[: 1 if whole else 2]))
    return tops
