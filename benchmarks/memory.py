"""How much memory a process has, and for itself alone, as Linux tells it."""

from pathlib import Path


def unshared(pid: int) -> int:
    """The unique set size (USS) of a process, in bytes: what ending it would free."""
    fields = _fields(Path(f"/proc/{pid}/smaps_rollup"))
    return sum(int(fields[name].split()[0]) * 1024 for name in ("Private_Clean", "Private_Dirty"))


def resident(pid: int) -> int:
    """The resident set size (RSS) of a process, in bytes, shared pages included."""
    return int(_fields(Path(f"/proc/{pid}/smaps_rollup"))["Rss"].split()[0]) * 1024


def parent_of(pid: int) -> int:
    """The pid of a process's parent."""
    return int(_fields(Path(f"/proc/{pid}/status"))["PPid"])


def _fields(path: Path) -> dict[str, str]:
    lines = (line.partition(":") for line in path.read_text().splitlines())
    return {name: value.strip() for name, _, value in lines}
