"""Which names does Python's own library use most? A program for a ProcessPoolExecutor.

    python examples/futures_drop_in/names.py
    python examples/futures_drop_in/names.py --files 100 --workers 4

It was written for ``concurrent.futures``; the one line marked below puts it on gtaskman, and the
other one back. The results are the same. Try it with ``from gevent import monkey;
monkey.patch_all()`` as the first line: on gtaskman it goes on as before.
"""

from __future__ import annotations

import argparse
import asyncio
import builtins
import collections
import keyword
import sysconfig
import time
import tokenize
from concurrent.futures import as_completed
from pathlib import Path

from gtaskman.futures import Executor as ProcessPoolExecutor  # the line

# from concurrent.futures import ProcessPoolExecutor  # and what stood there

LIBRARY = Path(sysconfig.get_path("stdlib"))
IGNORED: frozenset[str] = frozenset()


def prepare(ignored: frozenset[str]) -> None:
    """Once in each worker: names that do not count."""
    global IGNORED
    IGNORED = ignored


def count(path: Path) -> collections.Counter[str]:
    """The names in one file, and how often each stands there."""
    with tokenize.open(path) as file:
        tokens = tokenize.generate_tokens(file.readline)
        names = [each.string for each in tokens if each.type == tokenize.NAME]
    return collections.Counter(name for name in names if name not in IGNORED)


def definitions(name: str, paths: list[Path]) -> tuple[str, list[str]]:
    """Where a function or a class of this name is defined: ``file:line``."""
    found = []
    for path in paths:
        with tokenize.open(path) as file:
            for number, line in enumerate(file, 1):
                if line.lstrip().startswith((f"def {name}(", f"class {name}(", f"class {name}:")):
                    found.append(f"{path.relative_to(LIBRARY)}:{number}")
    return name, found


def most_used(pool: ProcessPoolExecutor, paths: list[Path]) -> collections.Counter[str]:
    """The names of all files, by ``map``."""
    total: collections.Counter[str] = collections.Counter()
    for names in pool.map(count, paths, chunksize=8, timeout=300):
        total.update(names)
    return total


def places(pool: ProcessPoolExecutor, names: list[str], paths: list[Path]) -> dict[str, list[str]]:
    """Where each is defined, by ``submit`` and ``as_completed``."""
    futures = [pool.submit(definitions, name, paths) for name in names]
    return dict(future.result() for future in as_completed(futures, timeout=300))


async def longest(pool: ProcessPoolExecutor, paths: list[Path]) -> list[tuple[int, str]]:
    """The files with the most different names, from a running event loop."""
    loop = asyncio.get_running_loop()
    counts = await asyncio.gather(*(loop.run_in_executor(pool, count, path) for path in paths))
    sizes = [(len(names), path.name) for names, path in zip(counts, paths, strict=True)]
    return sorted(sizes, reverse=True)[:5]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=160, help="how many files (default: 160)")
    parser.add_argument("--workers", type=int, default=None, help="how many processes")
    given = parser.parse_args()
    paths = sorted(LIBRARY.glob("*.py"))[: given.files]
    ignored = frozenset([*keyword.kwlist, *dir(builtins), "self", "cls"])
    begin = time.perf_counter()
    with ProcessPoolExecutor(given.workers, initializer=prepare, initargs=(ignored,)) as pool:
        total = most_used(pool, paths)
        top = [name for name, _ in sorted(total.items(), key=lambda each: (-each[1], each[0]))[:8]]
        found = places(pool, top, paths)
        broad = asyncio.run(longest(pool, paths[:40]))
        missing = pool.submit(count, LIBRARY / "no_such_file.py").exception()
    took = time.perf_counter() - begin

    print(f"{len(paths)} files, {total.total():,} names, {len(total):,} different ones\n")
    for name in top:
        where = ", ".join(found[name][:2]) or "nowhere"
        print(f"{total[name]:7,}  {name:12} defined {len(found[name]):3} times: {where}")
    print("\nmost different names:", ", ".join(f"{name} ({many})" for many, name in broad))
    print(f"a file that is not there: {type(missing).__name__}, as it was raised in the worker")
    print(f"\nby {ProcessPoolExecutor.__module__}, in {took:.2f} s")


if __name__ == "__main__":
    main()
